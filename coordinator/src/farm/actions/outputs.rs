//! What an action has made, on its way from a machine into the farm's store.

use super::attempt::AttemptError;
use crate::farm::FarmError;
use motefarm_cas::batch::{BatchError, BatchReceiver};
use motefarm_cas::store::{PinGuard, Store as Cas, StoreError as CasError};
use motefarm_core::Digest;
use motefarm_proto::{convert, mote};

/// The most blobs that one action may make.
const MOST_OUTPUTS: usize = 1_000_000;

/// Takes the outputs of one attempt. What came stays until this is dropped; every byte is held against
/// its digest before it is in the store.
pub(super) struct Outputs {
    cas: Cas,
    /// Away while a message is being stored.
    receiver: Option<BatchReceiver>,
    pins: Vec<PinGuard>,
    listed: usize,
}

impl Outputs {
    pub(super) fn new(cas: Cas) -> Self {
        Self { receiver: Some(BatchReceiver::new(cas.clone())), cas, pins: Vec::new(), listed: 0 }
    }

    /// Those of the outputs that the store lacks; all of them stay from now on.
    pub(super) fn wanted(&mut self, listed: &[mote::Digest]) -> Result<Vec<mote::Digest>, AttemptError> {
        self.listed += listed.len();
        if self.listed > MOST_OUTPUTS {
            let text = format!("the action made more than {MOST_OUTPUTS} outputs");
            return Err(AttemptError::Final(FarmError::Exhausted(text)));
        }
        let digests: Vec<Digest> = listed.iter().map(convert::digest).collect::<Result<_, _>>()?;
        self.pins.push(self.cas.pin(digests.clone()));
        Ok(self.cas.missing(&digests).into_iter().map(Into::into).collect())
    }

    /// Stores what a message brought.
    pub(super) async fn accept(&mut self, batch: mote::BlobBatch) -> Result<(), AttemptError> {
        let Some(mut receiver) = self.receiver.take() else { return Err(cut()) };
        let stored = tokio::task::spawn_blocking(move || receiver.accept(batch).map(|()| receiver)).await;
        self.receiver = Some(stored.map_err(|_| cut())?.map_err(refused)?);
        Ok(())
    }

    /// Nothing more comes: what came must be whole.
    pub(super) fn end(&mut self) -> Result<(), AttemptError> {
        match self.receiver.take() {
            Some(receiver) => receiver.finish().map(drop).map_err(refused),
            None => Err(cut()),
        }
    }
}

fn cut() -> AttemptError {
    AttemptError::Again("its outputs were not stored to the end".to_owned())
}

fn refused(error: BatchError) -> AttemptError {
    match error {
        error if error.is_senders_fault() => AttemptError::Again(format!("its outputs are not what it says: {error}")),
        BatchError::Store(error @ CasError::Full { .. }) => AttemptError::Final(FarmError::Exhausted(format!(
            "the farm's content store has no room for the action's outputs: {error}"
        ))),
        BatchError::Store(error) => AttemptError::Final(FarmError::Content(error)),
        other => AttemptError::Again(other.to_string()),
    }
}
