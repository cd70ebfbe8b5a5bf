//! What a command is, and how it ended.

use crate::clock::Timestamp;
use std::time::Duration;

/// Most arguments a command may have.
pub const MAX_ARGS: usize = 65_536;
/// Most bytes of arguments and environment together: half of Linux's usual `ARG_MAX` budget
/// (a quarter of an 8 MiB stack), so that what the farm adds still fits.
pub const MAX_ARG_BYTES: usize = 1024 * 1024;

/// Which of a command's two outputs some bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output, and everything when the two share one pipe.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What to do when the spool is full of output that nobody has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OverflowPolicy {
    /// Let the pipe fill, so that the command waits for its reader. Nothing is dropped.
    #[default]
    Block,
    /// End the execution as [`Ending::OutputLimit`].
    End,
}

/// How an execution's life ended. A command's failure is a value, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It exited by itself with this code.
    Exited(i32),
    /// A signal nobody here sent on purpose ended it.
    Signaled(i32),
    /// Its time limit ran out.
    TimedOut,
    /// Somebody with the right to asked.
    Cancelled,
    /// Its output passed the spool's bound under [`OverflowPolicy::End`].
    OutputLimit,
    /// It could not be started: no such program, no permission, no such directory.
    NotStarted,
    /// What watched it is gone (a reboot, a killed supervisor): how it ended is not known.
    Lost,
}

/// Everything known about an ended execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// How it ended.
    pub ending: Ending,
    /// For [`Ending::NotStarted`] and [`Ending::Lost`]: why, for a person.
    pub reason: String,
    /// When the command was started.
    pub started_at: Timestamp,
    /// When it was over.
    pub ended_at: Timestamp,
    /// Processor time in user mode, of the command and the descendants it waited for.
    pub user_cpu: Duration,
    /// The same in the kernel.
    pub system_cpu: Duration,
    /// The largest resident size any one of those processes reached.
    pub max_rss_bytes: u64,
    /// Offset one past the last output byte that belongs to the command. What a process left
    /// running writes later lies behind it.
    pub output_end: u64,
    /// Whether processes it started still ran when it ended.
    pub left_running: bool,
}

impl ExecOutcome {
    /// The exit code a shell would report: the command's own, 128 + N for a signal, 124 for a
    /// timeout (as `timeout(1)`), 130 for a cancel (as after Ctrl-C), 126 or 127 when it could not
    /// be started; 255, ours, when the farm failed (output limit, lost).
    pub fn shell_code(&self) -> u8 {
        match self.ending {
            Ending::Exited(code) => u8::try_from(code & 0xff).unwrap_or(255),
            Ending::Signaled(signal) => u8::try_from(128 + (signal & 0x7f)).unwrap_or(255),
            Ending::TimedOut => 124,
            Ending::Cancelled => 130,
            Ending::NotStarted => 127,
            Ending::OutputLimit | Ending::Lost => 255,
        }
    }

    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_map_to_what_a_shell_reports() {
        let outcome = |ending| ExecOutcome {
            ending,
            reason: String::new(),
            started_at: Timestamp::EPOCH,
            ended_at: Timestamp::EPOCH,
            user_cpu: Duration::ZERO,
            system_cpu: Duration::ZERO,
            max_rss_bytes: 0,
            output_end: 0,
            left_running: false,
        };
        for (ending, code) in [
            (Ending::Exited(0), 0),
            (Ending::Exited(3), 3),
            (Ending::Signaled(9), 137),
            (Ending::TimedOut, 124),
            (Ending::Cancelled, 130),
            (Ending::NotStarted, 127),
            (Ending::Lost, 255),
        ] {
            assert_eq!(outcome(ending).shell_code(), code);
            assert_eq!(outcome(ending).success(), code == 0);
        }
    }
}
