//! Making room: what was used least recently goes, a pack or a large file at a time.

use super::catalog::Place;
use super::pack::{PackWriter, index_path, pack_path};
use super::record::{RECORD_BYTES, Record};
use super::{Blob, Store, StoreError, large};
use motefarm_core::Digest;
use std::collections::HashMap;
use std::io::ErrorKind;

/// What could go, and when it was used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Pack(u32),
    Large(Digest),
}

#[derive(Debug, Default, Clone, Copy)]
struct PackUse {
    bytes: u64,
    /// Sum over its blobs of size times last use.
    weighted_ms: u128,
    pinned_bytes: u64,
}

/// What of a pack that goes is copied to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// What is pinned, and what was used within the hour: half of the pack at most.
    Recent,
    /// What is pinned.
    Pinned,
    /// All that the catalog still has.
    Everything,
}

/// What [`Store::collect`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blobs that are gone.
    pub blobs: u64,
    /// Disk space that is free again.
    pub disk_bytes: u64,
}

impl Store {
    /// Evicts what was used least recently until no more than `target_bytes` of disk space are taken, or
    /// until what is left is pinned. Recent use protects nothing here: somebody wants the space. Others
    /// may use the store meanwhile.
    pub fn collect(&self, target_bytes: u64) -> Result<Collected, StoreError> {
        let before = self.stats();
        let over = |store: &Self| store.catalog().disk_bytes() > target_bytes;
        if over(self) {
            let mut writer = self.writer();
            if !writer.is_empty() {
                let full = writer.number();
                writer.seal()?;
                self.catalog_mut().pack_sealed(full, writer.number());
            }
            let active = writer.number();
            drop(writer);
            for victim in self.victims(active, true) {
                if !over(self) {
                    break;
                }
                // Taken anew for each, so that nobody who writes waits for all.
                let mut writer = self.writer();
                match victim {
                    Victim::Pack(number) => self.evict_pack(&mut writer, number, Keep::Pinned)?,
                    Victim::Large(digest) => self.evict_large(&digest),
                }
            }
        }
        let after = self.stats();
        Ok(Collected {
            blobs: before.blobs.saturating_sub(after.blobs),
            disk_bytes: before.disk_bytes.saturating_sub(after.disk_bytes),
        })
    }

    /// Makes room for blobs about to be appended.
    pub(super) fn make_room(&self, writer: &mut PackWriter, blobs: &[(Digest, &[u8])]) -> Result<(), StoreError> {
        let content: u64 = blobs.iter().map(|(_, content)| content.len() as u64).sum();
        self.make_room_for(writer, content + (blobs.len() * RECORD_BYTES) as u64)
    }

    /// Evicts until `bytes` more fit. [`StoreError::Full`] when what is left is pinned.
    pub(super) fn make_room_for(&self, writer: &mut PackWriter, bytes: u64) -> Result<(), StoreError> {
        let fits = |store: &Self| store.catalog().disk_bytes() + bytes <= self.0.limits.max_bytes;
        if fits(self) {
            return Ok(());
        }
        // Once for the sealed packs and, if they do not suffice, once more with the active one.
        for last_resort in [false, true] {
            if last_resort && !writer.is_empty() {
                let full = writer.number();
                writer.seal()?;
                self.catalog_mut().pack_sealed(full, writer.number());
            }
            for victim in self.victims(writer.number(), last_resort) {
                match victim {
                    Victim::Pack(number) => self.evict_pack(writer, number, Keep::Recent)?,
                    Victim::Large(digest) => self.evict_large(&digest),
                }
                if fits(self) {
                    return Ok(());
                }
            }
        }
        Err(StoreError::Full { dir: self.0.dir.clone(), bytes })
    }

    /// What may go, least recently used first. Packs that are mostly pinned come only as a last
    /// resort, because evicting one is mostly copying it.
    fn victims(&self, active: u32, last_resort: bool) -> Vec<Victim> {
        let catalog = self.catalog();
        let mut packs: HashMap<u32, PackUse> =
            catalog.pack_numbers().filter(|number| *number != active).map(|n| (n, PackUse::default())).collect();
        let mut victims = Vec::new();
        for (digest, place, touched_ms) in catalog.iter() {
            let pinned = self.0.pins.contains(&digest);
            match place {
                Place::Large if !pinned => victims.push((touched_ms, Victim::Large(digest))),
                Place::Large => {}
                Place::Pack { number, .. } => {
                    if let Some(pack) = packs.get_mut(&number) {
                        pack.bytes += digest.size_bytes();
                        pack.weighted_ms += u128::from(digest.size_bytes()) * u128::from(touched_ms);
                        pack.pinned_bytes += if pinned { digest.size_bytes() } else { 0 };
                    }
                }
            }
        }
        for (number, pack) in packs {
            if pack.bytes > 0 && pack.pinned_bytes >= pack.bytes {
                continue;
            }
            if !last_resort && pack.pinned_bytes > pack.bytes / 2 {
                continue;
            }
            let mean = pack.weighted_ms.checked_div(u128::from(pack.bytes)).unwrap_or(0);
            victims.push((u64::try_from(mean).unwrap_or(u64::MAX), Victim::Pack(number)));
        }
        victims.sort_unstable();
        victims.into_iter().map(|(_, victim)| victim).collect()
    }

    fn evict_large(&self, digest: &Digest) {
        // Out of the catalog first: nobody is told that it is there when it is not. Pinned since the
        // victims were chosen: whoever pins and then finds it in the catalog may rely on it.
        {
            let mut catalog = self.catalog_mut();
            if self.0.pins.contains(digest) {
                return;
            }
            catalog.forget(digest);
        }
        let path = large::path(&self.0.dir, digest);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "evicted blob not removed");
        }
    }

    /// Copies forward what is to be kept, then removes the pack. A crash in between leaves blobs twice,
    /// which is harmless.
    pub(super) fn evict_pack(&self, writer: &mut PackWriter, number: u32, keep: Keep) -> Result<(), StoreError> {
        let path = index_path(&self.0.dir, number);
        let log = match std::fs::read(&path) {
            // Evicted since it was chosen.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.map_err(StoreError::io(&path))?,
        };
        let digests: Vec<Digest> = Record::decode_all(&log)
            .filter_map(|record| match record {
                Record::Blob { digest, .. } => Some(digest),
                Record::Seal => None,
            })
            .collect();
        let keep_from_ms = match keep {
            Keep::Recent => self.keep_from_ms(&digests, number),
            Keep::Pinned => u64::MAX,
            Keep::Everything => 0,
        };
        loop {
            let mut catalog = self.catalog_mut();
            let here =
                |digest: &&Digest| matches!(catalog.place(digest), Some(Place::Pack { number: n, .. }) if n == number);
            let staying: Vec<Digest> = digests
                .iter()
                .filter(here)
                .filter(|digest| catalog.touched_ms(digest) >= keep_from_ms || self.0.pins.contains(digest))
                .take(COPY_AT_ONCE)
                .copied()
                .collect();
            if staying.is_empty() {
                let going: Vec<Digest> = digests.iter().filter(here).copied().collect();
                going.iter().for_each(|digest| catalog.forget(digest));
                catalog.pack_gone(number);
                break;
            }
            drop(catalog);
            self.copy_forward(writer, &staying)?;
        }
        self.0.open_packs.close(number);
        // The index log first: a reader that finds it must find the pack.
        for path in [path, pack_path(&self.0.dir, number)] {
            std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
        }
        tracing::debug!(pack = number, "pack evicted");
        Ok(())
    }

    /// Blobs of the pack used since then are copied forward: the last hour's, but at most half of
    /// the pack, so that eviction always frees something.
    fn keep_from_ms(&self, digests: &[Digest], number: u32) -> u64 {
        let catalog = self.catalog();
        let mut uses: Vec<(u64, u64)> = digests
            .iter()
            .filter(|digest| matches!(catalog.place(digest), Some(Place::Pack { number: n, .. }) if n == number))
            .map(|digest| (catalog.touched_ms(digest), digest.size_bytes()))
            .collect();
        uses.sort_unstable_by(|a, b| b.cmp(a));
        let half = uses.iter().map(|(_, size)| size).sum::<u64>() / 2;
        let mut kept = 0;
        let hour_ago = self.now_ms().saturating_sub(RECENT_MS);
        uses.iter()
            .find(|(_, size)| {
                kept += size;
                kept > half
            })
            .map_or(0, |(touched_ms, _)| touched_ms + 1)
            .max(hour_ago)
    }

    /// Does not count as use.
    fn copy_forward(&self, writer: &mut PackWriter, digests: &[Digest]) -> Result<(), StoreError> {
        for digest in digests {
            let (place, touched_ms) = {
                let catalog = self.catalog();
                (catalog.place(digest), catalog.touched_ms(digest))
            };
            let Some(Place::Pack { number, offset }) = place else { continue };
            let Some(file) = self.0.open_packs.get(number)? else {
                self.catalog_mut().forget(digest);
                continue;
            };
            let mut content = vec![0; usize::try_from(digest.size_bytes()).unwrap_or(usize::MAX)];
            let blob = Blob::stretch(file, offset, digest.size_bytes());
            blob.read_exact_at(&mut content, 0).map_err(StoreError::io(&pack_path(&self.0.dir, number)))?;
            self.append_to(writer, &[(*digest, &content)], Some(touched_ms))?;
        }
        Ok(())
    }
}

const RECENT_MS: u64 = 3_600_000;
/// Blobs copied between two looks at what came into use meanwhile.
const COPY_AT_ONCE: usize = 256;
