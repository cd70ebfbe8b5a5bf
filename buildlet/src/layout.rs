//! The names on disk. ARCHITECTURE.md, "On disk", is their reference; nothing else spells them.

use std::path::{Path, PathBuf};

/// Files of one execution, relative to its directory.
pub(crate) mod exec {
    /// `SupervisorSpec`, there before anything is started.
    pub(crate) const SPEC: &str = "spec";
    /// Made once with link(2); locked while the supervisor lives.
    pub(crate) const CLAIM: &str = "claim";
    /// The supervisor's control socket.
    pub(crate) const CONTROL: &str = "ctl";
    /// Framed output.
    pub(crate) const SPOOL: &str = "spool";
    /// Sparse offsets into the spool.
    pub(crate) const INDEX: &str = "index";
    /// How much of the spool's beginning was let go: offset and position, 8 bytes little-endian each.
    pub(crate) const RELEASED: &str = "released";
    /// `ExecOutcome`, renamed into place once.
    pub(crate) const OUTCOME: &str = "outcome";
}

/// Entries of one instance, relative to its directory.
pub(crate) mod instance {
    /// `BuildletCreateInstanceRequest` as last known. Its modification time is the last use.
    pub(crate) const META: &str = "meta";
    /// When the instance was made, in milliseconds, as text.
    pub(crate) const BORN: &str = "born";
    /// The sandbox's /workdir.
    pub(crate) const WORK: &str = "work";
    /// The sandbox's /tmp.
    pub(crate) const TMP: &str = "tmp";
    /// The sandbox's /home/mote.
    pub(crate) const HOME: &str = "home";
    /// Files that are not whole yet. Made when it is needed, emptied when a buildlet starts.
    pub(crate) const STAGING: &str = "staging";
    /// The keeper's socket.
    pub(crate) const KEEPER: &str = "keeper.sock";
    /// What the keeper and bubblewrap had to say.
    pub(crate) const KEEPER_LOG: &str = "keeper.log";
    /// Stat indexes of pushed directories.
    pub(crate) const TREES: &str = "trees";
    /// One directory an execution.
    pub(crate) const EXECS: &str = "execs";
}

/// Where the sandbox shows things.
pub(crate) mod sandbox {
    /// The work directory.
    pub(crate) const WORK: &str = "/workdir";
    /// The private temporary directory.
    pub(crate) const TMP: &str = "/tmp";
    /// The home directory.
    pub(crate) const HOME: &str = "/home/mote";
    /// This program.
    pub(crate) const KEEPER: &str = "/run/mote/keeper";
}

/// A buildlet's data directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self(root)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn id(&self) -> PathBuf {
        self.0.join("id")
    }

    /// Locked by the one buildlet that uses the directory.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("buildlet.sock")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("cas")
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.0.join("instances")
    }

    /// One directory an action under way. With [`Self::actions_wiping`] in a directory of its own, which
    /// may be another file system, in memory for one.
    pub(crate) fn actions(&self) -> PathBuf {
        self.0.join("actions/places")
    }

    /// As [`Self::wiping`], for what actions leave.
    pub(crate) fn actions_wiping(&self) -> PathBuf {
        self.0.join("actions/wiping")
    }

    pub(crate) fn wiping(&self) -> PathBuf {
        self.0.join("wiping")
    }

    /// What the sandbox shows in place of the machine's files.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.0.join("sandbox")
    }
}
