//! What one action asks for, read from the content store and checked.

use super::cache::blocking;
use crate::app::App;
use crate::farm::FarmError;
use bytes::Bytes;
use motefarm_cas::snapshot::{StoredTreeError, stored_tree};
use motefarm_cas::store::{BlobSource as _, PinGuard, StoreError as CasError};
use motefarm_core::Digest;
use motefarm_core::platform::Demand;
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::reapi::{self, Action, Command, Platform};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;

/// Largest `Action`: it names two digests, a platform and a salt.
const MAX_ACTION_BYTES: u64 = 1 << 20;
/// Largest `Command`: with the action it fits a message to a buildlet.
const MAX_COMMAND_BYTES: u64 = 4 << 20;

/// An action as it waits: a few hundred bytes, whatever its command and inputs are.
#[derive(Debug, Clone)]
pub struct Task {
    /// Of the `Action`.
    pub action: Digest,
    /// Of its `Command`.
    pub command: Digest,
    /// Of the root of its inputs.
    pub input_root: Digest,
    /// What it asks of a machine.
    pub demand: Demand,
    /// The most its command may run.
    pub timeout: Duration,
    /// Neither kept nor shared.
    pub do_not_cache: bool,
}

/// What is sent to a machine, and kept in the store meanwhile.
pub struct Loaded {
    /// The encoded `Action`.
    pub action: Bytes,
    /// The encoded `Command`.
    pub command: Bytes,
    /// Everything that it needs stays while this lives.
    pub pins: PinGuard,
}

impl Task {
    /// Reads an action and its command. [`FarmError::MissingBlobs`] if they or the root of the inputs are
    /// not there; [`FarmError::Invalid`] names what is wrong with them.
    pub async fn read(app: &App, action: Digest) -> Result<Self, FarmError> {
        let bounds = app.config.reapi.timeouts;
        let cas = app.cas.clone();
        let read = blocking(move || {
            let Some(bytes) = read_small(&cas, &action, MAX_ACTION_BYTES)? else {
                return Ok(Err(FarmError::MissingBlobs(vec![action])));
            };
            let Ok(decoded) = Action::decode(bytes) else { return Ok(invalid(&action, "is no Action")) };
            let digests = (|| {
                let command = digest("command_digest", decoded.command_digest.as_ref())?;
                Ok::<_, FieldError>((command, digest("input_root_digest", decoded.input_root_digest.as_ref())?))
            })();
            let (command, input_root) = match digests {
                Ok(digests) => digests,
                Err(error) => return Ok(invalid(&action, &error.to_string())),
            };
            let missing = cas.missing(&[command, input_root]);
            if !missing.is_empty() {
                return Ok(Err(FarmError::MissingBlobs(missing)));
            }
            let Some(bytes) = read_small(&cas, &command, MAX_COMMAND_BYTES)? else {
                return Ok(Err(FarmError::MissingBlobs(vec![command])));
            };
            let Ok(said) = Command::decode(bytes) else { return Ok(invalid(&command, "is no Command")) };
            Ok(Ok((decoded, command, input_root, said)))
        });
        let read = read.await.map_err(|error| match error {
            FarmError::Content(error @ CasError::TooLarge { .. }) => FarmError::Invalid(error.to_string()),
            other => other,
        });
        let (decoded, command, input_root, said) = read??;
        if said.arguments.is_empty() {
            return Err(FarmError::Invalid(format!("command {command}: field arguments: is empty")));
        }
        let timeout = bounds.of(decoded.timeout.map(|asked| (asked.seconds, asked.nanos)));
        let timeout = timeout.map_err(|error| FarmError::Invalid(format!("action {action}: {error}")))?;
        #[expect(deprecated, reason = "clients of API 2.1 and before have it there and nowhere else")]
        let demand = demand(decoded.platform, said.platform);
        let demand = demand.map_err(|error| FarmError::Invalid(format!("action {action}: platform: {error}")))?;
        let do_not_cache = decoded.do_not_cache;
        Ok(Self { action, command, input_root, demand, timeout, do_not_cache })
    }

    /// Reads what a machine is sent, and keeps it and all inputs in the store.
    /// [`FarmError::MissingBlobs`] names what is not there (of what is known of).
    pub async fn load(self: Arc<Self>, app: &App) -> Result<Loaded, FarmError> {
        let cas = app.cas.clone();
        let loaded = blocking(move || {
            let mut tree = match stored_tree(self.input_root, &cas) {
                Ok(tree) => tree,
                Err(StoredTreeError::Store(error)) => return Err(error),
                Err(error) => return Ok(Err(FarmError::Invalid(format!("input root {}: {error}", self.input_root)))),
            };
            tree.digests.extend([self.action, self.command]);
            let pins = cas.pin(tree.digests.clone());
            // Only after they are pinned it is known what stays.
            let missing = cas.missing(&tree.digests);
            if !missing.is_empty() {
                return Ok(Err(FarmError::MissingBlobs(missing)));
            }
            let action = cas.read(&self.action, MAX_ACTION_BYTES)?;
            let command = cas.read(&self.command, MAX_COMMAND_BYTES)?;
            Ok(match (action, command) {
                (Some(action), Some(command)) => Ok(Loaded { action, command, pins }),
                _ => Err(FarmError::MissingBlobs(vec![self.action, self.command])),
            })
        });
        loaded.await?
    }
}

/// Of an action that is answered before anything is looked for: what is larger is none.
fn read_small(cas: &motefarm_cas::store::Store, digest: &Digest, max: u64) -> Result<Option<Bytes>, CasError> {
    if digest.size_bytes() > max {
        return Err(CasError::TooLarge { digest: *digest, limit: max });
    }
    cas.read(digest, max)
}

fn invalid<T>(blob: &Digest, problem: &str) -> Result<T, FarmError> {
    Err(FarmError::Invalid(format!("blob {blob}: {problem}")))
}

fn digest(field: &'static str, digest: Option<&reapi::Digest>) -> Result<Digest, FieldError> {
    let digest = digest.ok_or_else(|| FieldError::new(field, "is not set"))?;
    convert::reapi_digest(digest).map_err(|error| FieldError::new(field, error.problem))
}

/// The action's platform; the command's, as the API had it before 2.2, if the action has none.
fn demand(action: Option<Platform>, command: Option<Platform>) -> Result<Demand, motefarm_core::platform::DemandError> {
    let platform = action.filter(|platform| !platform.properties.is_empty()).or(command).unwrap_or_default();
    Demand::new(platform.properties.into_iter().map(|property| (property.name, property.value)))
}
