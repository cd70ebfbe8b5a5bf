//! Feeding the command's stdin.
//!
//! Nothing is buffered here: what the pipe takes is accepted, the rest is sent again. Offsets count
//! from the first byte of stdin, so a repeat after a cut does no harm.

use motefarm_proto::mote::{SupervisorReply, SupervisorStdin};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Our end of the pipe and how far it got.
pub(super) struct Stdin {
    /// `None`: ended by us, closed by the command, or never there.
    end: Option<OwnedFd>,
    accepted: u64,
}

/// What became of a request.
pub(super) enum Fed {
    /// Say so.
    Answered,
    /// The pipe is full and took nothing: worth waiting for.
    Full,
    /// It begins behind what was accepted.
    Gap,
}

impl Stdin {
    /// A pipe and the end to give to the command.
    pub(super) fn piped() -> nix::Result<(Self, OwnedFd)> {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { end: Some(ours), accepted: 0 }, theirs))
    }

    /// For a command whose stdin is empty.
    pub(super) fn none() -> Self {
        Self { end: None, accepted: 0 }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(|fd| fd.as_fd())
    }

    /// The command is gone.
    pub(super) fn close(&mut self) {
        self.end = None;
    }

    /// Passes on what is new in `request`.
    pub(super) fn feed(&mut self, request: &SupervisorStdin) -> Fed {
        if request.offset > self.accepted {
            return Fed::Gap;
        }
        let Some(fd) = &self.end else { return Fed::Answered };
        let known = usize::try_from(self.accepted - request.offset).unwrap_or(usize::MAX);
        let mut rest = request.data.get(known..).unwrap_or(&[]);
        let had_some = !rest.is_empty();
        let mut progress = false;
        while !rest.is_empty() {
            match write(fd, rest) {
                Ok(n) => {
                    progress = true;
                    self.accepted += n as u64;
                    rest = &rest[n..];
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return if progress { Fed::Answered } else { Fed::Full },
                // EPIPE: the command closed it.
                Err(_) => {
                    self.end = None;
                    return Fed::Answered;
                }
            }
        }
        debug_assert!(had_some == progress, "written or returned");
        if request.eof {
            self.end = None;
        }
        Fed::Answered
    }

    pub(super) fn report(&self, reply: &mut SupervisorReply) {
        reply.stdin_accepted = self.accepted;
        reply.stdin_closed = self.end.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read as _;

    fn piece(offset: u64, data: &[u8], eof: bool) -> SupervisorStdin {
        SupervisorStdin { offset, data: data.to_vec().into(), eof }
    }

    #[test]
    fn repeats_are_dropped_gaps_refused_and_the_end_comes_in_order() {
        let (mut stdin, theirs) = Stdin::piped().unwrap();
        assert!(matches!(stdin.feed(&piece(0, b"hello ", false)), Fed::Answered));
        assert!(matches!(stdin.feed(&piece(3, b"lo world", false)), Fed::Answered));
        assert!(matches!(stdin.feed(&piece(0, b"hel", false)), Fed::Answered));
        assert!(matches!(stdin.feed(&piece(99, b"x", true)), Fed::Gap));
        assert_eq!(stdin.accepted, 11);
        assert!(matches!(stdin.feed(&piece(11, b"!", true)), Fed::Answered));
        let mut text = String::new();
        File::from(theirs).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world!");
        let mut reply = SupervisorReply::default();
        stdin.report(&mut reply);
        assert_eq!((reply.stdin_accepted, reply.stdin_closed), (12, true));
    }

    #[test]
    fn a_full_pipe_takes_a_part_and_then_nothing_and_the_end_waits_for_the_rest() {
        let (mut stdin, theirs) = Stdin::piped().unwrap();
        let much = vec![b'x'; 200_000];
        assert!(matches!(stdin.feed(&piece(0, &much, true)), Fed::Answered));
        let accepted = stdin.accepted;
        assert!(accepted > 0 && accepted < 200_000 && stdin.fd().is_some());
        assert!(matches!(stdin.feed(&piece(0, &much, true)), Fed::Full));
        drop(theirs);
        assert!(matches!(stdin.feed(&piece(0, &much, true)), Fed::Answered));
        assert!(stdin.fd().is_none(), "closed by the reader");
    }
}
