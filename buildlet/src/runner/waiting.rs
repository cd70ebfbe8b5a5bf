//! Waiting for a child while its output is taken, for its time to be up, and for the buildlet to leave.

use super::command::Ended;
use super::outputs::{Output, Outputs};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Of a wait without an end.
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// What came first. Whichever it was, the child is dead and reaped.
pub(super) enum Awaited {
    /// It ended by itself, like this.
    Ended(Option<WaitStatus>),
    /// It was killed, for its time or its output.
    Stopped(Ended),
    /// The connection ended, and it was killed.
    Left,
}

/// Waits for `child`, which nobody else reaps, `until` then at most (`None`: for ever).
pub(super) fn wait(child: Pid, connection: &UnixStream, until: Option<Instant>, outputs: &mut Outputs) -> Awaited {
    // Without a way to watch it there is no way to bound it.
    let awaited = first(child, connection, until, outputs).unwrap_or(Awaited::Left);
    if !matches!(awaited, Awaited::Ended(_)) {
        let _ = kill(child, Signal::SIGKILL);
    }
    let status = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            status => break status.ok(),
        }
    };
    if matches!(awaited, Awaited::Ended(_)) { Awaited::Ended(status) } else { awaited }
}

fn first(child: Pid, connection: &UnixStream, until: Option<Instant>, outputs: &mut Outputs) -> nix::Result<Awaited> {
    let pid = rustix::process::Pid::from_raw(child.as_raw()).ok_or(Errno::ESRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    loop {
        let left = until.map_or(LONGEST_NAP, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(Awaited::Stopped(Ended::TimedOut));
        }
        // Rounded up, so that it is not asked again for less than a millisecond.
        let nap = left.min(LONGEST_NAP).as_millis() + 1;
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        // The buildlet says nothing while an action runs: whatever comes is its end.
        let mut fds = vec![readable(process.as_fd()), readable(connection.as_fd())];
        fds.extend(outputs.streams.iter().filter_map(Output::descriptor).map(readable));
        match poll(&mut fds, PollTimeout::try_from(nap).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let (has_ended, has_left) = (is_ready(&fds[0]), is_ready(&fds[1]));
        outputs.take();
        if outputs.is_beyond() {
            return Ok(Awaited::Stopped(Ended::OutputLimit));
        }
        if has_ended {
            return Ok(Awaited::Ended(None));
        }
        if has_left {
            return Ok(Awaited::Left);
        }
    }
}
