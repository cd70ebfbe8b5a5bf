//! `mote admin` as it can be typed.

use super::values::duration;
use clap::{Args, Subcommand};
use std::time::Duration;

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
    Audit(Audit),
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
        #[arg(long, visible_alias = "lifetime", value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
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
    /// Make a join token worthless at once; the contact to machines that joined with it is cut
    Revoke {
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Print the one line that makes another machine join the farm
#[derive(Args)]
#[command(after_help = "Paste it into a shell on that machine. It holds a secret.\n\n\
                        Examples:\n  mote admin invite -host-type linux-arm64\n  \
                        mote admin invite -go-agent -host-type darwin-arm64")]
pub(crate) struct Invite {
    #[command(flatten)]
    pub(crate) terms: JoinTerms,
    /// The farm's address as that machine sees it [default: as the farm knows itself]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) coordinator: Option<String>,
    /// For a machine that is to run Go's agent (golang.org/x/build/cmd/buildlet) instead of ours
    #[arg(long)]
    pub(crate) go_agent: bool,
}

#[derive(Args)]
pub(crate) struct JoinTerms {
    /// The type instances on that machine are leased by
    #[arg(long, value_name = "TYPE")]
    pub(crate) host_type: String,
    /// How long machines may join with it [default: 24h]
    #[arg(long, visible_alias = "lifetime", value_name = "DURATION", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
    /// Good for one machine only
    #[arg(long)]
    pub(crate) one_time: bool,
}

/// Show who did what, oldest first
#[derive(Args)]
#[command(after_help = "Example:\n  mote admin audit -user alice -since 24h")]
pub(crate) struct Audit {
    /// By this user only
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// This only: create, destroy, run, share, sign-in, ...
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<String>,
    /// Not longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u64,
}
