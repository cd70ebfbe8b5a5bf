//! Why an action has no result.

use motefarm_cas::sync::SyncError;
use motefarm_core::Digest;
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::RunActionFailed;
use std::io;
use tonic::Code;

/// See the module. What its command does, ends with or exceeds is a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    /// The caller's: nobody is to be told any more.
    #[error("the caller has left")]
    Left,
    /// The caller's: what it asks for can not be.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The caller's: what it was to bring did not come.
    #[error("{} blobs are missing still, beginning with {}", .0.len(), first(.0))]
    Missing(Vec<Digest>),
    /// The caller's: it said nothing, or nonsense.
    #[error("{0}")]
    Protocol(String),
    /// Content vanished or is not what its digest says. It counts as missing now.
    #[error("blob {digest} of {path} is not what it should be")]
    Wrong { digest: Digest, path: String },
    /// The action's, or this machine's.
    #[error("{}", .0.message)]
    Failed(Failed),
}

/// Told as the action's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) code: Code,
    pub(super) message: String,
    /// Elsewhere, or later, it may go better.
    pub(super) retry: bool,
}

fn first(digests: &[Digest]) -> String {
    digests.first().map(ToString::to_string).unwrap_or_default()
}

impl ActionError {
    /// The action's fault: it would be no better elsewhere.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::Failed(Failed { code: Code::FailedPrecondition, message: message.into(), retry: false })
    }

    /// This machine's fault.
    pub(super) fn machine(message: impl Into<String>) -> Self {
        Self::Failed(Failed { code: Code::Unavailable, message: message.into(), retry: true })
    }

    /// The disk of this buildlet.
    pub(super) fn full(what: &str) -> Self {
        let message = format!("{what}: the disk of this buildlet's actions is full");
        Self::Failed(Failed { code: Code::ResourceExhausted, message, retry: true })
    }

    /// An error of the system while doing `what`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::full(&what),
            _ => Self::machine(format!("{what}: {error}")),
        }
    }
}

impl From<SyncError> for ActionError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Tree { .. } | SyncError::TooLarge(_) => {
                FieldError::new("action.input_root_digest", error).into()
            }
            SyncError::Full(path) => Self::full(&path),
            SyncError::Vanished { digest, path } => Self::Wrong { digest, path },
            other => Self::machine(format!("the inputs can not be read: {other}")),
        }
    }
}

impl From<Failed> for RunActionFailed {
    fn from(failed: Failed) -> Self {
        let Failed { code, message, retry } = failed;
        Self { code: code as i32, message, retry }
    }
}
