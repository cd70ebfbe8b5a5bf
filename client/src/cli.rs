//! What can be typed. Declarations only: nothing here decides or acts.

mod access;
mod admin;
mod content;
mod exec;
mod files;
mod lease;
mod ssh;
mod values;

pub(crate) use access::{Auth, AuthVerb, Login, Logout, Share, Unshare, Whoami};
pub(crate) use admin::{Admin, Audit, Invite, JoinTerms, JoinToken, Token, User};
pub(crate) use content::{Cas, CasVerb, Reach, Reapi, ReapiExec, ReapiVerb};
pub(crate) use exec::{Attach, Cancel, Logs, Run};
pub(crate) use files::{Get, Gettar, Ls, Push, Put, Putbootstrap, Puttar, Rm, Snapshot, SnapshotVerb};
pub(crate) use lease::{Create, Destroy, Group, GroupVerb, List, Ping, Renew};
pub(crate) use ssh::{Ssh, SshCert, SshConfig};
pub(crate) use values::go_bool;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Heading of the flags that every verb has.
const EVERYWHERE: &str = "Options of every command";

/// Lease instances of a build farm, push trees to them, run commands there and collect what comes out.
#[derive(Parser)]
#[command(
    name = "mote",
    version,
    args_override_self = true,
    after_help = "A farm started on this machine by `mote-coordinator serve` is found without any flag.\n\
                  With an active group (-group, MOTE_GROUP, GOMOTE_GROUP) commands that are given no instance act\n\
                  on all its members. Flags may be written as -flag or --flag. `mote help exit-codes` lists the\n\
                  exit codes.\n\
                  An instance may also be TYPE@HOST[:PORT]: your own one on a buildlet that listens there\n\
                  (`mote-buildlet listen`), without a farm and without `create`; unused for 30 minutes it ends. From\n\
                  the buildlet's data directory --ca (MOTE_CA) takes tls/ca.pem and MOTE_TOKEN what the file token\n\
                  holds; or keep server, ca_pem and token in buildlets/HOST_PORT.toml in the config folder."
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
    /// Act on all members of this group when no instance is named [env: MOTE_GROUP, GOMOTE_GROUP]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME")]
    pub(crate) group: Option<String>,
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
    Renew(Renew),
    Destroy(Destroy),
    Group(Group),
    Push(Push),
    Put(Put),
    Puttar(Puttar),
    Putbootstrap(Putbootstrap),
    Get(Get),
    Gettar(Gettar),
    Ls(Ls),
    Rm(Rm),
    Snapshot(Snapshot),
    Run(Run),
    Attach(Attach),
    Logs(Logs),
    Cancel(Cancel),
    Share(Share),
    Unshare(Unshare),
    Login(Login),
    Logout(Logout),
    Whoami(Whoami),
    Auth(Auth),
    Ssh(Ssh),
    SshConfig(SshConfig),
    SshCert(SshCert),
    Cas(Cas),
    Reapi(Reapi),
    #[command(subcommand)]
    Admin(Admin),
    Completions(Completions),
    Man(Man),
}

impl Verb {
    /// Whether it is one action, whose exit code is passed on.
    pub(crate) const fn is_action(&self) -> bool {
        matches!(self, Self::Reapi(Reapi { verb: ReapiVerb::Exec(_) }))
    }
}

/// Print a script that completes mote's commands in a shell
#[derive(Args)]
#[command(after_help = "Example:\n  mote completions bash > ~/.local/share/bash-completion/completions/mote")]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page, or write one for each command into a folder
#[derive(Args)]
#[command(after_help = "Example:\n  mote man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Where to write mote.1, mote-run.1 and so on; made if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
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
        for verb in Cli::command().get_subcommands().filter(|verb| verb.get_name() != "admin") {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.split("Example:\n  ").nth(1);
            assert!(example.is_some_and(|e| e.contains("mote ")), "{} has no example", verb.get_name());
        }
    }
}
