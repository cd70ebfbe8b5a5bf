//! How much one archive may hold.

/// See the module. Bounds that keep a small archive from becoming an enormous tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnpackLimits {
    /// Most unpacked bytes, headers included.
    pub(crate) bytes: u64,
    /// Most entries, directories that are only implied included.
    pub(crate) entries: u64,
    /// Beyond `ratio_from` unpacked bytes, most of them for one packed byte.
    pub(crate) ratio: u64,
    /// See `ratio`.
    pub(crate) ratio_from: u64,
}

impl Default for UnpackLimits {
    /// 64 GiB and 2,000,000 entries. gzip can not pack better than 1,032 to one, so the ratio is
    /// about zstd; a gigabyte of zeros is free.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, ratio: 1_100, ratio_from: 1 << 30 }
    }
}
