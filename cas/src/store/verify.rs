//! Hashing everything again.

use super::catalog::Place;
use super::{Store, StoreError};
use motefarm_core::Digest;
use std::ops::ControlFlow;

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

/// How far [`Store::verify_with`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Blobs there were when it began.
    pub all_blobs: u64,
    /// Their bytes.
    pub all_bytes: u64,
    /// Blobs looked at so far.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The blob just looked at, if it is not what its digest says.
    pub bad: Option<Digest>,
}

impl Store {
    /// Reads and hashes every blob. Takes as long as reading the disk does; others may use the
    /// store meanwhile, and what is evicted under way is left out. Does not count as use.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        self.verify_with(|progress| {
            (report.blobs, report.bytes) = (progress.blobs, progress.bytes);
            report.bad.extend(progress.bad);
            ControlFlow::Continue(())
        })?;
        Ok(report)
    }

    /// The same, telling after each blob how far it is; ends early when told to.
    pub fn verify_with(&self, mut tell: impl FnMut(VerifyProgress) -> ControlFlow<()>) -> Result<(), StoreError> {
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
        let all_bytes = all.iter().map(|(_, _, digest)| digest.size_bytes()).sum();
        let mut progress = VerifyProgress { all_blobs: all.len() as u64, all_bytes, blobs: 0, bytes: 0, bad: None };
        for (_, _, digest) in all {
            let Some(blob) = self.open_unused(&digest)? else { continue };
            progress.blobs += 1;
            progress.bytes += digest.size_bytes();
            let is_right = blob.is(&digest).unwrap_or_else(|error| {
                tracing::warn!(%digest, %error, "blob not readable");
                false
            });
            progress.bad = (!is_right).then_some(digest);
            if tell(progress).is_break() {
                break;
            }
        }
        Ok(())
    }
}
