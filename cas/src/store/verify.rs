//! Hashing everything again.

use super::catalog::Place;
use super::{BlobSource as _, Store, StoreError};
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;

/// What [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs whose content is not what their digest says, or can not be read. They are left as they
    /// are.
    pub bad: Vec<Digest>,
}

impl Store {
    /// Reads and hashes every blob. Takes as long as reading the disk does; others may use the
    /// store meanwhile, and what is evicted under way is left out.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        // In the order they lie on disk.
        let mut all: Vec<(u32, u64, Digest)> = self
            .catalog()
            .iter()
            .map(|(digest, place, _)| match place {
                Place::Pack { number, offset } => (number, offset, digest),
                Place::Large => (u32::MAX, 0, digest),
            })
            .collect();
        all.sort_unstable();
        let mut report = VerifyReport::default();
        let mut buf = vec![0; 256 << 10];
        for (_, _, digest) in all {
            let Some(blob) = self.open(&digest)? else { continue };
            report.blobs += 1;
            report.bytes += digest.size_bytes();
            let mut hasher = DigestHasher::new();
            let mut offset = 0;
            let read = loop {
                match blob.read_at(&mut buf, offset) {
                    Ok(0) => break Ok(()),
                    Ok(read) => {
                        hasher.update(&buf[..read]);
                        offset += read as u64;
                    }
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = &read {
                tracing::warn!(%digest, %error, "blob not readable");
            }
            if read.is_err() || hasher.finish() != digest {
                report.bad.push(digest);
            }
        }
        Ok(report)
    }
}
