//! The only mapping of errors to codes.

use crate::error::AgentError;
use tonic::{Code, Status};

impl From<AgentError> for Status {
    fn from(error: AgentError) -> Self {
        let code = match &error {
            AgentError::NoInstance(_) | AgentError::NoExec { .. } | AgentError::NoFile(_) => Code::NotFound,
            AgentError::Ending(_) | AgentError::Refused(_) => Code::FailedPrecondition,
            AgentError::OtherCommand(_) => Code::AlreadyExists,
            AgentError::Field(_) => Code::InvalidArgument,
            AgentError::Exhausted(_) => Code::ResourceExhausted,
            AgentError::OutOfRange(_) => Code::OutOfRange,
            AgentError::Cut(_) => Code::Cancelled,
            AgentError::Unavailable(_) => Code::Unavailable,
            AgentError::Io { .. } => Code::Internal,
        };
        if matches!(code, Code::Internal | Code::Unavailable) {
            tracing::warn!(%error, "a call failed");
        }
        Self::new(code, error.to_string())
    }
}
