//! `google.rpc.PreconditionFailure`, by which clients of the Remote Execution API learn what to upload.
//! The crate that publishes the API leaves it out.

use crate::convert;
use crate::reapi::{protobuf::Any, rpc};
use motefarm_core::Digest;
use prost::Message as _;

/// Type of the detail within a status.
pub const TYPE_URL: &str = "type.googleapis.com/google.rpc.PreconditionFailure";
/// Type of a violation that is a blob which is not there; its subject is `blobs/<hash>/<size>`.
pub const MISSING: &str = "MISSING";

/// See the module.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreconditionFailure {
    /// What is in the way.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<Violation>,
}

/// One thing that is in the way.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Violation {
    /// [`MISSING`], here.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Of what.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub description: String,
}

/// The detail that says that these blobs are missing.
pub fn missing_blobs(digests: &[Digest]) -> Any {
    let violations = digests
        .iter()
        .map(|digest| Violation {
            r#type: MISSING.to_owned(),
            subject: format!("blobs/{digest}"),
            description: String::new(),
        })
        .collect();
    Any { type_url: TYPE_URL.to_owned(), value: PreconditionFailure { violations }.encode_to_vec() }
}

/// The blobs that a status says are missing. Violations of other types, and subjects that name no blob,
/// are passed over.
pub fn missing_in(status: &rpc::Status) -> Vec<Digest> {
    let failures = status.details.iter().filter(|detail| detail.type_url == TYPE_URL);
    failures
        .filter_map(|detail| PreconditionFailure::decode(detail.value.as_slice()).ok())
        .flat_map(|failure| failure.violations)
        .filter(|violation| violation.r#type == MISSING)
        .filter_map(|violation| {
            let (hash, size) = violation.subject.rsplit_once("blobs/")?.1.split_once('/')?;
            let digest = crate::reapi::Digest { hash: hash.to_owned(), size_bytes: size.parse().ok()? };
            convert::reapi_digest(&digest).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_be_missing_is_read_back() {
        let digests = [Digest::of(b"a"), Digest::EMPTY];
        let detail = missing_blobs(&digests);
        let other = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: vec![1] };
        let status = rpc::Status { details: vec![other, detail], ..Default::default() };
        assert_eq!(missing_in(&status), digests);
        let broken = Any { type_url: TYPE_URL.to_owned(), value: vec![0xff] };
        assert!(missing_in(&rpc::Status { details: vec![broken], ..Default::default() }).is_empty());
    }
}
