//! What a command wrote, on disk here, since the Go agent keeps nothing.
//!
//! A file in which positions are offsets. What was released is punched out of it, so the file takes the
//! room of what is kept. It has no name, and so goes with the last who has it open: an execution does not
//! outlive this process, and nothing is left to be swept.

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;

/// Times are noted this far apart.
const TIME_STEP_MS: i64 = 1000;
/// Most times that are noted: a day's worth of seconds, and then one a minute of what may be months.
const MOST_TIMES: usize = 200_000;
/// What is released in one go: disks free blocks, not bytes.
const BLOCK: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    times: Mutex<Vec<(u64, i64)>>,
}

impl Spool {
    /// A new one on the disk of `dir`.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".output-{:032x}", rand::random::<u128>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, times: Mutex::default() })
    }

    /// Writes at `offset`, which is where the last write ended.
    pub(super) fn write(&self, data: &[u8], offset: u64, now_ms: i64) -> io::Result<()> {
        self.file.write_all_at(data, offset)?;
        let mut times = self.times.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let due = times.last().is_none_or(|(_, last)| now_ms - last >= TIME_STEP_MS);
        if due && times.len() < MOST_TIMES {
            times.push((offset, now_ms));
        }
        Ok(())
    }

    /// Reads up to `most` bytes from `offset` on, which must have been written and not released; and about
    /// when they were written.
    pub(super) fn read(&self, offset: u64, most: usize) -> io::Result<(Vec<u8>, i64)> {
        let mut data = vec![0; most];
        self.file.read_exact_at(&mut data, offset)?;
        let times = self.times.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let after = times.partition_point(|(from, _)| *from <= offset);
        Ok((data, after.checked_sub(1).map_or(0, |at| times[at].1)))
    }

    /// Gives the room of what lies before `to` back to the disk, if the file system can.
    pub(super) fn release(&self, from: u64, to: u64) {
        let (from, to) = (from - from % BLOCK, to - to % BLOCK);
        if to > from
            && let Err(error) =
                fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, to - from)
        {
            tracing::debug!(%error, "output that was read could not be given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn what_was_written_is_read_at_its_offset_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path()).unwrap();
        spool.write(b"one", 0, 5_000).unwrap();
        spool.write(b"two", 3, 5_500).unwrap();
        spool.write(b"three", 6, 7_000).unwrap();
        assert_eq!(spool.read(0, 6).unwrap(), (b"onetwo".to_vec(), 5_000));
        assert_eq!(spool.read(4, 2).unwrap(), (b"wo".to_vec(), 5_000));
        assert_eq!(spool.read(6, 5).unwrap(), (b"three".to_vec(), 7_000));
        assert!(spool.read(6, 6).is_err(), "nothing is made up");
        assert_eq!(spool.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
    }

    #[test]
    fn released_room_is_given_back_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path()).unwrap();
        let size = 1 << 20;
        spool.write(&vec![7; size], 0, 0).unwrap();
        let before = spool.file.metadata().unwrap().blocks();
        spool.release(0, (size - 10) as u64);
        assert!(spool.file.metadata().unwrap().blocks() < before / 2, "the hole is there");
        assert_eq!(spool.read((size - 10) as u64, 10).unwrap().0, [7; 10]);
    }
}
