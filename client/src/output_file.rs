//! The file that keeps a command's output. Its length is the resume point: it holds the output's
//! first N bytes exactly, so a reader that comes back asks for what follows N.

use crate::error::Error;
use crate::vectored;
use bytes::Bytes;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// An output file that this process alone appends to.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl OutputFile {
    /// A new run's file; what was there is gone, as with a shell's `>`.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let mut output = Self::open(path)?;
        if output.len > 0 {
            output.file.set_len(0).and_then(|()| output.file.rewind()).map_err(|e| Error::file("empty", path, e))?;
            output.len = 0;
        }
        Ok(output)
    }

    /// An interrupted run's file, to be continued; an empty one if it is gone.
    pub(crate) fn resume(path: &Path) -> Result<Self, Error> {
        Self::open(path)
    }

    fn open(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let mut file = options.open(path).map_err(|e| Error::file("open the output file", path, e))?;
        let whole = file.metadata().map_err(|e| Error::file("look at", path, e))?;
        if !whole.is_file() {
            // `/dev/null`, a pipe: it keeps nothing to resume from.
            return Ok(Self { path: path.to_owned(), file, len: 0 });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Local {
                    doing: format!("write the output file {}", path.display()),
                    cause: io::Error::other("another mote is writing it"),
                    next: Some("watch that run with `mote logs -f`".to_owned()),
                });
            }
            // A file system without locks: as good as it gets there.
            Err(TryLockError::Error(_)) => {}
        }
        let len = file.seek(SeekFrom::End(0)).map_err(|e| Error::file("read the length of", path, e))?;
        Ok(Self { path: path.to_owned(), file, len })
    }

    /// Bytes in it: the offset to ask for next.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Appends the pieces in order, in as few writes as the system allows. After an error the file
    /// may hold a part of them; it is a true beginning of the output all the same.
    pub(crate) fn append<'a>(&mut self, pieces: impl IntoIterator<Item = &'a Bytes>) -> Result<(), Error> {
        let mut slices: Vec<IoSlice<'_>> = pieces.into_iter().map(|piece| IoSlice::new(piece)).collect();
        let total: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        vectored::write_all(&mut self.file, &mut slices, |_| Err(io::ErrorKind::WouldBlock.into())).map_err(
            |cause| Error::Local {
                doing: format!("append to the output file {}", self.path.display()),
                cause,
                next: Some(
                    "the command goes on; make room, then `mote attach` continues the file without a gap".to_owned(),
                ),
            },
        )?;
        self.len += total;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn a_resumed_file_goes_on_where_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.out");
        let mut first = OutputFile::create(&path).unwrap();
        first.append(&[Bytes::from("one\n"), Bytes::new(), Bytes::from("tw")]).unwrap();
        drop(first);
        let mut second = OutputFile::resume(&path).unwrap();
        assert_eq!(second.len(), 6);
        second.append(&[Bytes::from("o\n")]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        drop(second);
        assert_eq!(OutputFile::create(&path).unwrap().len(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn what_keeps_nothing_is_written_all_the_same() {
        let mut null = OutputFile::create(Path::new("/dev/null")).unwrap();
        null.append(&[Bytes::from("gone")]).unwrap();
        assert_eq!(null.len(), 4);
    }

    #[test]
    fn two_writers_are_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.out");
        let _first = OutputFile::create(&path).unwrap();
        let refused = OutputFile::resume(&path).unwrap_err();
        assert!(refused.to_string().contains("another mote"), "{refused}");
    }

    proptest! {
        #[test]
        fn cut_anywhere_and_resumed_each_byte_lands_once(
            content in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(0usize..400, 0..6),
            piece in 1usize..50,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("run.out");
            drop(OutputFile::create(&path).unwrap());
            // Each life writes from the file's length up to its cut; the last one to the end.
            let lives = cuts.into_iter().chain([usize::MAX]);
            for cut in lives {
                let mut output = OutputFile::resume(&path).unwrap();
                let from = usize::try_from(output.len()).unwrap();
                let to = cut.clamp(from, content.len().max(from));
                for pieces in content[from..to].chunks(piece).collect::<Vec<_>>().chunks(3) {
                    let pieces: Vec<Bytes> = pieces.iter().map(|p| Bytes::copy_from_slice(p)).collect();
                    output.append(&pieces).unwrap();
                }
            }
            prop_assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
