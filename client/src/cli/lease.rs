//! Instances and groups of them, as they can be typed.

use super::values::{duration, truth};
use clap::{ArgAction, Args, Subcommand};
use std::time::Duration;

/// Lease instances and print their names; without a type, list the host types
#[derive(Args)]
#[command(after_help = "With GOMOTE_GROUP or MOTE_GROUP set the instances join that group, which is made if it is \
                        missing.\n\n\
                        Example:\n  MOTE=$(mote create linux-amd64)")]
pub(crate) struct Create {
    /// Host type, such as linux-amd64
    #[arg(value_name = "TYPE")]
    pub(crate) host_type: Option<String>,
    /// List the host types with free and total slots
    #[arg(long, conflicts_with = "host_type")]
    pub(crate) list: bool,
    /// How many, created at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// Push the Go tree (GOROOT, else the checkout around) to each and build it with make.bash
    #[arg(long)]
    pub(crate) setup: bool,
    /// Make this group and put the instances into it
    #[arg(long, value_name = "GROUP")]
    pub(crate) new_group: Option<String>,
    /// Say every 5 s what is waited for; -status=false does not [default: true]
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = truth)]
    pub(crate) status: bool,
    /// End the lease after this long without use, if shorter than the farm's own (such as 10m)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Start with the files of this snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) from: Option<String>,
}

/// List your instances and when they expire: name (and groups), type, machine, time left
#[derive(Args)]
#[command(after_help = "Columns are separated by tabs.\n\nExample:\n  mote list")]
pub(crate) struct List {
    /// Those of all users (admins only)
    #[arg(long)]
    pub(crate) all: bool,
    /// A table with state and running commands
    #[arg(long, short)]
    pub(crate) long: bool,
}

/// Reach instances' machines and renew their leases; exit code 1 if one does not answer
#[derive(Args)]
#[command(after_help = "Example:\n  mote ping alice-linux-amd64-0")]
pub(crate) struct Ping {
    /// [default: the active group's]
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

/// Renew leases without reaching the instances' machines
#[derive(Args)]
#[command(after_help = "Example:\n  mote renew alice-linux-amd64-0")]
pub(crate) struct Renew {
    /// [default: the active group's]
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

/// End instances with all that runs there, and wipe them
#[derive(Args)]
#[command(after_help = "Example:\n  mote destroy alice-linux-amd64-0")]
pub(crate) struct Destroy {
    /// End the active group too
    #[arg(long)]
    pub(crate) destroy_group: bool,
    /// All instances you have
    #[arg(long, conflicts_with_all = ["instances", "destroy_group"])]
    pub(crate) all: bool,
    /// [default: the active group's]
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

/// Manage named sets of instances
#[derive(Args)]
#[command(after_help = "Groups are kept by the farm: they are the same from every machine you use. An instance that\n\
                        ends leaves its groups.\n\n\
                        Example:\n  mote group create debug\n  mote -group debug group add alice-linux-amd64-0")]
pub(crate) struct Group {
    #[command(subcommand)]
    pub(crate) verb: GroupVerb,
}

#[derive(Subcommand)]
pub(crate) enum GroupVerb {
    /// Make an empty group
    Create {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// End a group, but not its instances
    Destroy {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Put instances into the active group
    Add {
        #[arg(value_name = "INSTANCE", required = true)]
        instances: Vec<String>,
    },
    /// Take instances out of the active group
    Remove {
        #[arg(value_name = "INSTANCE", required = true)]
        instances: Vec<String>,
    },
    /// List the groups and their instances
    List,
}
