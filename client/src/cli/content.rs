//! The content store and its Remote Execution API, as they can be typed.

use super::values::{duration, size};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Look after the farm's content store (admins only)
#[derive(Args)]
#[command(after_help = "Example:\n  mote cas verify")]
pub(crate) struct Cas {
    #[command(subcommand)]
    pub(crate) verb: CasVerb,
}

#[derive(Subcommand)]
pub(crate) enum CasVerb {
    /// Show what the store holds
    Stat,
    /// Evict what was used least recently; what is in use stays
    Gc {
        /// Until no more disk space than this is taken, such as 500MB or 10GiB [default: the store's bound]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        to: Option<u64>,
    },
    /// Read every blob and check it against its digest; exits 1 if one is wrong, and names it
    Verify {
        /// Throw wrong blobs away, so that they can be uploaded anew
        #[arg(long)]
        discard: bool,
    },
}

/// Use the farm as a backend of the Remote Execution API (Bazel, Buck2, Siso, reclient, recc, ...)
#[derive(Args)]
#[command(after_help = "Example:\n  mote reapi bazelrc farm.bazelrc && bazel --bazelrc=farm.bazelrc build //...")]
pub(crate) struct Reapi {
    #[command(subcommand)]
    pub(crate) verb: ReapiVerb,
}

#[derive(Subcommand)]
pub(crate) enum ReapiVerb {
    /// Print the address: grpc://HOST:PORT for the farm's own user on its machine, grpcs://HOST:PORT for others
    Url(Reach),
    /// Print what a Bazel needs, or write it into a file that only you may read
    Bazelrc {
        #[command(flatten)]
        reach: Reach,
        /// Where to write it; needed where it holds your token
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    Exec(ReapiExec),
}

/// Run one action; its exit code becomes mote's
#[derive(Args)]
#[command(
    override_usage = "mote reapi exec [OPTIONS] COMMAND [ARGS]...",
    after_help = "The command sees the input root, the machine's /usr, /bin and /lib, and the variables it is given: not even\n\
                  PATH. The same action is not run twice: the farm has its result, if it ended with 0.\n\n\
                  Example:\n  mote reapi exec -input src -output hello /usr/bin/gcc -o hello hello.c"
)]
pub(crate) struct ReapiExec {
    /// The input root: this directory, all of it [default: an empty one]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) input: Option<PathBuf>,
    /// A file, directory or link to bring back (repeatable), relative to where the command runs
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Vec<String>,
    /// Where outputs are brought to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) into: PathBuf,
    /// Where to run, in the input root [default: the root]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<String>,
    /// Set a variable (repeatable)
    #[arg(long = "env", short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Ask for machines with this property (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) platform: Vec<String>,
    /// End it after this long (such as 90s, 1h30m)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Lower ones go first
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    pub(crate) priority: i32,
    /// Run it also if its result is known
    #[arg(long)]
    pub(crate) again: bool,
    /// Keep its result from the cache
    #[arg(long)]
    pub(crate) no_cache: bool,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND [ARGS]")]
    pub(crate) words: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct Reach {
    /// TLS and a token also where the farm answers its own user without
    #[arg(long)]
    pub(crate) tls: bool,
}
