//! Pipes of commands, on threads of their own.
//!
//! Whoever splices into a pipe holds the kernel's lock on it for as long as his source has nothing, and
//! then even a read that must not block does. A command may do that, out of malice or by `cat`; what it
//! holds up is a thread that has nothing else to do.

use bytes::{Bytes, BytesMut};
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// What a pipe holds where the system lets us choose: fewer, larger reads.
const PIPE_BYTES: i32 = 256 * 1024;
/// One read.
const READ_BYTES: usize = 64 * 1024;
/// Reads that wait to be taken.
const QUEUE: usize = 2;
/// Of a thread that calls nothing deep.
const STACK_BYTES: usize = 128 * 1024;
/// Threads of one instance. Those held up are among them until the instance ends.
const MOST_THREADS: usize = 1536;

/// Counts an instance's threads.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<AtomicUsize>);

struct Counted(Threads);

impl Threads {
    fn enter(&self) -> io::Result<Counted> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MOST_THREADS {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::other(format!("sessions of this instance keep {MOST_THREADS} threads busy")));
        }
        Ok(Counted(self.clone()))
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let counted = self.enter()?;
        let builder = std::thread::Builder::new().name("session-pipe".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || {
            let _counted = counted;
            work();
        })?;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the threads of a session: they watch one end of a pipe, whose other end is dropped with it.
#[derive(Clone)]
pub(super) struct Life {
    watched: Arc<OwnedFd>,
    _held: Arc<OwnedFd>,
}

impl Life {
    pub(super) fn new() -> io::Result<Self> {
        let (watched, held) = pipe()?;
        Ok(Self { watched: Arc::new(watched), _held: Arc::new(held) })
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

fn wide_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reads, writes) = pipe()?;
    // Past the system's bound for a user it stays as it was.
    let _ = fcntl(&writes, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    Ok((reads, writes))
}

/// Waits until something can be done with `fd`; `false`: the session is over.
fn wait(fd: BorrowedFd<'_>, what: PollFlags, life: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(fd, what), PollFd::new(life.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) if fds[1].any() == Some(true) => return false,
            Ok(_) => return true,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// What a command writes.
pub(super) struct PipeReader {
    read: mpsc::Receiver<BytesMut>,
    /// Read and not yet taken.
    held: BytesMut,
    _life: Life,
}

impl PipeReader {
    /// Makes a pipe; its other end is the command's.
    pub(super) fn new(threads: &Threads, life: &Life) -> io::Result<(Self, OwnedFd)> {
        let (reads, writes) = wide_pipe()?;
        let (send, read) = mpsc::channel(QUEUE);
        let watched = life.watched.clone();
        threads.spawn(move || {
            while wait(reads.as_fd(), PollFlags::POLLIN, &watched) {
                let mut buffer = BytesMut::zeroed(READ_BYTES);
                match nix::unistd::read(&reads, &mut buffer) {
                    Ok(0) => return,
                    Ok(filled) => buffer.truncate(filled),
                    Err(nix::errno::Errno::EINTR) => continue,
                    Err(_) => return,
                }
                if send.blocking_send(buffer).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { read, held: BytesMut::new(), _life: life.clone() }, writes))
    }

    /// At most `most` bytes; none: the end. Cancellation safe.
    pub(super) async fn read(&mut self, most: usize) -> BytesMut {
        if self.held.is_empty() {
            match self.read.recv().await {
                Some(bytes) => self.held = bytes,
                None => return BytesMut::new(),
            }
        }
        self.held.split_to(most.min(self.held.len()))
    }
}

/// What a command reads.
pub(super) struct PipeWriter {
    send: mpsc::Sender<Bytes>,
    /// A message for each that was written whole.
    written: mpsc::Receiver<()>,
    _life: Life,
}

impl PipeWriter {
    /// Makes a pipe; its other end is the command's.
    pub(super) fn new(threads: &Threads, life: &Life) -> io::Result<(Self, OwnedFd)> {
        let (reads, writes) = wide_pipe()?;
        rustix::io::ioctl_fionbio(&writes, true)?;
        let (send, mut queued) = mpsc::channel::<Bytes>(1);
        let (tell, written) = mpsc::channel(1);
        let watched = life.watched.clone();
        threads.spawn(move || {
            while let Some(bytes) = queued.blocking_recv() {
                let mut left = &bytes[..];
                while !left.is_empty() {
                    if !wait(writes.as_fd(), PollFlags::POLLOUT, &watched) {
                        return;
                    }
                    match nix::unistd::write(&writes, left) {
                        Ok(taken) => left = &left[taken..],
                        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                        Err(_) => return,
                    }
                }
                if tell.blocking_send(()).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { send, written, _life: life.clone() }, reads))
    }

    /// Writes all of it. An error says that nobody reads any more.
    pub(super) async fn write_all(&mut self, bytes: Bytes) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.send.send(bytes).await.map_err(|_| gone())?;
        self.written.recv().await.ok_or_else(gone)
    }
}
