//! The one mapping from this crate's errors to gRPC's.

use crate::store::StoreError;
use motefarm_core::Digest;
use motefarm_proto::convert;
use motefarm_proto::reapi::{self, digest_function};
use tonic::Status;

/// What a client is told of a failed store; what it can do nothing about is logged here, once.
pub(super) fn of_store(error: &StoreError) -> Status {
    match error {
        StoreError::Mismatch { .. } | StoreError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        StoreError::Full { bytes, .. } => Status::resource_exhausted(format!("no room for {bytes} bytes")),
        StoreError::Io { .. } | StoreError::Locked { .. } | StoreError::Format { .. } => {
            tracing::error!(%error, "store failed");
            Status::internal("the store failed; the server's log says how")
        }
    }
}

/// For a blocking task that panicked or was cancelled.
pub(super) fn of_join(error: &tokio::task::JoinError) -> Status {
    tracing::error!(%error, "task failed");
    Status::internal("the call was not finished")
}

/// Refuses hashes other than SHA-256; clients may leave the field out.
pub(super) fn check_digest_function(value: i32) -> Result<(), Status> {
    match digest_function::Value::try_from(value) {
        Ok(digest_function::Value::Unknown | digest_function::Value::Sha256) => Ok(()),
        _ => Err(Status::invalid_argument(format!("digest function {value} is not SHA256"))),
    }
}

/// Digests of a list; the first that is none is named by its place.
pub(super) fn digests(field: &str, digests: &[reapi::Digest]) -> Result<Vec<Digest>, Status> {
    let parse = |(n, digest): (usize, &reapi::Digest)| {
        Digest::parse(&digest.hash, digest.size_bytes)
            .map_err(|problem| Status::invalid_argument(format!("field {field}[{n}]: {problem}")))
    };
    digests.iter().enumerate().map(parse).collect()
}

/// A digest that has to be there.
pub(super) fn required(digest: Option<&reapi::Digest>) -> Result<Digest, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument("field digest: is not set"))?;
    Ok(convert::reapi_digest(digest)?)
}

/// A status inside an answer.
pub(super) fn inner(status: &Status) -> reapi::rpc::Status {
    reapi::rpc::Status { code: status.code().into(), message: status.message().to_owned(), details: vec![] }
}
