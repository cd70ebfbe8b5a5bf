//! Why a compile has no result, by what the client should make of it.
//!
//! The client's own handling decides the kinds: a transient trouble must not be an HTTP error (one of those
//! makes every other request of the same second fail), a hopeless one must not be asked again.

use crate::backend::Fault;

/// See the module.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The request can not be served however often it is sent.
    Never(String),
    /// Content is needed.
    Missing(Vec<MissingInput>),
    /// Something failed that may not fail again.
    Trouble(Fault),
}

/// An input whose content is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingInput {
    /// Exactly as in the request.
    pub filename: String,
    /// For the client's log.
    pub reason: String,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Trouble(fault)
    }
}

impl Refusal {
    /// A request that can not be served.
    pub fn never(why: impl Into<String>) -> Self {
        Self::Never(why.into())
    }
}
