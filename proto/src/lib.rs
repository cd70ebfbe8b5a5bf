//! Every message the farm sends or hears, and the way between messages and the farm's vocabulary.
//!
//! Generated messages stop at the edges: [`convert`] parses them into `motefarm-core` types or
//! names the field that is wrong.

#![forbid(unsafe_code)]

pub mod convert;
pub mod precondition;

/// The farm's own protocol, `mote.v1`; the `.proto` files are its reference.
#[expect(clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod mote {
    tonic::include_proto!("mote.v1");
}

/// `protos.GomoteService`, what the Go project's `gomote` speaks.
#[expect(clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod gomote {
    tonic::include_proto!("protos");
}

/// What Goma's clients say over HTTP. No services: a path stands for a pair of messages.
#[expect(clippy::all, reason = "generated")]
pub mod goma {
    tonic::include_proto!("devtools_goma");
}

/// Every service above as its `.proto` files declare it: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The Remote Execution API v2 and what it is made of, `google.bytestream` and `google.longrunning`, as published by `bazel-remote-apis`.
pub mod reapi {
    pub use bazel_remote_apis::build::bazel::remote::execution::v2::*;
    pub use bazel_remote_apis::build::bazel::semver::SemVer;
    pub use bazel_remote_apis::google::bytestream;
    pub use bazel_remote_apis::google::longrunning;
    pub use bazel_remote_apis::google::protobuf;
    pub use bazel_remote_apis::google::rpc;
}

/// Version of the buildlet protocol spoken here. History: 1, first form.
pub const BUILDLET_PROTOCOL_VERSION: u32 = 1;
/// Version of the keeper and supervisor protocol spoken here. History: 1, first form; 2, sessions.
pub const KEEPER_PROTOCOL_VERSION: u32 = 2;
/// Largest gRPC message any of our servers and clients accept: 8 MiB, as REAPI peers expect.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Largest uncompressed content of one [`mote::BlobBatch`].
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Largest piece of output or archive in one message.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of a session's content that one side takes before it says more, either way: bounds what a reader
/// who stands still can make us hold.
pub const SESSION_WINDOW_BYTES: usize = 1024 * 1024;
/// Most digests in one `FindMissing` question or one `missing` answer.
pub const MAX_DIGESTS: usize = 100_000;
