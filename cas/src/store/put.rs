//! Storing blobs that are in memory.

use super::catalog::Place;
use super::limits::MAX_PACKED_BLOB_BYTES;
use super::pack::PackWriter;
use super::{Store, StoreError};
use bytes::Bytes;
use motefarm_core::Digest;
use std::collections::HashSet;

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutSummary {
    /// Blobs stored that were not there before.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Blobs that were there already, or came twice.
    pub present: u64,
}

impl Store {
    /// Stores blobs after verifying every one: if any is not what its digest says, or is too
    /// large, nothing of the batch is stored. Small blobs go to the pack in one write (a batch over
    /// 4 MiB in several). Blobs that are there already count as used.
    pub fn put_batch(&self, blobs: &[(Digest, Bytes)]) -> Result<PutSummary, StoreError> {
        let limit = self.0.limits.blob_limit();
        for (expected, content) in blobs {
            if content.len() as u64 > limit {
                return Err(StoreError::TooLarge { digest: *expected, limit });
            }
            let actual = Digest::of(content);
            if actual != *expected {
                return Err(StoreError::Mismatch { expected: *expected, actual });
            }
        }
        self.put_verified(blobs)
    }

    /// As [`Store::put_batch`] for blobs whose size and hash the caller has just verified.
    pub(crate) fn put_verified(&self, blobs: &[(Digest, Bytes)]) -> Result<PutSummary, StoreError> {
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let mut wanted: HashSet<Digest> = self.missing(&digests).into_iter().collect();
        let mut summary = PutSummary::default();
        let mut small = Vec::with_capacity(wanted.len());
        for (digest, content) in blobs {
            if !wanted.remove(digest) {
                continue;
            }
            if digest.size_bytes() > MAX_PACKED_BLOB_BYTES {
                let mut upload = self.begin(*digest)?;
                upload.write(content)?;
                upload.commit()?;
                summary.stored += 1;
                summary.stored_bytes += digest.size_bytes();
            } else {
                small.push((*digest, &content[..]));
            }
        }
        let (stored, stored_bytes) = self.append(small)?;
        summary.stored += stored;
        summary.stored_bytes += stored_bytes;
        summary.present = blobs.len() as u64 - summary.stored;
        Ok(summary)
    }

    /// Appends verified small blobs to packs; how many were new, and their bytes.
    pub(super) fn append(&self, mut blobs: Vec<(Digest, &[u8])>) -> Result<(u64, u64), StoreError> {
        if blobs.is_empty() {
            return Ok((0, 0));
        }
        let mut writer = self.writer();
        // Another put may have been first while this one waited.
        {
            let catalog = self.catalog();
            blobs.retain(|(digest, _)| catalog.place(digest).is_none());
        }
        let mut rest = &blobs[..];
        let mut stored_bytes = 0;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, content)| {
                bytes += content.len();
                bytes <= WRITE_BYTES
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            stored_bytes += now.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
            self.make_room(&mut writer, now)?;
            self.append_to(&mut writer, now, None)?;
            rest = later;
        }
        Ok((blobs.len() as u64, stored_bytes))
    }

    /// Appends and enters into the catalog; used at `touched_ms`, or now.
    pub(super) fn append_to(
        &self,
        writer: &mut PackWriter,
        blobs: &[(Digest, &[u8])],
        touched_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        let before = writer.number();
        let appended = writer.append(blobs);
        let now = self.now_ms();
        let mut catalog = self.catalog_mut();
        if writer.number() != before {
            catalog.pack_sealed(before, writer.number());
        }
        let appended = appended?;
        catalog.pack_grew(appended.number, appended.disk_bytes);
        catalog.pack_used(appended.number, now);
        for ((digest, _), offset) in blobs.iter().zip(appended.offsets) {
            let place = Place::Pack { number: appended.number, offset };
            catalog.insert(*digest, place, touched_ms.unwrap_or(now));
        }
        Ok(())
    }
}

/// Most content in one write to a pack.
const WRITE_BYTES: usize = 4 << 20;
