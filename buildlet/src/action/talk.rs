//! The conversation with whoever asked for an action.

use super::error::ActionError;
use motefarm_cas::batch::{BatchPacker, LocalBlob, PackError};
use motefarm_core::Digest;
use motefarm_proto::MAX_DIGESTS;
use motefarm_proto::convert;
use motefarm_proto::mote::run_action_input::Input;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::{RunActionInput, RunActionMissing, RunActionOutput, RunActionOutputs};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// For a caller to bring what is missing, over a slow line.
const BRING_PATIENCE: Duration = Duration::from_secs(1800);
/// For a caller to say what it wants of what it was offered.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// Digests in one offer.
const OFFERED: usize = 10_000;

/// See the module.
pub(super) struct Talk {
    pub(super) heard: Streaming<RunActionInput>,
    pub(super) said: mpsc::Sender<Result<RunActionOutput, Status>>,
}

impl Talk {
    /// The next word within `patience`.
    pub(super) async fn hear(&mut self, patience: Duration) -> Result<Input, ActionError> {
        let next = tokio::time::timeout(patience, self.heard.message()).await;
        let next = next.map_err(|_| ActionError::Protocol(format!("nothing came for {} s", patience.as_secs())))?;
        match next {
            Ok(Some(RunActionInput { input: Some(input) })) => Ok(input),
            Ok(Some(_)) => Err(ActionError::Protocol("an empty message came".to_owned())),
            Ok(None) | Err(_) => Err(ActionError::Left),
        }
    }

    pub(super) async fn say(&self, output: Output) -> Result<(), ActionError> {
        let message = RunActionOutput { output: Some(output) };
        self.said.send(Ok(message)).await.map_err(|_| ActionError::Left)
    }

    /// Names what is missing and waits until it was brought.
    pub(super) async fn ask_for(&mut self, missing: &[Digest]) -> Result<(), ActionError> {
        // What does not fit is asked for the next time.
        let digests = missing.iter().take(MAX_DIGESTS).map(|digest| (*digest).into()).collect();
        self.say(Output::Missing(RunActionMissing { digests })).await?;
        match self.hear(BRING_PATIENCE).await? {
            Input::Again(_) => Ok(()),
            _ => Err(ActionError::Protocol("after `missing` comes `again`".to_owned())),
        }
    }

    /// Offers blobs and sends those that are wanted.
    pub(super) async fn hand_over(&mut self, blobs: Vec<LocalBlob>, compressed: bool) -> Result<(), ActionError> {
        for offered in blobs.chunks(OFFERED) {
            let digests = offered.iter().map(|blob| blob.digest.into()).collect();
            self.say(Output::Outputs(RunActionOutputs { digests })).await?;
            let Input::Wanted(wanted) = self.hear(ANSWER_PATIENCE).await? else {
                return Err(ActionError::Protocol("after `outputs` comes `wanted`".to_owned()));
            };
            let wanted = wanted.digests.iter().map(convert::digest).collect::<Result<HashSet<_>, _>>()?;
            let wanted: Vec<LocalBlob> = offered.iter().filter(|blob| wanted.contains(&blob.digest)).cloned().collect();
            if !wanted.is_empty() {
                self.send(wanted, compressed).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, blobs: Vec<LocalBlob>, compressed: bool) -> Result<(), ActionError> {
        let said = self.said.clone();
        let sending = tokio::task::spawn_blocking(move || {
            let packer = BatchPacker::new(blobs);
            let packer = if compressed { packer } else { packer.uncompressed() };
            for batch in packer {
                let output = Some(Output::Blobs(batch.map_err(explain)?));
                said.blocking_send(Ok(RunActionOutput { output })).map_err(|_| ActionError::Left)?;
            }
            Ok(())
        });
        sending.await.map_err(|e| ActionError::machine(format!("outputs could not be sent: {e}")))?
    }
}

fn explain(error: PackError) -> ActionError {
    ActionError::machine(format!("an output can not be sent: {error}"))
}
