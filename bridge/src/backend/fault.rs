//! What went wrong at the backend, and in which stage of a compile.

use crate::causes::causes;
use std::fmt;
use tonic::{Code, Status};

/// A stage of a compile, as logs, metrics and messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Finding out what the server can.
    Capabilities,
    /// Storing the content that came with the request.
    Ingest,
    /// The hash map, and putting long files together.
    Inputs,
    /// Asking the action cache.
    Lookup,
    /// Asking what the CAS lacks, and storing directories and command.
    Upload,
    /// Running it.
    Execute,
    /// Fetching what it left.
    Outputs,
    /// Fetching what the client looks up.
    Download,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Capabilities,
        Self::Ingest,
        Self::Inputs,
        Self::Lookup,
        Self::Upload,
        Self::Execute,
        Self::Outputs,
        Self::Download,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::Ingest => "ingest",
            Self::Inputs => "inputs",
            Self::Lookup => "lookup",
            Self::Upload => "upload",
            Self::Execute => "execute",
            Self::Outputs => "outputs",
            Self::Download => "download",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// See the module.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{stage}: {code:?}: {message}")]
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// What kind, in gRPC's words.
    pub code: Code,
    /// In the server's words, or ours.
    pub message: String,
}

impl Fault {
    /// Of our own finding.
    pub fn new(stage: Stage, code: Code, message: impl Into<String>) -> Self {
        Self { stage, code, message: message.into() }
    }

    /// What a call was answered.
    pub fn of(stage: Stage, status: &Status) -> Self {
        Self { stage, code: status.code(), message: causes(status.message().to_owned(), status) }
    }
}
