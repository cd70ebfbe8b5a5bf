//! Throwing out blobs whose content turned out to be wrong.

use super::catalog::Place;
use super::evict::Keep;
use super::{Store, StoreError, large};
use motefarm_core::Digest;

impl Store {
    /// As [`Store::discard_all`] for one blob that somebody stumbled over. What fails is logged: the blob counts
    /// as missing in any case, as long as this process lives.
    pub fn discard(&self, digest: &Digest) {
        match self.discard_all(std::slice::from_ref(digest)) {
            Ok(0) => {}
            Ok(_) => tracing::error!(%digest, "a blob is not what its digest says; it is thrown out"),
            Err(error) => tracing::warn!(%digest, %error, "a wrong blob is not removed"),
        }
    }

    /// Throws out blobs that are not what their digests say, pinned or not, so that they count as missing and
    /// can be stored again; how many were still there.
    pub fn discard_all(&self, digests: &[Digest]) -> Result<u64, StoreError> {
        let mut discarded = 0;
        for digest in digests {
            let mut writer = self.writer();
            let Some(place) = self.catalog().place(digest) else { continue };
            discarded += 1;
            self.catalog_mut().forget(digest);
            match place {
                Place::Large => {
                    let path = large::path(&self.0.dir, digest);
                    std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
                }
                // Its record stands in the pack's index log: the pack goes, all else in it stays.
                Place::Pack { number, .. } => {
                    if number == writer.number() {
                        writer.seal()?;
                        self.catalog_mut().pack_sealed(number, writer.number());
                    }
                    self.evict_pack(&mut writer, number, Keep::Everything)?;
                }
            }
        }
        Ok(discarded)
    }
}
