//! Starting executions, at most once each, and following them to their ends.

use super::Agent;
use crate::environment;
use crate::error::AgentError;
use crate::exec_dir::{ExecDir, Standing};
use crate::instance::Instance;
use crate::keeper_client::bind_only;
use crate::layout::exec::CONTROL;
use crate::supervisor_client;
use crate::wakeups::Of;
use motefarm_core::{Clock as _, ExecId, SystemClock, Timestamp};
use motefarm_proto::mote::supervisor_request::Request;
use motefarm_proto::mote::{self, SupervisorRelease, SupervisorSpec};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

/// Executions of one instance, ended ones included.
const MOST_EXECS: u64 = 65_536;
/// The largest spool anybody gets.
const MOST_SPOOL_BYTES: u64 = 64 << 30;
/// The least: less could not hold one good read of a pipe.
const LEAST_SPOOL_BYTES: u64 = 64 << 10;
/// Acknowledgements closer together than this are forwarded as one.
const ACK_PAUSE: Duration = Duration::from_millis(10);
/// Between attempts to take up an execution whose keeper gives trouble.
const RETRY: Duration = Duration::from_secs(2);

/// Attempts to hand an execution to a keeper that dies meanwhile.
const MOST_TRIES: u32 = 5;

/// Why an execution was not handed over.
enum Handing {
    /// By the keeper, or for want of one.
    Refused(io::Error),
    Agent(AgentError),
}

impl From<io::Error> for Handing {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<AgentError> for Handing {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
}

impl Agent {
    /// Takes up the executions of an instance that was here before this process.
    pub(super) async fn take_up(self: &Arc<Self>, instance: &Arc<Instance>) -> Result<(), AgentError> {
        let stocked = instance.clone();
        let open = tokio::task::spawn_blocking(move || stocked.take_stock())
            .await
            .map_err(|e| AgentError::Unavailable(e.to_string()))??;
        for (id, standing) in open {
            match standing {
                Standing::Running => self.note_running(instance, id),
                // Written down, then the buildlet died: the one who asked may come back for it.
                _ => {
                    let (agent, instance) = (self.clone(), instance.clone());
                    tokio::spawn(async move { agent.start_waiting(&instance, id).await });
                }
            }
        }
        Ok(())
    }

    async fn start_waiting(self: &Arc<Self>, instance: &Arc<Instance>, id: ExecId) {
        loop {
            let started = async {
                let _starting = instance.starting(id).lock_owned().await;
                let _life = instance.life.read().await;
                instance.check_alive()?;
                let exec = instance.exec(id)?;
                self.start_exec(instance, id, &exec).await
            };
            match started.await {
                Ok(()) | Err(AgentError::Ending(_) | AgentError::NoExec { .. }) => return,
                Err(error) => tracing::warn!(instance.id = %instance.id, exec.id = %id, %error, "an execution waits"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes sure that the execution exists and was started with this command. Repeats start
    /// nothing. Finishes once begun only if the caller spawns it.
    pub(crate) async fn ensure_started(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        id: ExecId,
        spec: mote::ExecSpec,
    ) -> Result<(), AgentError> {
        let _starting = instance.starting(id).lock_owned().await;
        let _life = instance.life.read().await;
        instance.check_alive()?;
        let exec = match instance.find_exec(id)? {
            Some(exec) => {
                if exec.spec()?.spec.as_ref() != Some(&spec) {
                    return Err(AgentError::OtherCommand(id));
                }
                match exec.standing()? {
                    Standing::Waiting => exec,
                    Standing::Running | Standing::Ended(_) => return Ok(()),
                }
            }
            None => {
                if instance.exec_count() >= MOST_EXECS {
                    return Err(AgentError::Exhausted(format!("instance {} has {MOST_EXECS} executions", instance.id)));
                }
                instance.create_exec(id, &self.resolve(instance, spec)?)?
            }
        };
        self.start_exec(instance, id, &exec).await
    }

    fn resolve(&self, instance: &Instance, spec: mote::ExecSpec) -> Result<SupervisorSpec, AgentError> {
        let (env, work_dir) = environment::of(&self.sandbox, instance, &spec)?;
        let asked = if spec.spool_limit_bytes == 0 { self.settings.spool_limit_bytes } else { spec.spool_limit_bytes };
        let spool_limit_bytes = asked.clamp(LEAST_SPOOL_BYTES, MOST_SPOOL_BYTES);
        Ok(SupervisorSpec { spec: Some(spec), env, work_dir, spool_limit_bytes })
    }

    /// Hands a written-down execution to the keeper. The caller holds its `starting` lock.
    async fn start_exec(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        id: ExecId,
        exec: &ExecDir,
    ) -> Result<(), AgentError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_start_exec(instance, id, exec).await {
                Err(Handing::Refused(error)) if tries < MOST_TRIES && is_cut(&error) => {
                    // The keeper died with our request in its queue: the next one gets it.
                    tracing::info!(exec.id = %id, %error, "the keeper went away; trying again");
                }
                Err(Handing::Refused(error)) => {
                    let text = format!("execution {id} could not be handed to its keeper: {error}");
                    return Err(AgentError::Unavailable(text));
                }
                Err(Handing::Agent(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn try_start_exec(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        id: ExecId,
        exec: &ExecDir,
    ) -> Result<(), Handing> {
        // A request by an earlier buildlet may still be in the keeper's queue, with a control socket
        // that the next lines would cut off. Requests are served in order.
        if exec.path().join(CONTROL).exists() {
            instance.keeper(&self.sandbox, &self.program).await?.ping().await?;
            match exec.standing()? {
                Standing::Waiting => {}
                Standing::Running => {
                    self.note_running(instance, id);
                    return Ok(());
                }
                Standing::Ended(_) => return Ok(()),
            }
        }
        let connection = instance.keeper(&self.sandbox, &self.program).await?;
        let control = bind_only(&exec.path().join(CONTROL))
            .map_err(AgentError::io(format!("can not make the control socket of execution {id}")))?;
        connection.start_exec(id, exec.fd(), control.as_fd()).await?;
        self.note_running(instance, id);
        Ok(())
    }

    fn note_running(self: &Arc<Self>, instance: &Arc<Instance>, id: ExecId) {
        if instance.note_running(id) {
            self.changed();
            let (agent, instance) = (self.clone(), instance.clone());
            tokio::spawn(async move { agent.follow(&instance, id).await });
        }
    }

    /// Waits for the end of an execution and notes it.
    async fn follow(self: &Arc<Self>, instance: &Arc<Instance>, id: ExecId) {
        let ended_at = loop {
            match self.await_end(instance, id).await {
                Ok(outcome) => break Timestamp::from_millis(outcome.ended_at_ms),
                // Its instance ended, and with it the directory.
                Err(AgentError::NoExec { .. }) => break SystemClock.now(),
                Err(error) => {
                    tracing::error!(instance.id = %instance.id, exec.id = %id, %error, "an execution can not be followed")
                }
            }
            tokio::time::sleep(RETRY).await;
        };
        instance.note_ended(id, ended_at);
        self.changed();
    }

    async fn await_end(&self, instance: &Instance, id: ExecId) -> Result<mote::ExecOutcome, AgentError> {
        let exec = instance.exec(id)?;
        let mut watch = self
            .wakeups
            .watch(exec.path(), Of::End)
            .map_err(AgentError::io(format!("can not watch {}", exec.path().display())))?;
        loop {
            watch.before_looking();
            // An instance's end kills the supervisor, which closes the claim, which wakes us. What
            // it was about goes with the instance.
            if instance.is_ending() {
                return Err(AgentError::NoExec { instance: instance.id, exec: id });
            }
            if let Standing::Ended(outcome) = exec.standing()? {
                return Ok(*outcome);
            }
            watch.changed().await;
        }
    }

    /// Tells the supervisor, soon and not too often, what need not be kept.
    pub(crate) fn acknowledge(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        id: ExecId,
        offset: u64,
    ) -> Result<(), AgentError> {
        let exec = instance.exec(id)?;
        if !instance.acknowledge(id, offset) {
            return Ok(());
        }
        let instance = instance.clone();
        tokio::spawn(async move {
            let mut forwarded = 0;
            while let Some(offset) = instance.to_forward(id, forwarded) {
                let release = Request::Release(SupervisorRelease { offset });
                if let Err(error) = supervisor_client::ask(exec.path(), release).await {
                    tracing::warn!(exec.id = %id, %error, "an acknowledgement could not be passed on");
                }
                forwarded = offset;
                tokio::time::sleep(ACK_PAUSE).await;
            }
        });
        Ok(())
    }
}
