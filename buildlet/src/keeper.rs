//! The keeper: one process an instance, which owns the instance's processes.
//!
//! It outlives the buildlet that started it, forks a supervisor for each execution, and ends the
//! instance when it is told to or when its deadline passes unrenewed. In a sandbox it is PID 1, so
//! its exit takes every process along; elsewhere it is a subreaper and sweeps. Single-threaded and
//! without a runtime, because it forks.
//!
//! **Absent on purpose:** directories' names, leases, what a command is.

mod arguments;
pub(crate) mod reaper;
mod sessions;
mod terminal;

pub(crate) use arguments::Arguments;

use crate::claim::Claim;
use crate::supervisor;
use crate::wire;
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use motefarm_proto::KEEPER_PROTOCOL_VERSION;
use motefarm_proto::mote::{KeeperReply, KeeperRequest, keeper_request::Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, fork};
use sessions::Sessions;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

/// The first argument that selects this role.
pub(crate) const ROLE: &str = "keeper";
/// Connections that may wait; the buildlet makes one a request.
const BACKLOG: i32 = 128;
/// The wall clock is looked at again at least this often, since it may jump.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Runs the role: standard input is the bound socket, standard output gets one byte once requests
/// are heard.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let kept = Arguments::parse(arguments)
        .map_err(io::Error::other)
        .and_then(|arguments| Keeper::start(arguments).and_then(Keeper::run));
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("the keeper could not go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for the instance's keeper log, which is this process's standard error.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().write_all(format!("{} {text}\n", SystemClock.now().as_millis()).as_bytes());
}

struct Keeper {
    arguments: Arguments,
    listener: OwnedFd,
    signals: SignalFd,
    deadline: Deadline,
    sessions: Sessions,
}

/// When the instance ends if nobody says otherwise.
struct Deadline {
    /// Whatever runs.
    ends_at: Timestamp,
    /// While nothing runs: at this time, but not before this long after something did.
    idle: Option<(Timestamp, Duration)>,
    /// When something was last seen to run.
    last_busy: Timestamp,
}

impl Deadline {
    /// The end that holds at `now`, given whether something runs.
    fn at(&mut self, now: Timestamp, busy: bool) -> Timestamp {
        if busy {
            self.last_busy = now;
        }
        match self.idle {
            Some((ends_at, after)) if !busy => self.ends_at.min(ends_at.max(self.last_busy + after)),
            _ => self.ends_at,
        }
    }
}

/// What to do after a request.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Keeper {
    fn start(arguments: Arguments) -> io::Result<Self> {
        // Fails for a session leader, which bubblewrap's --new-session makes us: as good.
        let _ = nix::unistd::setsid();
        nix::sys::prctl::set_name(c"mote-keeper")?;
        // Commands run as the same user: they must not trace us or read our memory.
        nix::sys::prctl::set_dumpable(false)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let everything = SigSet::all();
        everything.thread_block()?;
        let mut awaited = SigSet::empty();
        awaited.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let listener = io::stdin().as_fd().try_clone_to_owned()?;
        let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(&nothing)?;
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(BACKLOG)?)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        io::stdout().write_all(b"k")?;
        io::stdout().flush()?;
        nix::unistd::dup2_stdout(&nothing)?;
        let deadline = Deadline { ends_at: arguments.ends_at, idle: None, last_busy: SystemClock.now() };
        Ok(Self { deadline, arguments, listener, signals, sessions: Sessions::default() })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            let now = SystemClock.now();
            let busy = reaper::reap_ended(|status| self.sessions.note_end(status));
            let left = self.deadline.at(now, busy).since(now);
            if left.is_zero() {
                note("the instance's deadline passed and nobody renewed it");
                return self.end();
            }
            let nap = left.min(LONGEST_NAP).min(self.sessions.nap()).as_millis() + 1;
            let mut fds = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.sessions.watched());
            match poll(&mut fds, PollTimeout::try_from(nap).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
            let (asked, signalled) = (ready[0], ready[1]);
            if signalled {
                // What ended is reaped at the loop's head.
                while let Ok(Some(_)) = self.signals.read_signal() {}
            }
            self.sessions.serve(&ready[2..]);
            if asked && self.serve_waiting()? == Next::End {
                return self.end();
            }
        }
    }

    fn serve_waiting(&mut self) -> io::Result<Next> {
        while let Some(stream) = wire::accept(self.listener.as_fd())? {
            match self.serve_one(stream) {
                Ok(Next::GoOn) => {}
                Ok(Next::End) => return Ok(Next::End),
                // The asker's trouble, such as its own death halfway.
                Err(error) => note(&format!("a request failed: {error}")),
            }
        }
        Ok(Next::GoOn)
    }

    fn serve_one(&mut self, mut stream: UnixStream) -> io::Result<Next> {
        let (request, descriptors) = wire::receive::<KeeperRequest>(&mut stream)?;
        let mut answer = KeeperReply { version: KEEPER_PROTOCOL_VERSION, ..Default::default() };
        let mut next = Next::GoOn;
        match request.request {
            Some(Request::Ping(_)) => {}
            Some(Request::Deadline(told)) => {
                self.deadline.ends_at = Timestamp::from_millis(told.ends_at_ms);
                self.deadline.idle = (told.idle_ends_at_ms > 0)
                    .then(|| (Timestamp::from_millis(told.idle_ends_at_ms), Duration::from_millis(told.idle_after_ms)));
            }
            Some(Request::End(_)) => next = Next::End,
            Some(Request::Start(_)) => match <[OwnedFd; 2]>::try_from(descriptors) {
                Ok([dir, control]) => {
                    if let Err(error) = self.start_execution(dir, control, &stream) {
                        answer.error = error.to_string();
                    }
                }
                Err(other) => answer.error = format!("a start needs 2 descriptors and came with {}", other.len()),
            },
            Some(Request::Session(asked)) => {
                self.sessions.open(&asked, descriptors, &self.arguments.limits, stream, answer)?;
                return Ok(Next::GoOn);
            }
            None => answer.unsupported = true,
        }
        wire::reply(&mut stream, &answer)?;
        Ok(next)
    }

    /// Claims and forks. An execution that is claimed already runs or ran: that is no error.
    fn start_execution(&self, dir: OwnedFd, control: OwnedFd, asker: &UnixStream) -> io::Result<()> {
        // Listening before anybody can know of it: a request that comes early waits in the queue.
        nix::sys::socket::listen(&control, nix::sys::socket::Backlog::new(BACKLOG)?)?;
        rustix::io::ioctl_fionbio(&control, true)?;
        let Some(claim) = Claim::make(dir.as_fd())? else { return Ok(()) };
        #[expect(unsafe_code, reason = "fork is what the keeper is for")]
        // SAFETY: this process has a single thread, so the child may do whatever it could.
        let forked = unsafe { fork() };
        match forked {
            Ok(ForkResult::Parent { .. }) => Ok(()),
            Ok(ForkResult::Child) => {
                close_in_child(self.listener.as_fd());
                close_in_child(self.signals.as_fd());
                close_in_child(asker.as_fd());
                self.sessions.close_in_child();
                supervisor::main(dir, control, claim, &self.arguments.limits)
            }
            Err(error) => {
                // The claim can not be given back; the outcome says what happened.
                supervisor::write_not_started(dir.as_fd(), &format!("no process for it: {error}"))?;
                Ok(())
            }
        }
    }

    fn end(self) -> io::Result<()> {
        // PID 1's exit makes the kernel kill the rest; doing it here as well costs nothing and is
        // the whole of it without a sandbox.
        reaper::kill_everything();
        Ok(())
    }
}

/// Closes the parent's descriptor in a child that never returns to the parent's code. A held
/// listener would make a dead keeper look alive.
fn close_in_child(fd: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd as _;
    let _ = nix::unistd::close(fd.as_raw_fd());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_unheard_of_leaves_an_idle_instance_behind_not_a_busy_one() {
        let at = |seconds: u64| Timestamp::EPOCH + Duration::from_secs(seconds);
        let idle = Some((at(100), Duration::from_secs(60)));
        let mut deadline = Deadline { ends_at: at(10_000), idle, last_busy: at(0) };
        assert_eq!(deadline.at(at(500), true), at(10_000));
        assert_eq!(deadline.at(at(510), false), at(560));
        assert_eq!(Deadline { ends_at: at(10_000), idle, last_busy: at(0) }.at(at(1), false), at(100));
        assert_eq!(Deadline { ends_at: at(10_000), idle: None, last_busy: at(0) }.at(at(1), false), at(10_000));
    }
}
