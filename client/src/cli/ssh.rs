//! Shells on instances, as they can be typed.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// Open a shell on an instance, or run a command there, by the system's ssh
#[derive(Args)]
#[command(
    override_usage = "mote ssh [OPTIONS] [INSTANCE] [COMMAND]...",
    after_help = "The first call makes a key of your own in the config folder (ssh/id_ed25519). The farm signs it for\n\
                  the one instance and a few minutes; a connection that stands goes on. It starts in the work\n\
                  directory. Unlike `run`, what runs ends when the connection does, and the exit code is ssh's.\n\n\
                  Example:\n  mote ssh alice-linux-amd64-0"
)]
pub(crate) struct Ssh {
    /// Have this public key signed instead; its private one is beside it or in the agent
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Forward a local port to a place as seen from the instance (repeatable)
    #[arg(long = "local-forward", short = 'L', value_name = "PORT:HOST:PORT")]
    pub(crate) local: Vec<String>,
    /// Forward a loopback port of the instance's machine to a place as seen from here (repeatable)
    #[arg(long = "remote-forward", short = 'R', value_name = "PORT:HOST:PORT")]
    pub(crate) remote: Vec<String>,
    /// A local SOCKS port that leads wherever the instance reaches (repeatable)
    #[arg(long = "dynamic-forward", short = 'D', value_name = "PORT")]
    pub(crate) dynamic: Vec<String>,
    /// No command: forwards only
    #[arg(long, short = 'N')]
    pub(crate) no_command: bool,
    /// A terminal for a command too
    #[arg(long, short = 't')]
    pub(crate) terminal: bool,
    /// An option of ssh, as in its configuration file (repeatable)
    #[arg(long = "option", short = 'o', value_name = "NAME=VALUE")]
    pub(crate) options: Vec<String>,
    /// A connection of its own instead of one that may stand already
    #[arg(long)]
    pub(crate) no_reuse: bool,
    /// Where, and what to run; without a command, a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "[INSTANCE] COMMAND [ARGS]")]
    pub(crate) words: Vec<OsString>,
}

/// Make `ssh INSTANCE.mote` work, and with it scp, sftp, rsync, git and editors
#[derive(Args)]
#[command(
    after_help = "Writes a file with a block for each of your instances and has your ssh configuration include it.\n\
                        From then on `create` and `destroy` keep it. ssh renews the certificate by calling mote, without\n\
                        a word to the farm while there is a good one.\n\n\
                        Example:\n  mote ssh-config && scp -r src $MOTE.mote:"
)]
pub(crate) struct SshConfig {
    /// The configuration that is to include it [default: ~/.ssh/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) user_config: Option<PathBuf>,
}

/// Get a certificate for an instance; what ssh calls where `ssh-config` was used
#[derive(Args)]
#[command(after_help = "Example:\n  mote ssh-cert --if-stale alice-linux-amd64-0")]
pub(crate) struct SshCert {
    /// Do nothing while the one there is good for another minute
    #[arg(long)]
    pub(crate) if_stale: bool,
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: String,
}
