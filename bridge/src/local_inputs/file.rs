//! One file, read and held against a hash key. Blocking.
//!
//! Only what is a plain file is ever opened: a pipe would wait for its writer, and opening a device may do
//! something. So the path is looked up first without opening what it leads to (`O_PATH`; links are followed,
//! as the client followed them), and what was looked at is what is opened.

use crate::file_blob::{CHUNK_BYTES, ChunkHasher, HashKey, key_of_file, key_of_meta};
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use tokio::sync::mpsc;

/// Longer files are left to the client.
const MOST_BYTES: u64 = 1 << 30;
/// Read at once.
const PIECE_BYTES: usize = 256 << 10;

/// A file that is what it should be.
#[derive(Debug)]
pub(super) enum Read {
    /// All of it.
    Short(Bytes),
    /// Too long to be held.
    Long(LongFile),
}

/// A file of several chunks.
#[derive(Debug)]
pub(super) struct LongFile {
    file: File,
    /// Its digest when it was looked through.
    pub(super) whole: Digest,
    /// And its chunks.
    pub(super) chunks: Vec<HashKey>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no plain file")]
    NoFile,
    #[error("it is longer than {MOST_BYTES} bytes")]
    TooLong,
    #[error("it has other content than the client's had")]
    Changed,
}

/// Reads `path` if it has this key.
pub(super) fn read(path: &Path, key: HashKey) -> Result<Read, Unread> {
    let (mut file, size) = open_plain(path)?;
    if size <= CHUNK_BYTES as u64 {
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        // One byte more, to see whether it grew.
        (&mut file).take(CHUNK_BYTES as u64 + 1).read_to_end(&mut content)?;
        let fits = content.len() <= CHUNK_BYTES && key_of_file(&content) == key;
        return if fits { Ok(Read::Short(content.into())) } else { Err(Unread::Changed) };
    }
    if size > MOST_BYTES {
        return Err(Unread::TooLong);
    }
    let (mut digest, mut chunks) = (DigestHasher::new(), ChunkHasher::new(size));
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => {
                digest.update(&piece[..n]);
                chunks.update(&piece[..n]);
            }
        }
    }
    let (whole, chunks) = (digest.finish(), chunks.finish().ok_or(Unread::Changed)?);
    if whole.size_bytes() != size || key_of_meta(size, &chunks) != key {
        return Err(Unread::Changed);
    }
    file.rewind()?;
    Ok(Read::Long(LongFile { file, whole, chunks }))
}

impl LongFile {
    /// Sends its content. The last piece only when all of it is still what it was: a server that believes what
    /// it is sent must not get the rest under this digest.
    pub(super) fn send(mut self, pieces: &mpsc::Sender<Bytes>) -> Result<(), Unread> {
        let (mut digest, mut length) = (DigestHasher::new(), 0);
        let mut held = Bytes::new();
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            (&mut self.file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            length += piece.len() as u64;
            if length > self.whole.size_bytes() {
                return Err(Unread::Changed);
            }
            if piece.is_empty() {
                break;
            }
            digest.update(&piece);
            let before = std::mem::replace(&mut held, piece.into());
            // Nobody takes it any more: the server has it, or does not want it, and says so itself.
            if !before.is_empty() && pieces.blocking_send(before).is_err() {
                return Ok(());
            }
        }
        if digest.finish() != self.whole {
            return Err(Unread::Changed);
        }
        let _ = pieces.blocking_send(held);
        Ok(())
    }
}

fn open_plain(path: &Path) -> Result<(File, u64), Unread> {
    let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
    let stat = fstat(&found).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unread::NoFile);
    }
    // Some plain files of /proc and /sys wait for events.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = open(again, flags, Mode::empty()).map_err(io::Error::from)?;
    Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkfifoat};
    use std::fs;

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 31 % 251) as u8).collect()
    }

    fn long_key(content: &[u8]) -> HashKey {
        let mut hasher = ChunkHasher::new(content.len() as u64);
        hasher.update(content);
        key_of_meta(content.len() as u64, &hasher.finish().unwrap())
    }

    #[test]
    fn a_file_is_read_if_its_key_fits_through_links_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("b"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for content in [Vec::new(), b"abc".to_vec(), noise(CHUNK_BYTES)] {
            fs::write(&path, &content).unwrap();
            let found = read(&link, key_of_file(&content)).unwrap();
            assert!(matches!(found, Read::Short(bytes) if bytes == content));
            assert!(matches!(read(&link, key_of_file(b"other")), Err(Unread::Changed)));
        }
        let content = noise(CHUNK_BYTES * 2 + 1);
        fs::write(&path, &content).unwrap();
        let Read::Long(found) = read(&link, long_key(&content)).unwrap() else { panic!("it is long") };
        assert_eq!((found.whole, found.chunks.len()), (Digest::of(&content), 3));
        assert!(matches!(read(&link, key_of_file(&content)), Err(Unread::Changed)));
        File::options().write(true).open(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(matches!(read(&link, long_key(&content)), Err(Unread::TooLong)));
    }

    /// Without a writer the opening of a pipe waits; this test would not end.
    #[test]
    fn nothing_but_plain_files_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        let key = key_of_file(b"");
        for path in [&pipe, &link, Path::new("/dev/null"), Path::new("/dev/tty"), dir.path()] {
            assert!(matches!(read(path, key), Err(Unread::NoFile)), "{}", path.display());
        }
        assert!(matches!(read(&dir.path().join("none"), key), Err(Unread::Io(_))));
    }

    #[test]
    fn the_end_of_a_file_that_changed_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let content = noise(CHUNK_BYTES + PIECE_BYTES + 7);
        let found = || {
            fs::write(&path, &content).unwrap();
            match read(&path, long_key(&content)).unwrap() {
                Read::Long(file) => file,
                Read::Short(_) => panic!("it is long"),
            }
        };
        let send = |file: LongFile| {
            let (sender, mut receiver) = mpsc::channel(100);
            let sent = file.send(&sender);
            drop(sender);
            let mut all = Vec::new();
            while let Ok(piece) = receiver.try_recv() {
                all.extend_from_slice(&piece);
            }
            (sent, all)
        };
        let (sent, all) = send(found());
        assert!(sent.is_ok() && all == content);
        for other in [vec![1; content.len()], [&content[..], b"more"].concat(), content[..CHUNK_BYTES].to_vec()] {
            let file = found();
            fs::write(&path, &other).unwrap();
            let (sent, all) = send(file);
            assert!(matches!(sent, Err(Unread::Changed)));
            assert!(all.len() < content.len(), "{} bytes of {} were sent", all.len(), content.len());
        }
    }
}
