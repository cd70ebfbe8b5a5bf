//! The command line of `mote-bridge`: declarations only.

use crate::client_env::Shell;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Lets unmodified Goma clients compile on any server of the Remote Execution API.
#[derive(Debug, Parser)]
#[command(name = "mote-bridge", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the bridge's program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve Goma clients.
    ///
    /// Example: mote-bridge serve   # on this machine's farm
    ///
    /// Example: mote-bridge serve --backend grpc://build.example:8980 --instance main --platform OSFamily=linux
    Serve(Setup),
    /// Say what would be used, and what is wrong with it. Opens no port. Exits 64 if something is wrong.
    CheckConfig(Setup),
    /// Stand in for Goma's http_proxy: take a client's calls on loopback and pass them on to a server anywhere.
    ///
    /// Called under the name http_proxy, this program does just that.
    ///
    /// Example: mote-bridge relay --server-host build.example:5050
    Relay(Relay),
    /// Print what a Goma client's environment must hold to use this bridge.
    ///
    /// Example: eval "$(mote-bridge env)"
    Env(Env),
    /// Look for what stands between a Goma client and its server: in this environment, on this machine, and by
    /// compiling as the client would. Exits 1 if something is wrong.
    ///
    /// Example: mote-bridge doctor
    Doctor(Doctor),
    /// Bring a directory's files to a bridge that runs, so that the first build finds them there.
    ///
    /// Example: mote-bridge seed ~/src/project
    Seed(Seed),
    /// Say what became of a compile, by the id in its error message or by the client's own.
    ///
    /// Example: mote-bridge explain 3f9c01d2ab44
    Explain(Explain),
}

/// Where things are.
#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "MOTE_BRIDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The REAPI server: grpc://HOST:PORT, grpcs://HOST:PORT or unix:/PATH [default: a farm].
    #[arg(long, value_name = "URL", env = "MOTE_BRIDGE_BACKEND")]
    pub backend: Option<String>,
    /// The farm that does the work where no --backend is named [default: MOTE_FARM, else this machine's].
    #[arg(long, value_name = "NAME")]
    pub farm: Option<String>,
    /// The farm's profile, as a file.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Its instance name, verbatim [default: empty].
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// A platform property that every action asks for; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub platform: Vec<(String, String)>,
    /// Address to listen on; port 0 picks one [default: 127.0.0.1:5050].
    #[arg(long, value_name = "ADDR", env = "MOTE_BRIDGE_LISTEN")]
    pub listen: Option<String>,
    /// Where the hash map and keys are kept [default: ${XDG_DATA_HOME:-~/.local/share}/mote-bridge].
    #[arg(long, value_name = "DIR", env = "MOTE_BRIDGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Give clients tokens by way of this LUCI_CONTEXT file, which is written; they start faster and try again more.
    #[arg(long, value_name = "FILE")]
    pub local_auth: Option<PathBuf>,
}

/// `relay`. One dash does, as for Go's flags.
#[derive(Debug, Clone, Args)]
pub struct Relay {
    /// The server, as goma_ctl.py says it: HOST, HOST:PORT or a URL.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server_host: Option<String>,
    /// The server, where goma_ctl.py has cut off its port: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, value_name = "URL", env = "MOTE_BRIDGE_UPSTREAM")]
    pub upstream: Option<String>,
    /// Port of 127.0.0.1 to listen on; 0 picks one [default: 19080].
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Configuration file (TOML); its relay table counts.
    #[arg(long, value_name = "FILE", env = "MOTE_BRIDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The CA that vouches for the server [default: what the system trusts].
    #[arg(long, value_name = "FILE", env = "MOTE_BRIDGE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// File with the token that the server is shown for your own calls.
    #[arg(long, value_name = "FILE", env = "MOTE_BRIDGE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Give clients tokens by way of this LUCI_CONTEXT file, which is written.
    #[arg(long, value_name = "FILE")]
    pub local_auth: Option<PathBuf>,
    /// Speak TLS where cleartext was said, or the other way round, if the server does.
    #[arg(long)]
    pub switch_scheme: bool,
}

impl Setup {
    /// As it is with no word on the command line.
    pub fn of_environment() -> anyhow::Result<Self> {
        match Cli::try_parse_from(["mote-bridge", "check-config"])?.command {
            Command::CheckConfig(setup) => Ok(setup),
            other => anyhow::bail!("check-config was read as {other:?}"),
        }
    }
}

/// `env`.
#[derive(Debug, Clone, Args)]
pub struct Env {
    /// Whose words.
    #[arg(long, value_enum, default_value_t = Shell::Bash)]
    pub shell: Shell,
    /// Where the bridge is.
    #[arg(long, value_name = "HOST:PORT", default_value = crate::config::DEFAULT_LISTEN)]
    pub bridge: String,
    /// File with the value of the client's `Authorization` header, if the bridge wants a token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The file that `relay --local-auth` or `serve --local-auth` wrote, from which the client gets tokens.
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    pub local_auth: Option<PathBuf>,
    /// Have the client ask the bridge where it is (GOMA_SETTINGS_SERVER), at this path.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "/settings")]
    pub settings: Option<String>,
    /// Fail where the remote compile fails, instead of compiling locally: for trying out.
    #[arg(long)]
    pub strict: bool,
}

/// `seed`.
#[derive(Debug, Clone, Args)]
pub struct Seed {
    /// What to bring: a source tree, a sysroot, /usr/include.
    pub dir: PathBuf,
    /// How to reach the bridge.
    #[command(flatten)]
    pub way: Way,
}

/// The way to a bridge that runs.
#[derive(Debug, Clone, Args)]
pub struct Way {
    /// Where it is.
    #[arg(long, value_name = "HOST:PORT", default_value = crate::config::DEFAULT_LISTEN)]
    pub bridge: String,
    /// File with the value of the `Authorization` header, if it wants a token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// `doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// As JSON: a list of what was found, each with an id that stays.
    #[arg(long)]
    pub json: bool,
    /// The compiler to try [default: cc, gcc or clang on the PATH].
    #[arg(long, value_name = "FILE")]
    pub compiler: Option<PathBuf>,
    /// Longest wait for one answer to the compile.
    #[arg(long, value_name = "DURATION", default_value = "120s")]
    pub patience: humantime::Duration,
    /// Whose words the lines that mend something are in [default: by $SHELL].
    #[arg(long, value_enum)]
    pub shell: Option<Shell>,
}

/// `explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// The id in brackets of an error message, or part of the client's id of the compile.
    pub id: String,
    /// How to reach the bridge.
    #[command(flatten)]
    pub way: Way,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}
