//! What the supervisor's loop sleeps for.

use super::{DISK_RETRY, KILL_PASS, Supervisor};
use motefarm_proto::mote::exec_spec::Overflow;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Silence after which the buffer's pages go back.
const QUIET: Duration = Duration::from_secs(1);

/// What poll found.
pub(super) struct Ready {
    pub(super) signal: bool,
    pub(super) control: bool,
    pub(super) outputs: Vec<bool>,
}

impl Supervisor {
    /// Sleeps until something is to be done.
    pub(super) fn wait(&mut self) -> Ready {
        let full = self.bounded && self.spool.room() == 0;
        // Where a full spool ends the execution, more output is news; elsewhere it waits in its pipe.
        let limit_may_strike = self.overflow == Overflow::End && self.exit.is_none() && self.kill_at.is_none();
        let held = self.unwritten.is_some() || (full && !limit_may_strike);
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
        ];
        let mut output_at = vec![None; self.outputs.len()];
        for (n, output) in self.outputs.iter().enumerate().filter(|_| !held) {
            if let Some(fd) = output.fd() {
                output_at[n] = Some(fds.len());
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
        }
        if let (Some(_), Some(fd)) = (&self.waiting_stdin, self.stdin.fd()) {
            fds.push(PollFd::new(fd, PollFlags::POLLOUT));
        }
        let now = Instant::now();
        let nap = self.next_event().map(|at| at.saturating_duration_since(now));
        // Rounded up, or a poll of 0 ms would spin through the last millisecond.
        let timeout = nap.map_or(PollTimeout::NONE, |nap| {
            PollTimeout::try_from(nap.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, timeout).is_err() {
            return Ready { signal: true, control: false, outputs: vec![false; self.outputs.len()] };
        }
        let any = |at: usize| fds[at].any() == Some(true);
        let ready = Ready {
            signal: any(0),
            control: any(1),
            outputs: output_at.iter().map(|at| at.is_some_and(any)).collect(),
        };
        if self.buffer.holds_pages() && self.unwritten.is_none() && !ready.outputs.contains(&true) {
            self.buffer.give_back();
        }
        ready
    }

    fn next_event(&self) -> Option<Instant> {
        let soon = |wait| Some(Instant::now() + wait);
        let killing = self
            .kill_at
            .filter(|_| self.any_left)
            .and_then(|at| if at <= Instant::now() { soon(KILL_PASS) } else { Some(at) });
        [
            self.timeout_at,
            killing,
            self.leak_until.filter(|_| !self.over && self.kill_at.is_none() && self.unwritten.is_none()),
            self.unwritten.and_then(|_| soon(DISK_RETRY)),
            self.waiting_stdin.as_ref().map(|w| w.until),
            if self.buffer.holds_pages() { soon(QUIET) } else { None },
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
