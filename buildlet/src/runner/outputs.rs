//! What a command writes to stdout and stderr: in memory while it is short, in files of the action's
//! directory beyond that. Pipes, so that a script that opens /dev/stderr anew does not overwrite what is
//! there.

use super::names;
use motefarm_proto::mote::RunnerStream;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What is kept in memory of each.
const MOST_KEPT_BYTES: usize = 256 << 10;
/// As much as a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// Both.
pub(super) struct Outputs {
    pub(super) streams: [Output; 2],
    /// The first thing that went wrong with a file.
    failed: Option<io::Error>,
}

/// One of them.
pub(super) struct Output {
    /// `None`: all writers have closed it.
    pipe: Option<File>,
    kept: Vec<u8>,
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    most_bytes: u64,
}

impl Outputs {
    /// With the ends that the command writes to.
    pub(super) fn new(action: &Path, most_bytes: u64) -> io::Result<(Self, [OwnedFd; 2])> {
        let new = |name: &str| -> io::Result<(Output, OwnedFd)> {
            let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            let path = action.join(name);
            Ok((Output { pipe: Some(ours.into()), kept: Vec::new(), path, file: None, bytes: 0, most_bytes }, theirs))
        };
        let (stdout, stdout_end) = new(names::STDOUT)?;
        let (stderr, stderr_end) = new(names::STDERR)?;
        Ok((Self { streams: [stdout, stderr], failed: None }, [stdout_end, stderr_end]))
    }

    /// Takes what there is on both.
    pub(super) fn take(&mut self) {
        for stream in &mut self.streams {
            if let Err(error) = stream.take() {
                self.failed.get_or_insert(error);
            }
        }
    }

    /// Whether one of them is longer than it may be, or can not be kept.
    pub(super) fn is_beyond(&self) -> bool {
        self.failed.is_some() || self.streams.iter().any(|stream| stream.bytes > stream.most_bytes)
    }

    /// All of both, when nobody writes any more.
    pub(super) fn finish(mut self) -> io::Result<[RunnerStream; 2]> {
        self.take();
        if let Some(error) = self.failed {
            return Err(error);
        }
        Ok(self.streams.map(|stream| RunnerStream { data: stream.kept.into(), in_file: stream.file.is_some() }))
    }
}

impl Output {
    /// Readable when there is something to take.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|pipe| pipe.as_fd())
    }

    fn take(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        // Beyond its bound nothing is taken: whoever writes on waits to be killed.
        while let Some(pipe) = &mut self.pipe
            && self.bytes <= self.most_bytes
        {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(read) => self.keep(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> io::Result<()> {
        self.bytes += data.len() as u64;
        if self.file.is_none() && self.kept.len() + data.len() <= MOST_KEPT_BYTES {
            self.kept.extend_from_slice(data);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut file = File::options().write(true).create_new(true).open(&self.path)?;
                file.write_all(&std::mem::take(&mut self.kept))?;
                none.insert(file)
            }
        };
        file.write_all(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_output_stays_in_memory_and_long_output_becomes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut outputs, [stdout, stderr]) = Outputs::new(dir.path(), 1 << 20).unwrap();
        let long = vec![b'x'; MOST_KEPT_BYTES + 1];
        let writer = std::thread::spawn({
            let long = long.clone();
            move || File::from(stdout).write_all(&long)
        });
        File::from(stderr).write_all(b"short").unwrap();
        while outputs.streams[0].pipe.is_some() {
            outputs.take();
        }
        writer.join().unwrap().unwrap();
        let [stdout, stderr] = outputs.finish().unwrap();
        assert!(stdout.in_file && stdout.data.is_empty() && !stderr.in_file);
        assert_eq!(&stderr.data[..], b"short");
        assert!(std::fs::read(dir.path().join(names::STDOUT)).unwrap() == long);
    }

    #[test]
    fn beyond_its_bound_nothing_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (mut outputs, [stdout, _stderr]) = Outputs::new(dir.path(), 10).unwrap();
        File::from(stdout).write_all(b"eleven byte").unwrap();
        assert!(!outputs.is_beyond());
        outputs.take();
        assert!(outputs.is_beyond());
    }
}
