//! The runners of this buildlet: one for each slot that was ever used, kept for the next action.

use crate::layout::DataDir;
use crate::program::Program;
use crate::runner_client::Runner;
use bytes::Bytes;
use motefarm_proto::mote::RunnerSetup;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What keeps actions apart on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActionSandbox {
    /// An action's input can be laid over the system's files.
    pub(crate) merges: bool,
}

/// See the module.
pub(crate) struct Runners {
    setup: RunnerSetup,
    /// Those that run nothing.
    idle: Mutex<Vec<Runner>>,
}

impl Runners {
    /// With a sandbox if this machine allows one, which is found out by making one; otherwise also the
    /// reason. `None`: it is not to be tried, for this reason.
    pub(crate) async fn probe(
        data: &DataDir,
        program: &Program,
        show: &[PathBuf],
        without: Option<String>,
    ) -> io::Result<(Self, Result<ActionSandbox, String>)> {
        let bytes = |path: &Path| Bytes::copy_from_slice(path.as_os_str().as_bytes());
        std::fs::create_dir_all(data.actions())?;
        let mut setup = RunnerSetup {
            actions_dir: bytes(&data.actions()),
            sandbox: without.is_none(),
            show: show.iter().map(|path| bytes(path)).collect(),
            hide: bytes(data.root()),
        };
        let mut idle = Vec::new();
        let verdict = match without {
            Some(reason) => Err(reason),
            None => match Runner::start(&program.path()?, setup.clone()).await {
                Ok(runner) => {
                    let sandbox = ActionSandbox { merges: runner.merges };
                    idle.push(runner);
                    Ok(sandbox)
                }
                Err(error) => Err(error.to_string()),
            },
        };
        setup.sandbox = verdict.is_ok();
        Ok((Self { setup, idle: Mutex::new(idle) }, verdict))
    }

    /// One that runs nothing.
    pub(crate) async fn take(&self, program: &Program) -> io::Result<Runner> {
        if let Some(runner) = self.idle().pop() {
            return Ok(runner);
        }
        Runner::start(&program.path()?, self.setup.clone()).await
    }

    /// Gives one back that has answered.
    pub(crate) fn give_back(&self, runner: Runner) {
        self.idle().push(runner);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Runner>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
