//! Commands on instances, as they can be typed.

use super::values::duration;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Run a command on an instance; its exit code becomes mote's
#[derive(Args)]
#[command(
    override_usage = "mote run [OPTIONS] [INSTANCE] COMMAND [ARGS]...",
    after_help = "COMMAND is a path in the work directory (go/bin/go), an absolute path (/bin/ls) or, with\n\
                  -system, a name found in PATH. Options stand before INSTANCE; all behind COMMAND is the\n\
                  command's. Ctrl-C is passed on, a second one ends the command; if mote itself is killed or cut\n\
                  off the command goes on, and `mote attach` continues, with -until and -collect too.\n\
                  On several instances (an active group and no INSTANCE) each line of output has the instance's\n\
                  name before it, and each instance's output is kept in a file of its own.\n\
                  `mote help exit-codes` lists the exit codes.\n\n\
                  Example:\n  mote run -e CC=clang alice-linux-amd64-0 go/src/make.bash"
)]
pub(crate) struct Run {
    /// Set a variable (repeatable)
    #[arg(long = "env", short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// PATH, comma-separated; $PATH and $WORKDIR are replaced, EMPTY clears it
    #[arg(long, value_name = "LIST")]
    pub(crate) path: Option<String>,
    /// Where to run, relative to the work directory [default: the command's own directory there]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<String>,
    /// A program of the machine, not of the work directory (also when COMMAND begins with /)
    #[arg(long)]
    pub(crate) system: bool,
    /// Write program, arguments and directory into the output first
    #[arg(long)]
    pub(crate) debug: bool,
    /// Keep the output in INSTANCE.stdout here and, when it has ended, the work directory in INSTANCE.tar.gz
    #[arg(long, conflicts_with_all = ["detach", "output"])]
    pub(crate) collect: bool,
    /// Run again and again until the whole output of a run matches this regular expression
    #[arg(long, value_name = "REGEXP", conflicts_with_all = ["detach", "stdin", "interactive"])]
    pub(crate) until: Option<String>,
    /// Taken for gomote's sake; a farm of this kind has no builder environments
    #[arg(long, value_name = "BUILDER")]
    pub(crate) builderenv: Option<String>,
    /// Set GO_DISABLE_OUTBOUND_NETWORK=true, which Go's tests respect; nothing is enforced by it
    #[arg(long)]
    pub(crate) firewall: bool,
    /// End it after this long (such as 90s, 1h30m)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Feed it our stdin; otherwise its stdin is empty
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Interactive: -stdin, with stdout and stderr as one; there is no terminal on the other side
    #[arg(short = 't', long)]
    pub(crate) interactive: bool,
    /// Print its execution id and leave it running
    #[arg(long, conflicts_with_all = ["stdin", "interactive"])]
    pub(crate) detach: bool,
    /// Keep its output in FILE [default: a file in the cache folder, for 14 days after its end]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where to run what; all behind COMMAND is the command's own
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "[INSTANCE] COMMAND [ARGS]"
    )]
    pub(crate) words: Vec<OsString>,
}

/// Go on watching a command, exactly where its output file ends
#[derive(Args)]
#[command(
    after_help = "Without an argument: the newest run from this machine that was interrupted, on all instances\n\
                        it was started on. With -until and -collect it goes on with these too.\n\n\
                        Example:\n  mote attach"
)]
pub(crate) struct Attach {
    /// An execution id, or an instance for its newest command
    #[arg(value_name = "EXEC|INSTANCE")]
    pub(crate) target: Option<String>,
    /// Keep the output in FILE, from its beginning [default: where `run` kept it]
    #[arg(long, short, value_name = "FILE", requires = "target")]
    pub(crate) output: Option<PathBuf>,
}

/// Print what a command has written so far
#[derive(Args)]
#[command(after_help = "Example:\n  mote logs -f alice-linux-amd64-0")]
pub(crate) struct Logs {
    /// Go on until it ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// An execution id, or an instance for its newest command [default: the newest run from this machine]
    #[arg(value_name = "EXEC|INSTANCE")]
    pub(crate) target: Option<String>,
}

/// End commands and everything they started
#[derive(Args)]
#[command(after_help = "Example:\n  mote cancel alice-linux-amd64-0")]
pub(crate) struct Cancel {
    /// Time between SIGTERM and SIGKILL, at most 60s [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// Execution ids, or instances for all that runs there [default: the active group's]
    #[arg(value_name = "EXEC|INSTANCE")]
    pub(crate) targets: Vec<String>,
}
