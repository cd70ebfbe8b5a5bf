//! The only mapping from the farm's errors to gRPC codes.

use crate::farm::FarmError;
use crate::identity::Identity;
use crate::link::LinkError;
use crate::signed_in::UsedToken;
use crate::store::StoreError;
use motefarm_cas::batch::BatchError;
use motefarm_cas::store::StoreError as CasError;
use motefarm_net::token::SecretHash;
use motefarm_proto::precondition;
use motefarm_proto::reapi::rpc;
use prost::Message as _;
use tonic::{Code, Request, Status};

impl From<FarmError> for Status {
    fn from(error: FarmError) -> Self {
        Self::from(&error)
    }
}

impl From<&FarmError> for Status {
    fn from(error: &FarmError) -> Self {
        let text = error.to_string();
        match error {
            FarmError::NotFound { .. } | FarmError::Ended { .. } => Self::not_found(text),
            FarmError::Forbidden(_) => Self::permission_denied(text),
            FarmError::Invalid(_) => Self::invalid_argument(text),
            FarmError::Conflict(_) => Self::already_exists(text),
            FarmError::NotReady(_) => Self::failed_precondition(text),
            FarmError::MissingBlobs(digests) => {
                let details = vec![precondition::missing_blobs(digests)];
                let status = rpc::Status { code: Code::FailedPrecondition.into(), message: text.clone(), details };
                Self::with_details(Code::FailedPrecondition, text, status.encode_to_vec().into())
            }
            FarmError::Exhausted(_) => Self::resource_exhausted(text),
            FarmError::TimedOut(_) => Self::deadline_exceeded(text),
            FarmError::Cut(_) => Self::cancelled(text),
            FarmError::Unavailable(_) => Self::unavailable(text),
            FarmError::Link(LinkError::Lost(_)) => Self::unavailable(text),
            // The buildlet's own word: it names the field, the file or the bound.
            FarmError::Link(LinkError::Refused(status)) => Self::new(status.code(), status.message()),
            FarmError::Store(StoreError::Database(sqlx::Error::PoolClosed)) => {
                Self::unavailable("the coordinator is stopping")
            }
            FarmError::Content(error) => {
                tracing::error!(%error, "a call failed in the farm's content store");
                Self::internal("the farm's content store failed; its operator finds the cause in the coordinator's log")
            }
            FarmError::Store(error) => {
                tracing::error!(%error, "a call failed in the farm's database");
                Self::internal("the farm's database failed; its operator finds the cause in the coordinator's log")
            }
        }
    }
}

/// A status as a message, with the details that it has.
pub(crate) fn to_message(status: &Status) -> rpc::Status {
    rpc::Status::decode(status.details())
        .ok()
        .filter(|message| message.code == i32::from(status.code()))
        .unwrap_or_else(|| rpc::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
}

/// The caller, as the authorising layer found out.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    request.extensions().get::<Identity>().cloned().ok_or_else(|| Status::unauthenticated("no identity"))
}

/// The token of the database that the caller showed; none for the farm's own user, known by a socket.
pub(crate) fn shown_token<T>(request: &Request<T>) -> Option<SecretHash> {
    request.extensions().get::<UsedToken>().map(|used| used.0)
}

/// An upload's failure: the sender's fault, or a store that is full or broken.
pub(super) fn of_batch(error: BatchError) -> Status {
    if error.is_senders_fault() {
        return Status::invalid_argument(error.to_string());
    }
    tracing::error!(%error, "an upload could not be stored");
    match error {
        BatchError::Store(CasError::Full { .. }) => Status::resource_exhausted(error.to_string()),
        _ => Status::internal("the farm's content store failed; its operator finds the cause in the coordinator's log"),
    }
}
