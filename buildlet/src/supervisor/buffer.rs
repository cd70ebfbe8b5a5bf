//! The one buffer output goes through: large when there is much, gone from memory when there is
//! nothing, so that a thousand silent commands cost no thousand megabytes.

use crate::spool::frame::MOST_PAYLOAD_BYTES;

/// Pages worth giving back.
const KEEP_BYTES: usize = 64 * 1024;

/// See the module.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    touched: usize,
}

impl Buffer {
    pub(super) fn new() -> Self {
        // Zeroed memory of this size comes straight from the kernel and is not touched here.
        Self { bytes: vec![0; MOST_PAYLOAD_BYTES], touched: 0 }
    }

    /// Room to read `most` bytes into.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        let most = most.min(self.bytes.len());
        &mut self.bytes[..most]
    }

    /// The first `length` bytes, which were read.
    pub(super) fn filled(&mut self, length: usize) -> &[u8] {
        self.touched = self.touched.max(length);
        &self.bytes[..length]
    }

    /// Whether [`Self::give_back`] would free anything.
    pub(super) fn holds_pages(&self) -> bool {
        self.touched > KEEP_BYTES
    }

    /// Returns the pages to the system. What the buffer held is lost.
    pub(super) fn give_back(&mut self) {
        self.touched = 0;
        let page = 4096;
        let start = self.bytes.as_mut_ptr();
        let skip = start.align_offset(page);
        let length = self.bytes.len().saturating_sub(skip) / page * page;
        #[expect(unsafe_code, reason = "madvise works on addresses")]
        // SAFETY: the range lies in our own buffer, whole pages of it, and any bytes are as good there.
        let _ = unsafe { libc::madvise(start.add(skip).cast(), length, libc::MADV_DONTNEED) };
    }
}
