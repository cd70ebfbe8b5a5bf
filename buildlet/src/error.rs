//! What can go wrong for a caller. The edge maps it to codes; nothing here knows gRPC.

use crate::spool::reader::ReadError;
use motefarm_core::{ExecId, InstanceId};
use motefarm_proto::convert::FieldError;
use std::io;

/// Why a request could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The caller's: no such instance here.
    #[error("instance {0} is not here")]
    NoInstance(InstanceId),
    /// The caller's: no such execution.
    #[error("instance {instance} has no execution {exec}")]
    NoExec { instance: InstanceId, exec: ExecId },
    /// Nobody's: too late.
    #[error("instance {0} is ending")]
    Ending(InstanceId),
    /// The caller's: the id is taken.
    #[error("execution {0} exists with another command; a new command needs a new id")]
    OtherCommand(ExecId),
    /// The caller's.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Not in this state.
    #[error("{0}")]
    Refused(String),
    /// A bound of this buildlet, or its disk.
    #[error("{0}")]
    Exhausted(String),
    /// The caller's: what lies there is gone or not yet there.
    #[error("{0}")]
    OutOfRange(String),
    /// The caller's: no such file.
    #[error("{0}")]
    NoFile(String),
    /// The caller's, or of the way to him: what he sends ended before its end.
    #[error("{0}")]
    Cut(String),
    /// A keeper or supervisor that does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Ours, or the machine's.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl AgentError {
    /// An error of the system while doing `what`; a full disk is told apart.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Exhausted(format!("{what}: the disk of the instances is full"))
            }
            _ => Self::Io { what, source },
        }
    }
}

impl From<ReadError> for AgentError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Released { .. } => Self::OutOfRange(error.to_string()),
            ReadError::Damaged { .. } => {
                Self::Io { what: "output lost".to_owned(), source: io::Error::other(error.to_string()) }
            }
            ReadError::Io(source) => Self::Io { what: "can not read the spooled output".to_owned(), source },
        }
    }
}
