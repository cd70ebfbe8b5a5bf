//! What can be typed. Declarations only: nothing here decides or acts.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Heading of the flags that every verb has.
const EVERYWHERE: &str = "Options of every command";

/// Lease instances of a build farm, push trees to them, run commands there and collect what comes out.
#[derive(Parser)]
#[command(
    name = "mote",
    version,
    args_override_self = true,
    after_help = "A farm started on this machine by `mote-coordinator serve` is found without any flag.\n\
                  Flags may be written as -flag or --flag. `mote help exit-codes` lists the exit codes."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Args, Default)]
pub(crate) struct Global {
    /// Address of the farm, instead of the profile's [env: MOTE_SERVER]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Which farm: the profile farms/NAME.toml in the config folder [env: MOTE_FARM] [default: local]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME")]
    pub(crate) farm: Option<String>,
    /// Read exactly this profile
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE", conflicts_with = "farm")]
    pub(crate) profile: Option<PathBuf>,
    /// The farm's CA certificate (PEM), instead of the profile's [env: MOTE_CA]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Write one JSON object to stdout instead of text
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// No messages on stderr but warnings and errors
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub(crate) quiet: bool,
}

/// One file in `commands/` for each.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Create(Create),
    List(List),
    Ping(Ping),
    Push(Push),
    Run(Run),
    Attach(Attach),
    Logs(Logs),
    Cancel(Cancel),
    Gettar(Gettar),
    Destroy(Destroy),
    #[command(subcommand)]
    Admin(Admin),
}

/// Lease an instance and print its name; without a type, list the host types
#[derive(Args)]
#[command(after_help = "Example:\n  MOTE=$(mote create linux-amd64)")]
pub(crate) struct Create {
    /// Host type, such as linux-amd64
    #[arg(value_name = "TYPE")]
    pub(crate) host_type: Option<String>,
    /// List the host types with free and total slots
    #[arg(long, conflicts_with = "host_type")]
    pub(crate) list: bool,
    /// End the lease after this long without use, if shorter than the farm's own (such as 10m)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
}

/// List your instances and when they expire
#[derive(Args)]
#[command(after_help = "Example:\n  mote list")]
pub(crate) struct List {
    /// Those of all users (admins only)
    #[arg(long)]
    pub(crate) all: bool,
}

/// Reach instances' hosts and renew their leases; exit code 1 if one does not answer
#[derive(Args)]
#[command(after_help = "Example:\n  mote ping alice-linux-amd64-0")]
pub(crate) struct Ping {
    #[arg(value_name = "INSTANCE", required = true)]
    pub(crate) instances: Vec<String>,
}

/// Make a directory of instances equal to a local tree, sending only what is missing there
#[derive(Args)]
#[command(after_help = "The tree is -C DIR, else the git checkout around the current directory, else $GOROOT.\n\
                        What .gitignore names is neither sent nor deleted there.\n\n\
                        Example:\n  mote push alice-linux-amd64-0")]
pub(crate) struct Push {
    /// The tree to push
    #[arg(long = "tree", short = 'C', value_name = "DIR")]
    pub(crate) tree: Option<PathBuf>,
    /// Where to, in the work directory [default: go for a Go tree, else the tree's base name]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<String>,
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[arg(value_name = "INSTANCE", required = true)]
    pub(crate) instances: Vec<String>,
}

/// Run a command on an instance; its exit code becomes mote's
#[derive(Args)]
#[command(
    override_usage = "mote run [OPTIONS] INSTANCE COMMAND [ARGS]...",
    after_help = "COMMAND is a path in the work directory (go/bin/go), an absolute path (/bin/ls) or, with\n\
                  -system, a name found in PATH. Options stand before INSTANCE; all behind COMMAND is the\n\
                  command's. Ctrl-C is passed on, a second one ends the command; if mote itself is killed or cut\n\
                  off the command goes on, and `mote attach` continues. `mote help exit-codes` lists the exit codes.\n\n\
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
    /// End it after this long (such as 90s, 1h30m)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Feed it our stdin; otherwise its stdin is empty
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Print its execution id and leave it running
    #[arg(long, conflicts_with = "stdin")]
    pub(crate) detach: bool,
    /// Keep its output in FILE [default: a file in the cache folder, for 14 days after its end]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where to run what; all behind COMMAND is the command's own
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "INSTANCE COMMAND [ARGS]"
    )]
    pub(crate) words: Vec<OsString>,
}

/// Go on watching a command, exactly where its output file ends
#[derive(Args)]
#[command(after_help = "Without an argument: the newest run from this machine that was interrupted.\n\n\
                        Example:\n  mote attach")]
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
    /// Execution ids, or instances for all that runs there
    #[arg(value_name = "EXEC|INSTANCE", required = true)]
    pub(crate) targets: Vec<String>,
}

/// Fetch a directory of an instance as an archive
#[derive(Args)]
#[command(after_help = "Example:\n  mote gettar -dir go/bin alice-linux-amd64-0")]
pub(crate) struct Gettar {
    /// Which directory [default: the whole work directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<String>,
    /// Where to; - is stdout [default: INSTANCE.tar.gz (.tar.zst, .tar) in the current directory]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Compress with zstd: smaller and many times faster than gzip
    #[arg(long, conflicts_with = "plain")]
    pub(crate) zstd: bool,
    /// Do not compress
    #[arg(long)]
    pub(crate) plain: bool,
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: String,
}

/// End instances with all that runs there, and wipe them
#[derive(Args)]
#[command(after_help = "Example:\n  mote destroy alice-linux-amd64-0")]
pub(crate) struct Destroy {
    #[arg(value_name = "INSTANCE", required = true)]
    pub(crate) instances: Vec<String>,
}

/// Run the farm: users, tokens, machines (admins only)
#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Who may use the farm
    #[command(subcommand)]
    User(User),
    /// What users prove themselves with
    #[command(subcommand)]
    Token(Token),
    /// What machines join with
    #[command(subcommand)]
    JoinToken(JoinToken),
    Invite(Invite),
    /// List the machines, in contact or not
    Buildlets,
}

#[derive(Subcommand)]
pub(crate) enum User {
    /// Add a user
    Add {
        #[arg(value_name = "USER")]
        user: String,
        /// What the user may do
        #[arg(long, default_value = "user", value_parser = ["user", "admin"])]
        role: String,
    },
    /// List the users
    List,
    /// Remove a user with all instances and tokens
    Remove {
        #[arg(value_name = "USER")]
        user: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it; it is shown this once
    Create {
        /// Whose it is to be
        #[arg(long, value_name = "USER")]
        user: String,
        /// What to call it, unique among the user's
        #[arg(long, default_value = "default")]
        name: String,
        /// End it after this long, such as 90d [default: never]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        lifetime: Option<Duration>,
    },
    /// List the tokens (not their secrets)
    List {
        /// Of this user only
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Make a token worthless at once
    Revoke {
        /// Whose it is
        #[arg(long, value_name = "USER")]
        user: String,
        /// What it is called
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum JoinToken {
    /// Make a join token and print it; it is shown this once
    Create(JoinTerms),
    /// List the join tokens (not their secrets)
    List,
    /// Make a join token worthless at once; machines that joined with it can not come back once out of contact
    Revoke {
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Print the one line that makes another machine join the farm
#[derive(Args)]
#[command(after_help = "Paste it into a shell on that machine. It holds a secret.\n\n\
                        Example:\n  mote admin invite -host-type linux-arm64")]
pub(crate) struct Invite {
    #[command(flatten)]
    pub(crate) terms: JoinTerms,
    /// The farm's address as that machine sees it [default: as the farm knows itself]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) coordinator: Option<String>,
}

#[derive(Args)]
pub(crate) struct JoinTerms {
    /// The type instances on that machine are leased by
    #[arg(long, value_name = "TYPE")]
    pub(crate) host_type: String,
    /// How long machines may join with it [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) lifetime: Option<Duration>,
    /// Good for one machine only
    #[arg(long)]
    pub(crate) one_time: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_millis() > 0 => Ok(duration),
        Ok(_) => Err("must be longer than nothing".to_owned()),
        Err(error) => Err(format!("{error}; write 90s, 10m or 1h30m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_declarations_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.has_subcommands()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n  "), "{} has no example", verb.get_name());
        }
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("29m59s"), Ok(Duration::from_secs(1799)));
        assert!(duration("0s").is_err() && duration("5").is_err());
    }
}
