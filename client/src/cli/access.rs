//! Signing in, and letting others in, as it can be typed.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Sign in to a farm and keep how to reach it in a profile
#[derive(Args)]
#[command(
    after_help = "The farm is named by --server. If its certificate is not one that this machine trusts anyway, the\n\
                        fingerprint of its own authority is shown; compare it with what the farm's admin sees\n\
                        (`mote-coordinator admin fingerprint`), or give it: --ca-fingerprint. The token comes from --token-file,\n\
                        from MOTE_TOKEN, from the farm's sign-in page if it has one, or is asked for; never from the command line.\n\n\
                        Example:\n  mote login --server farm.example:8119 --farm work"
)]
pub(crate) struct Login {
    /// The fingerprint of the farm's certificate authority (64 hex digits): nothing else is trusted
    #[arg(long, value_name = "SHA256", conflicts_with = "ca")]
    pub(crate) ca_fingerprint: Option<String>,
    /// Read the token from this file; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Ask for a token also if the farm has a sign-in page
    #[arg(long)]
    pub(crate) ask_token: bool,
}

/// Forget a farm's profile
#[derive(Args)]
#[command(after_help = "Example:\n  mote logout --farm work --revoke")]
pub(crate) struct Logout {
    /// Make its token worthless at the farm too
    #[arg(long)]
    pub(crate) revoke: bool,
}

/// Say who the farm takes you for
#[derive(Args)]
#[command(after_help = "Example:\n  mote whoami")]
pub(crate) struct Whoami {}

/// Show what you prove yourself with
#[derive(Args)]
#[command(
    after_help = "Example:\n  curl -H \"Authorization: Bearer $(mote auth token)\" https://farm.example:8119/healthz"
)]
pub(crate) struct Auth {
    #[command(subcommand)]
    pub(crate) verb: AuthVerb,
}

#[derive(Subcommand)]
pub(crate) enum AuthVerb {
    /// Print the token in use; it is a secret
    Token,
}

/// Let another user use an instance of yours
#[derive(Args)]
#[command(after_help = "They may do what you may, but not end or share it.\n\n\
                        Example:\n  mote share alice-linux-amd64-0 bob")]
pub(crate) struct Share {
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: String,
    #[arg(value_name = "USER")]
    pub(crate) user: String,
}

/// Take a share back; what the user has open there is cut
#[derive(Args)]
#[command(after_help = "Who an instance is shared with may leave by themselves.\n\n\
                        Example:\n  mote unshare alice-linux-amd64-0 bob")]
pub(crate) struct Unshare {
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: String,
    #[arg(value_name = "USER")]
    pub(crate) user: String,
}
