//! The CAS services of the Remote Execution API over a [`Store`](crate::store::Store):
//! `ContentAddressableStorage`, `google.bytestream.ByteStream` and `Capabilities`.
//!
//! Written after what real clients send, see the reference on REAPI: resource names with and without
//! a leading slash, instance names with slashes, metadata behind the size. The instance name is not
//! looked at: there is one store. Whoever mounts these sets message limits (8 MiB) and decides who
//! may call; nothing here knows identities.

mod byte_stream;
mod capabilities;
mod cas;
mod compression;
mod resource_name;
mod status;
mod tree_pages;
mod writes;

pub use byte_stream::ByteStreamService;
pub use capabilities::CapabilitiesService;
pub use cas::CasService;

/// Most content in one batch call, as announced: 3 MiB, so that the message with its digests stays
/// under every peer's 4 MiB.
pub const MAX_BATCH_TOTAL_BYTES: u64 = 3 << 20;

#[cfg(test)]
mod tests;
