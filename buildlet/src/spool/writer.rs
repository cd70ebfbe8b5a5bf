//! Appending output and letting go of what was acknowledged.

use crate::layout::exec::{INDEX, SPOOL};
use crate::spool::frame::{
    HEADER_BYTES, Header, INDEX_ENTRY_BYTES, INDEX_EVERY_BYTES, MOST_PAYLOAD_BYTES, decode_pair, encode_pair,
};
use crate::spool::released::Released;
use motefarm_core::exec::OutputStream;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// The one writer of an execution's spool.
pub(crate) struct SpoolWriter {
    dir: OwnedFd,
    spool: File,
    index: File,
    index_bytes: u64,
    index_every: u64,
    /// Position of the last index entry's frame; `None` before the first.
    indexed_position: Option<u64>,
    position: u64,
    offset: u64,
    released: Released,
    limit: u64,
}

impl SpoolWriter {
    /// Makes the files in `dir`. At most `limit` bytes of file stay unreleased; it is for the
    /// caller to ask [`Self::room`] and stop.
    pub(crate) fn create(dir: OwnedFd, limit: u64) -> io::Result<Self> {
        let open = |name| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
        };
        Ok(Self {
            spool: open(SPOOL)?,
            index: open(INDEX)?,
            index_bytes: 0,
            // A small spool needs finer steps to have something to let go of.
            index_every: INDEX_EVERY_BYTES.min(limit / 8),
            indexed_position: None,
            position: 0,
            offset: 0,
            released: Released::default(),
            limit,
            dir,
        })
    }

    /// Offset one past the last byte written.
    pub(crate) fn end(&self) -> u64 {
        self.offset
    }

    /// How much payload may be appended now without passing the bound.
    pub(crate) fn room(&self) -> usize {
        let taken = self.position - self.released.position + HEADER_BYTES as u64;
        usize::try_from(self.limit.saturating_sub(taken)).unwrap_or(usize::MAX).min(MOST_PAYLOAD_BYTES)
    }

    /// Appends one frame of 1 to [`MOST_PAYLOAD_BYTES`] with one system call. After an error (a
    /// full disk) nothing has happened: call again with the same arguments.
    pub(crate) fn append(&mut self, stream: OutputStream, time_ms: i64, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let header = Header { length, stream, offset: self.offset, time_ms }.encode();
        let whole = HEADER_BYTES + payload.len();
        let mut done = 0;
        while done < whole {
            let slices = if done < HEADER_BYTES {
                [IoSlice::new(&header[done..]), IoSlice::new(payload)]
            } else {
                [IoSlice::new(&payload[done - HEADER_BYTES..]), IoSlice::new(&[])]
            };
            let at = i64::try_from(self.position + done as u64).map_err(|_| io::ErrorKind::FileTooLarge)?;
            match nix::sys::uio::pwritev(&self.spool, &slices, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.indexed_position.is_none_or(|last| self.position - last >= self.index_every) {
            // Only a shortcut: if the disk is full the next frame gets the entry.
            if self.index.write_all_at(&encode_pair(self.offset, self.position), self.index_bytes).is_ok() {
                self.index_bytes += INDEX_ENTRY_BYTES as u64;
                self.indexed_position = Some(self.position);
            }
        }
        self.position += whole as u64;
        self.offset += u64::from(length);
        Ok(())
    }

    /// Lets go of whole frames before `acknowledged`; answers whether anything was freed. On a file
    /// system without holes (the error `EOPNOTSUPP`) the mark is not moved.
    pub(crate) fn release(&mut self, acknowledged: u64) -> io::Result<bool> {
        let target = self.last_boundary(acknowledged)?;
        if target.position <= self.released.position {
            return Ok(false);
        }
        // Ask first whether holes exist here at all, on bytes that are gone or going anyway.
        let previous = self.released;
        target.save(self.dir.as_fd())?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) =
            rustix::fs::fallocate(&self.spool, hole, previous.position, target.position - previous.position)
        {
            previous.save(self.dir.as_fd())?;
            return Err(error.into());
        }
        self.released = target;
        Ok(true)
    }

    fn last_boundary(&self, acknowledged: u64) -> io::Result<Released> {
        if acknowledged >= self.offset {
            return Ok(Released { offset: self.offset, position: self.position });
        }
        Ok(find_entry(&self.index, self.index_bytes, acknowledged)?
            .map_or_else(Released::default, |(offset, position)| Released { offset, position }))
    }

    /// The execution's directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The last index entry at or before `offset`, among the whole entries in the first `bytes`.
pub(crate) fn find_entry(index: &File, bytes: u64, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let entry = |n: u64| {
        let mut raw = [0; INDEX_ENTRY_BYTES];
        index.read_exact_at(&mut raw, n * INDEX_ENTRY_BYTES as u64).map(|()| decode_pair(raw))
    };
    // Invariant: entries before `low` are at or before `offset`, those from `high` on behind it.
    let (mut low, mut high) = (0, bytes / INDEX_ENTRY_BYTES as u64);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle)?.0 <= offset {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1).map(entry).transpose()
}
