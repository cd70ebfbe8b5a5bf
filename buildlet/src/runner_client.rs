//! The buildlet's side of a runner: starting one, having it run an action, and ending it with what it
//! runs.

use crate::keeper_client::bounded;
use crate::{runner, wire};
use motefarm_proto::mote::runner_request::Request;
use motefarm_proto::mote::{RunnerPart, RunnerReply, RunnerRequest, RunnerRun, RunnerSetup};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::Child;

/// For a runner to set itself up.
const SETUP_PATIENCE: Duration = Duration::from_secs(20);
/// Beyond an action's own time, for all that is not its command.
const RUN_SLACK: Duration = Duration::from_secs(60);
/// For its death after its connection ended; it may have a whole tree of processes to kill.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// A runner that is set up. Dropping it ends it, and what it runs, behind.
pub(crate) struct Runner {
    connection: UnixStream,
    process: Child,
    /// Entries of an action's root that its sandbox can show.
    pub(crate) offered: Vec<RunnerPart>,
    /// Whether it can lay an input over them.
    pub(crate) merges: bool,
}

impl Runner {
    /// Starts one. An error of the setup is what this machine does not allow.
    pub(crate) async fn start(program: &Path, setup: RunnerSetup) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = std::process::Command::new(program);
        command
            .arg(runner::ROLE)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .process_group(0);
        let process = tokio::process::Command::from(command).spawn()?;
        let mut started = Self { connection: UnixStream::from_std(ours)?, process, offered: Vec::new(), merges: false };
        let reply = bounded(SETUP_PATIENCE, started.ask(Request::Setup(setup))).await?;
        (started.offered, started.merges) = (reply.offered, reply.merges);
        Ok(started)
    }

    /// Runs an action to its end. An error says that nothing was run, or that this runner was lost.
    pub(crate) async fn run(&mut self, run: RunnerRun) -> io::Result<RunnerReply> {
        let patience = Duration::from_millis(run.timeout_ms).saturating_add(RUN_SLACK);
        bounded(patience, self.ask(Request::Run(run))).await
    }

    async fn ask(&mut self, request: Request) -> io::Result<RunnerReply> {
        let request = RunnerRequest { request: Some(request) };
        let reply: RunnerReply = wire::ask(&mut self.connection, &request, &[]).await?;
        if reply.error.is_empty() { Ok(reply) } else { Err(io::Error::other(reply.error)) }
    }

    /// Ends it; when this is over, nothing it ran is left.
    pub(crate) async fn end(self) {
        let Self { connection, mut process, .. } = self;
        drop(connection);
        if tokio::time::timeout(END_PATIENCE, process.wait()).await.is_err() {
            tracing::warn!("a runner does not end; it is killed");
            if let Err(error) = process.kill().await {
                tracing::error!(%error, "a runner can not be killed");
            }
        }
    }
}
