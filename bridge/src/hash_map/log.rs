//! One append-only log of records and the index over it.

use super::Entry;
use super::index::{ALIGN, Index};
use super::record::{self, HEAD_BYTES};
use crate::file_blob::HashKey;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Read at once when a log is opened.
const SCAN_BYTES: usize = 4 << 20;
/// Bytes of a record of a file, for guessing how many there are.
const USUAL_BYTES: u64 = 88;

/// See the module.
pub(super) struct Log {
    file: File,
    /// Where the next record begins.
    end: u64,
    index: Index,
}

impl Log {
    /// Opens or makes it, and reads it through. What follows the first record that is not whole is cut off.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        let mut log =
            Self { file, end: 0, index: Index::with_capacity(usize::try_from(len / USUAL_BYTES).unwrap_or(0)) };
        log.scan()?;
        if log.end < len {
            log.file.set_len(log.end)?;
        }
        Ok(log)
    }

    fn scan(&mut self) -> io::Result<()> {
        let mut buffer: Vec<u8> = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            let before = buffer.len();
            (&self.file).take(SCAN_BYTES as u64).read_to_end(&mut buffer)?;
            let at_end = buffer.len() == before;
            let mut at = 0;
            while let Some((bytes, key)) = record::measure(&buffer[at..]) {
                // The last record's padding may not have been written.
                let whole = padded(bytes).min(buffer.len() - at);
                if whole < padded(bytes) && !at_end {
                    break;
                }
                if !self.index.insert(&key, self.end) {
                    return Ok(());
                }
                self.end += padded(bytes) as u64;
                at += whole;
            }
            buffer.drain(..at);
            let padding_is_to_come = record::measure(&buffer).is_some();
            if at_end || !(padding_is_to_come || record::is_short(&buffer)) {
                return Ok(());
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, key: &HashKey) -> io::Result<Option<Entry>> {
        let Some(position) = self.index.get(key) else { return Ok(None) };
        // A record of a file is had at once; the last one's padding may not have been written.
        let mut usual = [0; USUAL_BYTES as usize];
        let read = read_at(&self.file, &mut usual, position)?;
        let Some(len) = record::body_len(&usual[..read]) else { return Ok(None) };
        let decoded = match usual[..read].get(HEAD_BYTES..HEAD_BYTES + len) {
            Some(body) => record::decode(body),
            None => {
                let mut body = vec![0; len];
                match self.file.read_exact_at(&mut body, position + HEAD_BYTES as u64) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    read => read?,
                }
                record::decode(&body)
            }
        };
        // One that says nothing, because the disk or a later bridge wrote it, is as good as none.
        Ok(decoded.filter(|(found, _)| found == key).map(|(_, entry)| entry))
    }

    pub(super) fn append(&mut self, entries: &[(HashKey, Entry)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * USUAL_BYTES as usize);
        let mut starts = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            starts.push(self.end + bytes.len() as u64);
            record::encode(key, entry, &mut bytes);
            bytes.resize(padded(bytes.len()), 0);
        }
        self.file.write_all_at(&bytes, self.end)?;
        for ((key, _), start) in entries.iter().zip(starts) {
            if !self.index.insert(key, start) {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the hash map's log is full"));
            }
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// As much as is there.
fn read_at(file: &File, into: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], position + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN as usize)
}
