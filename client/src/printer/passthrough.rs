//! A command's output on its way to our stdout and stderr, without a copy and without ever
//! stalling the rest of the program.
//!
//! What surely fits is written at once. What might block (a full pipe, a stopped terminal) goes to
//! a thread, in order, over a queue of [`QUEUE`] batches; whoever has more waits for room.

use crate::error::Error;
use crate::vectored;
use bytes::Bytes;
use motefarm_core::exec::OutputStream;
use std::fs::File;
use std::io::{self, IoSlice};
use tokio::sync::{mpsc, oneshot};

/// Batches under way to the thread. A batch is at most about 1 MiB (see `follow::stream`).
const QUEUE: usize = 3;
/// POSIX: a pipe that is ready takes this much without blocking (`PIPE_BUF` on Linux).
const SURE_BYTES: usize = 4096;

/// Some output of one stream.
pub(crate) type Piece = (OutputStream, Bytes);

/// The two outputs of this process, owned past their line buffers.
pub(crate) struct Passthrough {
    out: Option<Outputs>,
    never_blocks: bool,
    writer: Option<Writer>,
}

struct Outputs {
    stdout: File,
    stderr: File,
}

struct Writer {
    queue: mpsc::Sender<Vec<Piece>>,
    done: oneshot::Receiver<io::Result<()>>,
}

/// Our stdout without its line buffer, for data that is no text.
pub(crate) fn stdout_file() -> io::Result<File> {
    Ok(platform::outputs()?.0)
}

impl Passthrough {
    /// Takes hold of stdout and stderr.
    pub(crate) fn open() -> Result<Self, Error> {
        let (stdout, stderr) = platform::outputs().map_err(|e| Error::local("get hold of stdout and stderr", e))?;
        let never_blocks = platform::never_blocks(&stdout) && platform::never_blocks(&stderr);
        Ok(Self { out: Some(Outputs { stdout, stderr }), never_blocks, writer: None })
    }

    /// Both to stderr, where stdout has other things to carry.
    pub(crate) fn to_stderr() -> Result<Self, Error> {
        let open = || -> io::Result<Self> {
            let (_, stderr) = platform::outputs()?;
            let never_blocks = platform::never_blocks(&stderr);
            Ok(Self { out: Some(Outputs { stdout: stderr.try_clone()?, stderr }), never_blocks, writer: None })
        };
        open().map_err(|e| Error::local("get hold of stderr", e))
    }

    /// Whether stdout and stderr are the same place, so that only one order makes sense.
    pub(crate) fn is_one_place(&self) -> bool {
        self.out.as_ref().is_some_and(|out| platform::same_place(&out.stdout, &out.stderr))
    }

    /// Whether [`Self::show`] takes another batch now.
    pub(crate) fn has_room(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.queue.capacity() > 0 || writer.queue.is_closed())
    }

    /// Waits for [`Self::has_room`].
    pub(crate) async fn room(&self) {
        if let Some(writer) = &self.writer {
            drop(writer.queue.reserve().await);
        }
    }

    /// What is waited on when there is no room.
    pub(super) fn queue(&self) -> Option<mpsc::Sender<Vec<Piece>>> {
        self.writer.as_ref().map(|writer| writer.queue.clone())
    }

    /// Shows a batch. Call it only when there is room. An error means that nobody can see it: it
    /// is told once, later batches vanish.
    pub(crate) fn show(&mut self, batch: Vec<Piece>) -> Result<(), Error> {
        let total: usize = batch.iter().map(|(_, data)| data.len()).sum();
        if total == 0 {
            return Ok(());
        }
        if let Some(writer) = &mut self.writer {
            if writer.queue.try_send(batch).is_ok() {
                return Ok(());
            }
            // It has room, so it must be gone: its reason is there.
            let reason = writer.done.try_recv();
            self.writer = None;
            return match reason {
                Ok(Err(cause)) => Err(Error::stdout(cause)),
                _ => Ok(()),
            };
        }
        let Some(out) = &mut self.out else { return Ok(()) };
        let at_once = self.never_blocks
            || (total <= SURE_BYTES && platform::is_writable(&out.stdout) && platform::is_writable(&out.stderr));
        if at_once {
            let shown = out.write(&batch);
            if shown.is_err() {
                self.out = None;
            }
            return shown.map_err(Error::stdout);
        }
        self.start_writer(batch)
    }

    fn start_writer(&mut self, first: Vec<Piece>) -> Result<(), Error> {
        let Some(mut out) = self.out.take() else { return Ok(()) };
        let (queue, mut batches) = mpsc::channel::<Vec<Piece>>(QUEUE);
        let (report, done) = oneshot::channel();
        let work = move || {
            let mut shown = out.write(&first);
            while shown.is_ok() {
                let Some(batch) = batches.blocking_recv() else { break };
                shown = out.write(&batch);
            }
            // Reported before the queue is seen closed, so that whoever sees that finds the reason.
            let _ = report.send(shown);
            drop(batches);
        };
        let named = std::thread::Builder::new().name("output".to_owned());
        named.spawn(work).map_err(|e| Error::local("start a thread for the output", e))?;
        self.writer = Some(Writer { queue, done });
        Ok(())
    }

    /// Waits until everything shown has been taken. Cancelling it loses only the wait.
    pub(crate) async fn drained(&mut self) -> Result<(), Error> {
        let Some(Writer { queue, done }) = self.writer.take() else { return Ok(()) };
        drop(queue);
        match done.await {
            Ok(Err(cause)) => Err(Error::stdout(cause)),
            _ => Ok(()),
        }
    }
}

impl Outputs {
    /// Writes runs of pieces for one stream together.
    fn write(&mut self, batch: &[Piece]) -> io::Result<()> {
        for run in batch.chunk_by(|a, b| a.0 == b.0) {
            let file = match run[0].0 {
                OutputStream::Stdout => &mut self.stdout,
                OutputStream::Stderr => &mut self.stderr,
            };
            let mut slices: Vec<IoSlice<'_>> = run.iter().map(|(_, data)| IoSlice::new(data)).collect();
            vectored::write_all(file, &mut slices, platform::wait_writable)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
mod platform {
    use super::{File, io};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    pub(super) fn outputs() -> io::Result<(File, File)> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        Ok((stdout.into(), stderr.into()))
    }

    pub(super) fn same_place(a: &File, b: &File) -> bool {
        match (a.metadata(), b.metadata()) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino(), a.rdev()) == (b.dev(), b.ino(), b.rdev()),
            _ => false,
        }
    }

    /// Files and `/dev/null` (a character device that is no terminal).
    pub(super) fn never_blocks(file: &File) -> bool {
        use io::IsTerminal as _;
        let kind = file.metadata().map(|m| m.file_type());
        kind.is_ok_and(|kind| kind.is_file() || (kind.is_char_device() && !file.is_terminal()))
    }

    pub(super) fn is_writable(file: &File) -> bool {
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// For a descriptor that somebody made non-blocking.
    pub(super) fn wait_writable(file: &File) -> io::Result<()> {
        poll(&mut [PollFd::new(file, PollFlags::OUT)], None)?;
        Ok(())
    }
}

#[cfg(not(unix))]
mod platform {
    use super::{File, io};
    use std::os::windows::io::AsHandle as _;

    pub(super) fn outputs() -> io::Result<(File, File)> {
        let stdout = io::stdout().as_handle().try_clone_to_owned()?;
        let stderr = io::stderr().as_handle().try_clone_to_owned()?;
        Ok((stdout.into(), stderr.into()))
    }

    pub(super) fn same_place(a: &File, b: &File) -> bool {
        use io::IsTerminal as _;
        a.is_terminal() && b.is_terminal()
    }

    pub(super) fn never_blocks(_file: &File) -> bool {
        false
    }

    pub(super) fn is_writable(_file: &File) -> bool {
        false
    }

    pub(super) fn wait_writable(_file: &File) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
