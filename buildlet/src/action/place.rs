//! An action's directory.

use super::error::ActionError;
use crate::agent::Agent;
use crate::runner::names;
use motefarm_cas::beneath::{DIRECTORY, mode_of};
use motefarm_proto::mote::RunnerPart;
use rustix::fs::{Mode, fstat, mkdirat, openat};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// Used for one action after the other (see [`super::places`]); moved aside when it is dropped, and removed
/// behind.
pub(super) struct Place {
    agent: Arc<Agent>,
    /// In the directory of actions.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The directory itself.
    pub(super) dir: OwnedFd,
    /// What is to be the command's `/`.
    pub(super) root: OwnedFd,
    /// The root's mode at first.
    pub(super) root_mode: u32,
    /// Entries of the root that are the system's, from the action before.
    pub(super) furniture: Vec<RunnerPart>,
}

impl Place {
    pub(super) fn make(agent: &Arc<Agent>) -> Result<Self, ActionError> {
        let name = Uuid::new_v4().simple().to_string();
        let path = agent.data.actions().join(&name);
        let failed = || ActionError::io(format!("can not make {}", path.display()));
        std::fs::create_dir(&path).map_err(failed())?;
        let made = || -> rustix::io::Result<(OwnedFd, OwnedFd, u32)> {
            let dir = rustix::fs::open(&path, DIRECTORY, Mode::empty())?;
            mkdirat(&dir, names::TMP, Mode::from_raw_mode(0o755))?;
            mkdirat(&dir, names::ROOT, Mode::from_raw_mode(0o755))?;
            let root = openat(&dir, names::ROOT, DIRECTORY, Mode::empty())?;
            let root_mode = mode_of(&fstat(&root)?);
            Ok((dir, root, root_mode))
        };
        match made() {
            Ok((dir, root, root_mode)) => {
                Ok(Self { agent: agent.clone(), name, path, dir, root, root_mode, furniture: Vec::new() })
            }
            Err(errno) => {
                let _ = agent.set_action_aside(&path);
                Err(failed()(errno.into()))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.agent.set_action_aside(&self.path) {
            tracing::warn!(%error, "an action's directory stays until the next start");
        }
    }
}
