//! When it is over, and the last word.

use super::outputs::OutputPipe;
use super::{DISK_RETRY, Supervisor, outcome};
use crate::keeper::note;
use motefarm_core::exec::ExecOutcome;
use std::time::{Duration, Instant};

/// A process not gone this long after SIGKILL is stuck in the kernel; the outcome does not wait for it.
const STUCK_AFTER: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Whether all is done. Writes the outcome on the way.
    pub(super) fn settle(&mut self) -> bool {
        if self.exit.is_none() {
            return false;
        }
        if !self.any_left {
            self.owe_what_waits();
        }
        for n in 0..self.outputs.len() {
            while self.owed[n] > 0 && self.pump(n) {}
        }
        if self.unwritten.is_some() || self.owed.iter().any(|owed| *owed > 0) {
            return false;
        }
        if !self.over {
            self.over = self.is_over() && self.save_outcome();
        }
        self.over && !self.any_left
    }

    /// Whether the command's part is over: it has exited, and nobody holds its pipes or the grace
    /// for that has passed; if everything is being ended, once it has.
    fn is_over(&self) -> bool {
        let now = Instant::now();
        if !self.any_left {
            return true;
        }
        match self.kill_at {
            Some(at) => at + STUCK_AFTER <= now,
            None => !self.outputs.iter().any(OutputPipe::is_open) || self.leak_until.is_some_and(|at| at <= now),
        }
    }

    fn save_outcome(&mut self) -> bool {
        let Some(exit) = self.exit else { return false };
        let outcome = ExecOutcome {
            ending: self.verdict.unwrap_or(exit.ending),
            reason: String::new(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            user_cpu: exit.user_cpu,
            system_cpu: exit.system_cpu,
            max_rss_bytes: exit.max_rss_bytes,
            output_end: self.spool.end(),
            left_running: self.any_left,
        };
        match outcome::save(self.spool.dir(), &outcome) {
            Ok(()) => true,
            Err(error) => {
                if !std::mem::replace(&mut self.disk_noted, true) {
                    note(&format!("the outcome waits for the disk: {error}"));
                }
                std::thread::sleep(DISK_RETRY);
                false
            }
        }
    }
}
