//! The command line of `mote-coordinator`: declarations only.

mod admin;

pub use admin::{Admin, AdminCommand, JoinTokenCommand, TokenCommand, UserCommand};

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// The coordinator of a Motefarm: leases instances, proxies commands, keeps what was pushed.
#[derive(Debug, Parser)]
#[command(name = "mote-coordinator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the coordinator's program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the farm.
    Serve(Setup),
    /// Say what would be used, and what is wrong with it. Opens no port. Exits 64 if something is wrong.
    CheckConfig(Setup),
    /// Look after the content store. The coordinator must not be running.
    #[command(subcommand)]
    Cas(CasCommand),
    /// Look after users and tokens in the farm's own database: without a token, while the coordinator is
    /// stopped or while it runs. Whoever may write that file may do this.
    Admin(Admin),
    /// Look after the keys of the ssh gateway.
    #[command(subcommand)]
    Ssh(SshCommand),
}

/// What both need.
#[derive(Debug, Clone, clap::Args)]
pub struct Setup {
    /// Configuration file (TOML). Without one, a farm of this machine.
    #[arg(long, value_name = "FILE", env = "MOTE_COORDINATOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: ${XDG_DATA_HOME:-~/.local/share}/motefarm].
    #[arg(long, value_name = "DIR", env = "MOTE_COORDINATOR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to listen on; port 0 picks one [default: 127.0.0.1:8119].
    #[arg(long, value_name = "ADDR", env = "MOTE_COORDINATOR_LISTEN")]
    pub listen: Option<String>,
}

/// `cas`.
#[derive(Debug, Subcommand)]
pub enum CasCommand {
    /// Read every blob and check it against its digest. Exits 1 if one is wrong.
    Verify(Setup),
}

/// `ssh`.
#[derive(Debug, Subcommand)]
pub enum SshCommand {
    /// Replace the key that signs users' certificates. Certificates by the old one stay good for as long as they
    /// would have been. Takes effect at the coordinator's next start.
    RotateCa(Setup),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
