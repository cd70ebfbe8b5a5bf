//! The exit codes people may rely on.

use std::ffi::OsString;
use std::process::ExitCode;

/// The page of `mote help exit-codes`.
pub(crate) const TABLE: &str = "\
Exit codes of mote:
    0  done
    1  the farm refused it or could not do it: no such instance, full queue, dead ping
    2  wrong usage; nothing was asked of the farm
    3  no usable profile, CA or token
    4  the farm could not be reached or its certificate not believed, or it was lost and did not come back
    5  a local file could not be read or written
  130  interrupted by Ctrl-C
  141  whoever read stdout went away

Exit codes of mote run and mote attach:
  0-254  the command's own; 128+N if signal N ended it
  124    the command passed its time limit
  127    the command could not be started
  130    the command was cancelled
  255    ours: codes 1, 3, 4 and 5 above, a lost execution, output over its limit, or the command
         still runs because mote itself was told to end. (Wrong usage is still 2.)
On several instances mote run and mote attach end with
    0  all commands ended with 0
    1  at least one did not
  255  at least one of the reasons for 255 above

Exit codes of mote ssh are ssh's: the command's own, and 255 where there was no connection; 2 is ours too.

With --json the last line on stdout says for certain which it was.";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Done.
    Success,
    /// The farm refused or could not.
    Failed,
    /// Wrong usage.
    Usage,
    /// Nothing to reach the farm with.
    Settings,
    /// Not reached, or lost.
    Unreachable,
    /// A local file.
    LocalFile,
    /// Ctrl-C.
    Interrupted,
    /// EPIPE on stdout: what a shell reports for SIGPIPE.
    StdoutClosed,
    /// Ours, where every other code is the command's.
    Farm,
    /// The command's own.
    Command(u8),
}

impl ExitStatus {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Settings => 3,
            Self::Unreachable => 4,
            Self::LocalFile => 5,
            Self::Interrupted => 130,
            Self::StdoutClosed => 141,
            Self::Farm => 255,
            Self::Command(code) => code,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// Whether the arguments ask for the page above.
pub(crate) fn is_help_topic(args: &[OsString]) -> bool {
    args.len() == 3 && args[1] == "help" && args[2] == "exit-codes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_docs_is_this_one() {
        let docs = include_str!("../../docs/exit-codes.md");
        assert!(docs.contains(&format!("```text\n{TABLE}\n```")), "docs/exit-codes.md is not `mote help exit-codes`");
    }

    #[test]
    fn every_fixed_code_is_on_the_page() {
        use ExitStatus::*;
        for status in [Success, Failed, Usage, Settings, Unreachable, LocalFile, Interrupted, StdoutClosed, Farm] {
            assert!(TABLE.contains(&format!(" {}  ", status.code())), "{status:?} is not documented");
        }
    }
}
