//! What the farm does: one file a use case, over the store, the links to buildlets and the clock.
//! Knows no wire but the messages it hands through unread (output, trees, archives).

pub mod access;
pub mod actions;
pub mod admin;
pub mod allocate;
pub mod audit;
pub mod bootstrap;
pub mod contact;
pub mod content;
pub mod create;
pub mod destroy;
pub mod exec;
pub mod exec_stream;
pub mod fetch;
pub mod files;
pub mod groups;
pub mod info;
pub mod reap;
pub mod renew;
pub mod session;
pub mod share;
pub mod snapshots;
pub mod ssh;
pub mod transfer;
pub mod usage;

use crate::link::LinkError;
use crate::store::StoreError;
use motefarm_cas::store::StoreError as CasError;
use motefarm_core::Digest;
use motefarm_proto::convert::FieldError;

/// Why the farm refused or failed. Each says what, and whose fault it is; `grpc/status.rs` maps
/// them to codes.
#[derive(Debug, thiserror::Error)]
pub enum FarmError {
    /// No such thing, or not the caller's: the two read alike.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// "instance", "execution", "host type", ...
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// It was there, and ended.
    #[error("{what} {name:?} has ended: {reason}")]
    Ended {
        /// "instance" or "execution".
        what: &'static str,
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// The caller is known and may not.
    #[error("{0}")]
    Forbidden(String),
    /// The caller's input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The id is taken by something else.
    #[error("{0}")]
    Conflict(String),
    /// Content that the caller has to bring first.
    #[error("{}", missing(.0))]
    MissingBlobs(Vec<Digest>),
    /// Not in a state for this, now.
    #[error("{0}")]
    NotReady(String),
    /// A bound.
    #[error("{0}")]
    Exhausted(String),
    /// The buildlet is out of contact.
    #[error("{0}")]
    Unavailable(String),
    /// The buildlet refused.
    #[error("{0}")]
    Link(LinkError),
    /// The caller let us wait.
    #[error("{0}")]
    TimedOut(String),
    /// What the caller sent broke off.
    #[error("{0}")]
    Cut(String),
    /// Our own fault.
    #[error("{0}")]
    Store(StoreError),
    /// Our own fault, in the content store.
    #[error("{0}")]
    Content(CasError),
}

impl From<StoreError> for FarmError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what, name } => Self::NotFound { what, name },
            StoreError::Exists { .. } => Self::Conflict(error.to_string()),
            StoreError::Limit { .. } => Self::Exhausted(error.to_string()),
            StoreError::Incomplete { .. } => Self::NotReady(error.to_string()),
            other => Self::Store(other),
        }
    }
}

impl From<LinkError> for FarmError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Lost(why) => Self::Unavailable(format!("the buildlet is out of contact: {why}")),
            refused => Self::Link(refused),
        }
    }
}

impl From<FieldError> for FarmError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error.to_string())
    }
}

fn missing(digests: &[Digest]) -> String {
    match digests {
        [one] => format!("blob {one} is not in the farm's store; upload it and ask again"),
        many => format!("{} blobs are not in the farm's store; upload them and ask again", many.len()),
    }
}
