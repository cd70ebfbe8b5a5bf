//! The content store and its Remote Execution API, as they can be typed.

use super::values::size;
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
}

#[derive(Args)]
pub(crate) struct Reach {
    /// TLS and a token also where the farm answers its own user without
    #[arg(long)]
    pub(crate) tls: bool,
}
