//! Which modes need no mention.

/// The bits that are carried.
pub const MODE_BITS: u32 = 0o777;
/// Mode of a file that says nothing else and is not executable.
pub const DEFAULT_FILE_MODE: u32 = 0o644;
/// Mode of a file that says nothing else and is executable.
pub const EXECUTABLE_FILE_MODE: u32 = 0o755;
/// Mode of a directory that says nothing else.
pub const DEFAULT_DIRECTORY_MODE: u32 = 0o755;

/// REAPI's one bit: whether the owner may execute it.
pub(super) fn is_executable(mode: u32) -> bool {
    mode & 0o100 != 0
}

/// The mode a file has by that bit alone.
pub(super) fn usual(executable: bool) -> u32 {
    if executable { EXECUTABLE_FILE_MODE } else { DEFAULT_FILE_MODE }
}
