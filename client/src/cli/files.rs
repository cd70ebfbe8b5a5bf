//! Files of instances, as they can be typed.

use super::values::permissions;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Make a directory of instances equal to a local tree, sending only what is missing there
#[derive(Args)]
#[command(after_help = "The tree is -C DIR, else the git checkout around the current directory, else $GOROOT.\n\
                        What .gitignore names is neither sent nor deleted there. A Go tree goes to `go`, and a\n\
                        bootstrap toolchain to `go1.4`: $GOROOT_BOOTSTRAP's, else the farm's own.\n\n\
                        Example:\n  mote push alice-linux-amd64-0")]
pub(crate) struct Push {
    /// The tree to push
    #[arg(long = "tree", short = 'C', value_name = "DIR")]
    pub(crate) tree: Option<PathBuf>,
    /// Where to, in the work directory [default: go for a Go tree, else the tree's base name]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<String>,
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// [default: the active group's]
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

/// Write one file
#[derive(Args)]
#[command(
    override_usage = "mote put [OPTIONS] [INSTANCE] SOURCE|- [DEST]",
    after_help = "DEST is in the work directory; if left out it is SOURCE's base name. The file is there whole or not\n\
                  at all.\n\n\
                  Example:\n  mote put -mode 755 alice-linux-amd64-0 build.sh"
)]
pub(crate) struct Put {
    /// Permission bits in octal [default: the local file's; 644 for stdin]
    #[arg(long, value_name = "OCTAL", value_parser = permissions)]
    pub(crate) mode: Option<u32>,
    #[arg(value_name = "[INSTANCE] SOURCE [DEST]", required = true, num_args = 1..=3)]
    pub(crate) words: Vec<String>,
}

/// Unpack an archive: a tar, plain or compressed with gzip or zstd
#[derive(Args)]
#[command(
    override_usage = "mote puttar [OPTIONS] [INSTANCE] [SOURCE]",
    after_help = "SOURCE is a file, - for stdin, an http(s) address which the farm fetches if its operator allows that,\n\
                  or the hash of a commit of Go (7 to 40 hex digits). An instance alone means stdin.\n\n\
                  Example:\n  tar -C $GOPATH/src -zc golang.org/x/sys | mote puttar -dir=gopath/src alice-linux-amd64-0"
)]
pub(crate) struct Puttar {
    /// Where to, in the work directory [default: the work directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<String>,
    #[arg(value_name = "[INSTANCE] [SOURCE]", num_args = 0..=2)]
    pub(crate) words: Vec<String>,
}

/// Put the farm's bootstrap toolchain for the host type at go1.4
#[derive(Args)]
#[command(after_help = "Example:\n  mote putbootstrap alice-linux-amd64-0")]
pub(crate) struct Putbootstrap {
    /// [default: the active group's]
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

/// Fetch one file
#[derive(Args)]
#[command(
    override_usage = "mote get [OPTIONS] [INSTANCE] SOURCE [DEST|-]",
    after_help = "DEST is a file or a directory here, or - for stdout; if left out it is SOURCE's base name. From\n\
                  several instances it is INSTANCE.BASENAME for each, in the directory DEST.\n\n\
                  Example:\n  mote get alice-linux-amd64-0 go/bin/go"
)]
pub(crate) struct Get {
    #[arg(value_name = "[INSTANCE] SOURCE [DEST]", required = true, num_args = 1..=3)]
    pub(crate) words: Vec<String>,
}

/// Fetch a directory as an archive
#[derive(Args)]
#[command(after_help = "Example:\n  mote gettar -dir go/bin alice-linux-amd64-0")]
pub(crate) struct Gettar {
    /// Which directory [default: the whole work directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<String>,
    /// Where to; - is stdout [default: INSTANCE.tar.gz (.tar.zst, .tar) in the current directory]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Compress with zstd: smaller and many times faster than gzip
    #[arg(long, conflicts_with = "plain")]
    pub(crate) zstd: bool,
    /// Do not compress
    #[arg(long)]
    pub(crate) plain: bool,
    /// [default: the active group's]
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

/// List a directory: mode, name, size, time and digest, separated by tabs
#[derive(Args)]
#[command(
    override_usage = "mote ls [OPTIONS] [INSTANCE] [DIR]",
    after_help = "Example:\n  mote ls -R -skip go/pkg,go/bin alice-linux-amd64-0 go"
)]
pub(crate) struct Ls {
    /// All that lies below too
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
    /// With the SHA-1 of each file, as gomote compares them
    #[arg(long, short)]
    pub(crate) digest: bool,
    /// With the SHA-256 of each file, as the farm's store knows it
    #[arg(long, conflicts_with = "digest")]
    pub(crate) sha256: bool,
    /// Leave these directories out: relative to DIR, comma-separated
    #[arg(long, value_name = "LIST")]
    pub(crate) skip: Option<String>,
    #[arg(value_name = "[INSTANCE] [DIR]", num_args = 0..=2)]
    pub(crate) words: Vec<String>,
}

/// Remove files and directories
#[derive(Args)]
#[command(
    override_usage = "mote rm [OPTIONS] [INSTANCE] PATH...",
    after_help = "PATH is in the work directory; . is all that is in it. What is not there is no error.\n\n\
                  Example:\n  mote rm alice-linux-amd64-0 go/pkg"
)]
pub(crate) struct Rm {
    #[arg(value_name = "[INSTANCE] PATH", required = true)]
    pub(crate) words: Vec<String>,
}

/// Keep the files of an instance, to make others that start with them
#[derive(Args)]
#[command(
    after_help = "Example:\n  mote snapshot create alice-linux-amd64-0 built\n  mote create -from built linux-amd64"
)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    pub(crate) verb: SnapshotVerb,
}

#[derive(Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Keep a directory of an instance under a name
    #[command(override_usage = "mote snapshot create [OPTIONS] [INSTANCE] NAME")]
    Create {
        /// Which directory [default: the whole work directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<String>,
        #[arg(value_name = "[INSTANCE] NAME", required = true, num_args = 1..=2)]
        words: Vec<String>,
    },
    /// List your snapshots
    List,
    /// Forget snapshots; instances made from them stay
    Remove {
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}
