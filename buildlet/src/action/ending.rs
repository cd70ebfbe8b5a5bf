//! What the end of an action's command means. Pure.

use super::asked::Bounds;
use super::error::Failed;
use motefarm_proto::mote::RunnerReply;
use nix::sys::signal::Signal;
use tonic::Code;

/// As shells tell a death by signal.
const SIGNAL_BASE: i32 = 128;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Exited(i32),
    /// The exit code is what such a death looks like; it means nothing.
    TimedOut(i32),
    Failed(Failed),
}

/// What may have made a command fail that is not its fault.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    /// The kernel has killed something on this machine for want of memory while it ran.
    pub(super) out_of_memory: bool,
    /// There is no room where it writes.
    pub(super) disk_full: bool,
}

impl Ending {
    /// `signs` are looked for only if it did not end well.
    pub(super) fn of(reply: &RunnerReply, bounds: Bounds, signs: impl FnOnce() -> Signs) -> Self {
        let most = bounds.bytes;
        let beyond = |what: &str| {
            let message = format!("the command wrote more than {most} bytes {what}");
            Self::Failed(Failed { code: Code::FailedPrecondition, message, retry: false })
        };
        let lacking = |what: &str, code: i32| {
            let message = format!("{what} on the buildlet's machine while the command ran, which ended with {code}");
            Self::Failed(Failed { code: Code::ResourceExhausted, message, retry: true })
        };
        let code = if reply.signal == 0 { reply.exit_code } else { SIGNAL_BASE + reply.signal };
        if reply.timed_out {
            return Self::TimedOut(SIGNAL_BASE + Signal::SIGKILL as i32);
        }
        if reply.output_limit {
            return beyond("to stdout or stderr");
        }
        if code == 0 {
            return Self::Exited(0);
        }
        let signs = signs();
        if signs.disk_full {
            return lacking("the disk was full", code);
        }
        if signs.out_of_memory {
            return lacking("memory ran out", code);
        }
        if reply.signal == Signal::SIGXFSZ as i32 {
            return beyond("to one file");
        }
        Self::Exited(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 10, entries: 10 };

    fn ending(reply: RunnerReply, signs: Signs) -> Ending {
        Ending::of(&reply, BOUNDS, || signs)
    }

    #[test]
    fn a_signal_is_told_as_shells_do() {
        let signal = |signal| RunnerReply { signal, ..Default::default() };
        assert_eq!(ending(signal(9), Signs::default()), Ending::Exited(137));
        assert_eq!(ending(signal(15), Signs::default()), Ending::Exited(143));
        assert_eq!(ending(RunnerReply { exit_code: 3, ..Default::default() }, Signs::default()), Ending::Exited(3));
        let timed_out = RunnerReply { timed_out: true, ..Default::default() };
        assert_eq!(ending(timed_out, Signs { out_of_memory: true, disk_full: true }), Ending::TimedOut(137));
    }

    #[test]
    fn what_is_not_its_fault_is_tried_elsewhere_and_success_is_never_doubted() {
        let poor = Signs { out_of_memory: true, disk_full: false };
        assert_eq!(ending(RunnerReply::default(), poor), Ending::Exited(0));
        for (reply, signs, retry, text) in [
            (RunnerReply { signal: 9, ..Default::default() }, poor, true, "memory"),
            (
                RunnerReply { exit_code: 1, ..Default::default() },
                Signs { disk_full: true, ..Default::default() },
                true,
                "disk",
            ),
            (RunnerReply { output_limit: true, ..Default::default() }, Signs::default(), false, "stdout"),
            (RunnerReply { signal: 25, ..Default::default() }, Signs::default(), false, "one file"),
        ] {
            let Ending::Failed(failed) = ending(reply, signs) else { panic!("{text}") };
            assert!(failed.retry == retry && failed.message.contains(text), "{failed:?}");
        }
    }
}
