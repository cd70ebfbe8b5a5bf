//! What an action's machine suffers from while it runs.

use super::ending::Signs;
use std::path::Path;

/// With less than this left, a failure is taken for the disk's.
const LEAST_FREE_BYTES: u64 = 1 << 20;

/// How often the kernel has killed for want of memory since the machine started. 0 where it does not say.
pub(super) fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The signs there are now in `dir`, if there were `kills` before.
pub(super) fn signs(dir: &Path, kills: u64) -> Signs {
    let disk_full = rustix::fs::statvfs(dir).is_ok_and(|disk| {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // A file system without a number of files says 0 of 0.
        free < LEAST_FREE_BYTES || (disk.f_files > 0 && disk.f_favail == 0)
    });
    Signs { out_of_memory: oom_kills() > kills, disk_full }
}
