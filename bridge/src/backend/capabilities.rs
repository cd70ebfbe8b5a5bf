//! What the server can, as far as the bridge minds.

use super::cas::in_time;
use super::retry::retrying;
use super::{Fault, Service, Stage};
use crate::pipeline::action::Dialect;
use motefarm_proto::reapi::capabilities_client::CapabilitiesClient;
use motefarm_proto::reapi::{GetCapabilitiesRequest, SemVer, ServerCapabilities, digest_function};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Code;

/// Most content of one batch, where the server sets no bound: everybody's messages end at 4 MiB.
const USUAL_BATCH_BYTES: u64 = 4 << 20;
/// How long a failure answers for the next ones who ask.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// How long an answer is believed: a server may be upgraded under a bridge that runs for months.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Bound of a batch's message.
    pub batch_bytes: u64,
    /// How it wants a `Command`.
    pub dialect: Dialect,
    /// Whether results may be put into its action cache.
    pub takes_results: bool,
    /// Lowest and highest API version, for people.
    pub versions: String,
}

impl Abilities {
    /// Reads an announcement, or says what is in the way.
    pub fn of(announced: &ServerCapabilities) -> Result<Self, String> {
        let cache = announced.cache_capabilities.as_ref().ok_or("the server announces no CAS")?;
        let execution = announced.execution_capabilities.as_ref().ok_or("the server announces no execution")?;
        if !execution.exec_enabled {
            return Err("the server does not execute for this instance name and caller (exec_enabled is false)".into());
        }
        let sha256 = i32::from(digest_function::Value::Sha256);
        if !cache.digest_functions.contains(&sha256) {
            return Err("the server does not hash by SHA-256".into());
        }
        let executes_by = (execution.digest_function, &execution.digest_functions);
        if executes_by.0 > 0 && executes_by.0 != sha256 && !executes_by.1.contains(&sha256) {
            return Err("the server does not execute actions hashed by SHA-256".into());
        }
        let nothing = SemVer::default();
        let low = announced.low_api_version.as_ref().unwrap_or(&nothing);
        let high = announced.high_api_version.as_ref().unwrap_or(&nothing);
        if high.major != 0 && (low.major > 2 || high.major < 2) {
            let versions = format!("{}.{} to {}.{}", low.major, low.minor, high.major, high.minor);
            return Err(format!("the server speaks REAPI {versions}, and this bridge 2"));
        }
        let updates = cache.action_cache_update_capabilities.as_ref();
        let announced_batch = u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0);
        Ok(Self {
            batch_bytes: if announced_batch == 0 { USUAL_BATCH_BYTES } else { announced_batch.min(USUAL_BATCH_BYTES) },
            dialect: Dialect { old_outputs: (high.major, high.minor) < (2, 1) },
            takes_results: updates.is_some_and(|updates| updates.update_enabled),
            versions: format!("{}.{} to {}.{}", low.major, low.minor, high.major, high.minor),
        })
    }
}

/// Remembers the answer. One asks at a time; a failure is not repeated by everybody who waited.
#[derive(Default)]
pub(super) struct AbilitiesCache(Mutex<Option<(Instant, Result<Abilities, Fault>)>>);

impl AbilitiesCache {
    pub(super) async fn get(&self, service: Service, instance: &str) -> Result<Abilities, Fault> {
        let mut known = self.0.lock().await;
        if let Some((when, answer)) = &*known {
            let good_for = if answer.is_ok() { KNOWN_FOR } else { FAILED_FOR };
            if when.elapsed() < good_for {
                return answer.clone();
            }
        }
        let request = GetCapabilitiesRequest { instance_name: instance.to_owned() };
        let asked = retrying(Stage::Capabilities, || {
            let mut client = CapabilitiesClient::new(service.clone());
            let request = request.clone();
            async move { in_time(client.get_capabilities(request)).await }
        });
        let answer = match (asked.await, &*known) {
            (Ok(announced), _) => Abilities::of(announced.get_ref())
                .map_err(|problem| Fault::new(Stage::Capabilities, Code::FailedPrecondition, problem)),
            // Better the old answer than none: the call that follows says what is wrong.
            (Err(_), Some((_, Ok(old)))) => Ok(old.clone()),
            (Err(fault), _) => Err(fault),
        };
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::reapi::{CacheCapabilities, ExecutionCapabilities};

    fn announced(high_minor: i32) -> ServerCapabilities {
        ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities { digest_functions: vec![1], ..CacheCapabilities::default() }),
            execution_capabilities: Some(ExecutionCapabilities {
                exec_enabled: true,
                ..ExecutionCapabilities::default()
            }),
            high_api_version: Some(SemVer { major: 2, minor: high_minor, ..SemVer::default() }),
            low_api_version: Some(SemVer { major: 2, ..SemVer::default() }),
            ..ServerCapabilities::default()
        }
    }

    #[test]
    fn limits_and_dialect_follow_the_announcement() {
        assert!(Abilities::of(&announced(0)).unwrap().dialect.old_outputs);
        let mut modern = announced(3);
        let abilities = Abilities::of(&modern).unwrap();
        assert_eq!((abilities.batch_bytes, abilities.dialect.old_outputs), (4 << 20, false));
        for (said, expected) in [(65_536, 65_536), (1 << 40, 4 << 20), (-1, 4 << 20)] {
            modern.cache_capabilities.as_mut().unwrap().max_batch_total_size_bytes = said;
            assert_eq!(Abilities::of(&modern).unwrap().batch_bytes, expected);
        }
    }

    #[test]
    fn a_server_that_can_not_do_it_is_told_apart() {
        let mut other = announced(3);
        other.cache_capabilities.as_mut().unwrap().digest_functions = vec![9];
        assert!(Abilities::of(&other).unwrap_err().contains("SHA-256"));
        let mut cache_only = announced(3);
        cache_only.execution_capabilities = None;
        assert!(Abilities::of(&cache_only).unwrap_err().contains("no execution"));
        let mut newer = announced(0);
        newer.low_api_version = Some(SemVer { major: 3, ..SemVer::default() });
        newer.high_api_version = newer.low_api_version.clone();
        assert!(Abilities::of(&newer).unwrap_err().contains("3.0 to 3.0"));
    }
}
