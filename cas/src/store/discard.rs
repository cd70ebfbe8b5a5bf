//! Throwing out a blob whose content turned out to be wrong.

use super::catalog::Place;
use super::{Store, large};
use motefarm_core::Digest;

impl Store {
    /// Takes `digest` out, pinned or not, so that it counts as missing and can be stored again. What lies
    /// in a pack stays there, named by nothing but an old record of the index: only if the process ends
    /// before the blob is stored again the next one believes that record, until it finds out in turn.
    pub fn discard(&self, digest: &Digest) {
        // Held by whoever changes what lies on disk.
        let _writer = self.writer();
        let Some(place) = self.catalog().place(digest) else { return };
        self.catalog_mut().forget(digest);
        tracing::error!(%digest, "a blob is not what its digest says; it is thrown out");
        if place == Place::Large
            && let Err(error) = std::fs::remove_file(large::path(&self.0.dir, digest))
        {
            tracing::warn!(%digest, %error, "a wrong blob is not removed");
        }
    }
}
