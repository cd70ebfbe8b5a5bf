//! The command line, declared and nothing else.

use clap::{Args, Parser, Subcommand};
use motefarm_core::HostType;
use std::path::PathBuf;

/// Runs commands of a farm on this machine.
#[derive(Debug, Parser)]
#[command(name = "mote-buildlet", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

/// How it is reached.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Serve a coordinator on this machine over a Unix socket
    Serve(Serve),
    /// Dial a coordinator and serve it over that connection, for as long as it takes
    Join(Join),
    /// Listen for clients that address this machine directly
    Listen(Listen),
}

/// What every mode has.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where everything is kept [default: $XDG_DATA_HOME/motefarm-buildlet]
    #[arg(long, env = "MOTE_BUILDLET_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Class of this machine [default: named after its system and processor, as linux-amd64]
    #[arg(long, value_name = "TYPE")]
    pub(crate) host_type: Option<HostType>,
    /// Instances it takes [default: 4 per CPU, at least 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) slots: Option<u64>,
    /// Actions of the Remote Execution API it runs at a time; 0: none [default: 1 per CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub(crate) action_slots: Option<u64>,
    /// A fact about this machine, for people and schedulers; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// A file or directory to show, read-only, inside every instance and, unless it is below /tmp, every action; may be repeated
    #[arg(long = "show", value_name = "PATH")]
    pub(crate) show: Vec<PathBuf>,
    /// Run instances and actions as plain processes even where a sandbox could be had
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    /// Bound of the output kept of one execution, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) spool_limit_mib: u64,
    /// Bound of what one archive may unpack to, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) unpack_limit_gib: u64,
    /// Bound of the entries of one archive
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) unpack_limit_entries: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The socket [default: buildlet.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The coordinator's store, to be read instead of keeping one
    #[arg(long, value_name = "DIR")]
    pub(crate) farm_store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Address of the coordinator, host:port
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) coordinator: String,
    /// File with the join token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5936")]
    pub(crate) addr: std::net::SocketAddr,
    /// File with the token that callers must show; made at first start [default: token in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Serve whoever can connect, without any token
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) insecure_no_auth: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parsed = Cli::parse_from(["x", "join", "--coordinator", "h:1", "--token-file", "t", "--label", "a=b=c"]);
        let Mode::Join(join) = parsed.mode else { panic!("not join") };
        assert_eq!(join.common.labels, [("a".to_owned(), "b=c".to_owned())]);
    }
}
