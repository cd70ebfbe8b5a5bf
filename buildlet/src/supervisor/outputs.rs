//! The reading ends of the command's pipes.

use motefarm_core::exec::OutputStream;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What a pipe holds by default.
pub(super) const PIPE_BYTES: usize = 64 * 1024;
/// What a busy one is enlarged to, where the system allows it. Idle ones stay small: the kernel
/// counts a user's pipe pages and cuts all of them short beyond a bound.
const BUSY_PIPE_BYTES: i32 = 1024 * 1024;

/// One pipe.
pub(super) struct OutputPipe {
    stream: OutputStream,
    /// `None` once every writer has closed it.
    end: Option<OwnedFd>,
    enlarged: bool,
}

/// What reading a pipe gave.
pub(super) enum Got {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Every writer is gone.
    End,
}

impl OutputPipe {
    /// A pipe and the end to give to the command.
    pub(super) fn new(stream: OutputStream) -> nix::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { stream, end: Some(ours), enlarged: false }, theirs))
    }

    pub(super) fn stream(&self) -> OutputStream {
        self.stream
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(|fd| fd.as_fd())
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.is_some()
    }

    /// Bytes that lie in the pipe.
    pub(super) fn waiting(&self) -> usize {
        let Some(fd) = &self.end else { return 0 };
        rustix::io::ioctl_fionread(fd).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    }

    /// Reads what is there into `buffer`, which is not empty.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Got {
        let Some(fd) = &self.end else { return Got::End };
        match read(fd, buffer) {
            Ok(0) => {
                self.end = None;
                Got::End
            }
            Ok(n) => {
                if n >= PIPE_BYTES && !self.enlarged {
                    self.enlarged = true;
                    // Not allowed: it works as it is.
                    let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(BUSY_PIPE_BYTES));
                }
                Got::Bytes(n)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Got::Nothing,
            Err(_) => {
                self.end = None;
                Got::End
            }
        }
    }
}
