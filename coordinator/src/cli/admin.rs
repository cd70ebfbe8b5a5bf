//! `mote-coordinator admin`: declarations only.

use super::Setup;
use clap::{Args, Subcommand};
use std::time::Duration;

/// `admin`.
#[derive(Debug, Args)]
pub struct Admin {
    /// Which farm.
    #[command(flatten)]
    pub setup: Setup,
    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What can be done to a farm's database.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Who may use the farm
    #[command(subcommand)]
    User(UserCommand),
    /// What users prove themselves with
    #[command(subcommand)]
    Token(TokenCommand),
    /// What machines join with
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
    /// Print the fingerprint of the farm's certificate authority, which `mote login` asks about
    Fingerprint,
}

/// `admin user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user
    Add {
        /// Who.
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
        /// Who.
        #[arg(value_name = "USER")]
        user: String,
    },
}

/// `admin token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, alone; it is shown this once
    Create {
        /// Whose it is to be
        #[arg(long, value_name = "USER")]
        user: String,
        /// What to call it, unique among the user's
        #[arg(long, default_value = "default")]
        name: String,
        /// End it after this long, such as 90d [default: never]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// List the tokens (not their secrets)
    List {
        /// Of this user only
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Make a token worthless
    Revoke {
        /// Whose it is
        #[arg(long, value_name = "USER")]
        user: String,
        /// What it is called
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}

/// `admin join-token`.
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Make a join token and print it, alone; it is shown this once
    Create {
        /// The type instances on that machine are leased by
        #[arg(long, value_name = "TYPE")]
        host_type: String,
        /// How long machines may join with it [default: 24h]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        /// Good for one machine only
        #[arg(long)]
        one_time: bool,
    },
    /// List the join tokens (not their secrets)
    List,
    /// Make a join token worthless; the contact to machines that joined with it is cut
    Revoke {
        /// Its public part
        #[arg(value_name = "ID")]
        id: String,
    },
}
