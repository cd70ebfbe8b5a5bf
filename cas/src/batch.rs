//! Many blobs in few messages: `mote.v1.BlobBatch` made and taken apart.
//!
//! A tree is mostly small files; a message each would cost more than their content. The packer
//! fills messages of one to two MiB of content, the receiver verifies every blob against its digest
//! and hands a message's worth to the store in one go. Blobs larger than a message travel in
//! pieces, in order, with nothing of another large blob in between.
//!
//! Both sides block. [`stream()`] runs a packer on a thread of its own behind a bounded channel.

mod blob;
mod error;
mod packer;
#[cfg(unix)]
mod receiver;
mod stream;

pub use blob::{Content, LocalBlob};
pub use error::{BatchError, PackError};
pub use packer::BatchPacker;
#[cfg(unix)]
pub use receiver::{BatchReceiver, UploadSummary};
pub use stream::{BatchStream, PackOutcome, stream};

#[cfg(test)]
mod tests;
