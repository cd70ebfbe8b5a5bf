//! A link to an unmodified Go agent (golang/build `cmd/buildlet`): its HTTP API, over connections it dials.
//!
//! One agent has one slot. It knows no instances, no executions and no trees, so all of that is kept here,
//! in memory and (output) in files: what an agent was doing ends with its control channel or with this
//! process. When its instance ends it is told to halt; its supervisor starts it anew.
//!
//! What it does was read in, and tried with, golang.org/x/build at c0ee0fbd16a3; `docs/go-agents.md` tells
//! users what differs.

mod answer;
mod archives;
mod blocking;
mod client;
mod command;
mod compare;
mod control;
mod dialer;
mod end;
mod events;
mod execution;
mod files;
mod held;
mod listing;
mod machine;
mod push;
mod sha1_cache;
mod spool;
mod tar_in;
mod tar_out;
mod wanted;

pub use dialer::Pickups;
pub use machine::Agent;
pub use sha1_cache::Sha1Cache;

use super::{Link, LinkError, LinkStream, Pieces};
use client::{Client, SHORT, encoded};
use dialer::Dialer;
use end::End;
use execution::NO_STDIN;
use futures_util::StreamExt as _;
use futures_util::stream;
use held::Held;
use motefarm_cas::batch::BatchStream;
use motefarm_cas::store::Store as Cas;
use motefarm_core::{Clock, ExecId, InstanceId, Timestamp};
use motefarm_net::dial::BoxStream;
use motefarm_proto::mote;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tonic::Status;

/// Dials announced and not yet written.
const PATHS_READY: usize = 16;
/// Time to empty a work directory.
const WIPE: Duration = Duration::from_secs(300);
/// The signal that ends a command for certain, the only one the agent can give.
const SIGKILL: i32 = 9;

/// What a link needs of the farm.
pub struct Surroundings {
    /// Where trees come from.
    pub cas: Cas,
    /// SHA-1 of blobs, as the agent compares files.
    pub sha1s: Arc<Sha1Cache>,
    /// On whose disk output is kept.
    pub data_dir: PathBuf,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where agents' connections are picked up.
    pub pickups: Arc<Pickups>,
}

/// See the module.
pub struct GoAgentLink {
    client: Arc<Client>,
    end: Arc<End>,
    description: mote::BuildletDescription,
    /// Whether files have modes there.
    has_modes: bool,
    by_connect: bool,
    around: Surroundings,
    reports: watch::Sender<mote::BuildletReport>,
    held: Mutex<Option<Arc<Held>>>,
    /// One at a time makes or ends an instance.
    turn: tokio::sync::Mutex<()>,
}

fn refused(status: Status) -> LinkError {
    LinkError::Refused(Box::new(status))
}

impl GoAgentLink {
    /// Takes over the control channel of an agent and asks what it is. The channel is kept until the
    /// contact ends.
    pub async fn begin(channel: BoxStream, agent: Agent, around: Surroundings) -> Result<Arc<Self>, LinkError> {
        let end = Arc::new(End::default());
        let (paths, announced) = mpsc::channel(PATHS_READY);
        let (ended, pickups) = (end.clone(), around.pickups.clone());
        tokio::spawn(async move {
            tokio::select! {
                why = control::run(channel, announced, pickups) => ended.because(&why),
                () = ended.wait() => {}
            }
        });
        let client = Arc::new(Client::new(Dialer::new(around.pickups.clone(), paths), end.clone()));
        match machine::describe(&client, &agent).await {
            Ok((description, has_modes)) => {
                tokio::spawn(machine::watch(client.clone(), end.clone()));
                Ok(Arc::new(Self {
                    client,
                    end,
                    description,
                    has_modes,
                    by_connect: agent.by_connect,
                    around,
                    reports: watch::Sender::default(),
                    held: Mutex::default(),
                    turn: tokio::sync::Mutex::default(),
                }))
            }
            Err(error) => {
                end.because(&error.to_string());
                Err(error)
            }
        }
    }

    /// Ends the contact, and with it all that runs. Answers what instance there was.
    pub fn end(&self, why: &str) -> Option<InstanceId> {
        self.end.because(why);
        self.lock().take().map(|held| held.id)
    }

    /// Why the contact ended, if it has.
    pub fn why_ended(&self) -> Option<String> {
        self.end.is_here().then(|| self.end.why())
    }

    /// Whether the agent answers now.
    pub async fn answers(&self) -> bool {
        machine::version(&self.client).await.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance, if it is the one this agent has.
    fn held(&self, id: &str) -> Result<Arc<Held>, LinkError> {
        if self.end.is_here() {
            return Err(LinkError::Lost(self.end.why()));
        }
        let held = self.lock().clone().filter(|held| held.id.to_string() == id);
        held.ok_or_else(|| refused(Status::not_found(format!("there is no instance {id} here"))))
    }

    fn report(&self) {
        let instances = self.lock().iter().map(|held| held.report()).collect();
        self.reports.send_replace(mote::BuildletReport { instances, free_disk_bytes: 0 });
    }

    /// Empties the work directory. The agent removes it as well, and does not start without it: being asked
    /// for a listing it makes it again.
    async fn wipe(&self) -> Result<(), LinkError> {
        let form = encoded([("path", &b"."[..])]);
        self.client.post("/removeall", form, WIPE).await?.text().await?;
        self.client.get("/ls?dir=", SHORT).await?.text().await.map(drop)
    }

    /// What commands get besides the agent's own environment, and before what their callers say.
    fn env(&self, held: &Held) -> Vec<String> {
        let (id, name) = (held.id, &held.name);
        let own =
            [format!("MOTE_INSTANCE={id}"), format!("MOTE_INSTANCE_NAME={name}"), "GO_BUILDLET_TOKEN=".to_owned()];
        let mut env = own.to_vec();
        if self.by_connect {
            // It names us, and we are no proxy for commands.
            env.extend(["HTTPS_PROXY=".to_owned(), "https_proxy=".to_owned()]);
        }
        env
    }
}

#[tonic::async_trait]
impl Link for Arc<GoAgentLink> {
    async fn describe(&self) -> Result<mote::BuildletDescription, LinkError> {
        machine::version(&self.client).await?;
        Ok(self.description.clone())
    }

    async fn watch(&self) -> Result<LinkStream<mote::BuildletReport>, LinkError> {
        let mut reports = self.reports.subscribe();
        reports.mark_changed();
        Ok(stream::unfold(Some((reports, self.end.clone())), |state| async {
            let (mut reports, end) = state?;
            tokio::select! {
                changed = reports.changed() => {
                    changed.ok()?;
                    let report = reports.borrow_and_update().clone();
                    Some((Ok(report), Some((reports, end))))
                }
                () = end.wait() => Some((Err(LinkError::Lost(end.why())), None)),
            }
        })
        .boxed())
    }

    async fn create_instance(&self, request: mote::BuildletCreateInstanceRequest) -> Result<String, LinkError> {
        let id: InstanceId = request
            .instance_id
            .parse()
            .map_err(|error| refused(Status::invalid_argument(format!("field instance_id: {error}"))))?;
        let _turn = self.turn.lock().await;
        let present = self.lock().as_ref().map(|held| held.id);
        if present.is_some_and(|present| present != id) {
            return Err(refused(Status::resource_exhausted("this Go agent has an instance, and has room for one")));
        }
        let work_dir = self.client.get("/workdir", SHORT).await?.text().await?;
        if present.is_none() {
            // A machine's work directory may hold what an agent before left there.
            self.wipe().await?;
            *self.lock() = Some(Arc::new(Held::new(id, request.name, self.around.clock.now())));
            self.report();
        }
        Ok(work_dir)
    }

    async fn end_instance(&self, id: InstanceId) -> Result<(), LinkError> {
        let _turn = self.turn.lock().await;
        let Some(held) = self.lock().clone().filter(|held| held.id == id) else { return Ok(()) };
        held.cancel_all();
        // Whatever fails: without its channel the agent ends, and what comes back is emptied first.
        if let Err(error) = self.wipe().await {
            tracing::info!(instance.id = %id, %error, "a Go agent's work directory could not be emptied");
        }
        if let Err(error) = self.client.post("/halt", String::new(), SHORT).await {
            tracing::info!(instance.id = %id, %error, "a Go agent could not be told to end");
        }
        self.lock().take();
        self.end.because("its instance has ended, and so does it");
        Ok(())
    }

    async fn set_leases(&self, _: Vec<(InstanceId, Timestamp)>) -> Result<(), LinkError> {
        // The agent ends nothing by itself, but ends itself when it is cut off.
        Ok(())
    }

    async fn execute(&self, request: mote::BuildletExecuteRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        let held = self.held(&request.instance_id)?;
        let id: ExecId = request
            .exec_id
            .parse()
            .map_err(|error| refused(Status::invalid_argument(format!("field exec_id: {error}"))))?;
        let (execution, is_new) =
            held.begin(id, request.spec.unwrap_or_default(), &self.around.data_dir, self.around.clock.now())?;
        if is_new {
            let (link, held, env) = (self.clone(), held.clone(), self.env(&held));
            let run = execution.clone().run(self.client.clone(), env, self.around.clock.clone());
            tokio::spawn(async move {
                link.report();
                run.await;
                held.used(link.around.clock.now());
                link.report();
            });
        }
        Ok(events::stream(execution, request.offset, true))
    }

    async fn attach(&self, request: mote::BuildletAttachExecRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        let execution = self.held(&request.instance_id)?.execution(&request.exec_id)?;
        Ok(events::stream(execution, request.offset, request.follow))
    }

    async fn list_execs(&self, id: InstanceId, only: &[ExecId]) -> Result<Vec<mote::ExecInfo>, LinkError> {
        Ok(self.held(&id.to_string())?.infos(only))
    }

    async fn ack_output(&self, id: InstanceId, exec: ExecId, offset: u64) -> Result<(), LinkError> {
        self.held(&id.to_string())?.execution(&exec.to_string())?.acknowledge(offset);
        Ok(())
    }

    async fn write_stdin(
        &self,
        request: mote::BuildletWriteStdinRequest,
    ) -> Result<mote::BuildletWriteStdinResponse, LinkError> {
        let execution = self.held(&request.instance_id)?.execution(&request.exec_id)?;
        match execution.feed(!request.data.is_empty(), request.eof) {
            true => Ok(mote::BuildletWriteStdinResponse { accepted: 0, closed: request.eof }),
            false => Err(refused(Status::unimplemented(NO_STDIN))),
        }
    }

    async fn signal(&self, id: InstanceId, exec: ExecId, signal: i32) -> Result<(), LinkError> {
        let execution = self.held(&id.to_string())?.execution(&exec.to_string())?;
        if signal != SIGKILL {
            let text = format!("a Go agent can not pass on signal {signal}, only kill; `mote cancel` ends a command");
            return Err(refused(Status::unimplemented(text)));
        }
        execution.kill();
        Ok(())
    }

    async fn cancel(&self, id: InstanceId, exec: ExecId, _: u64) -> Result<(), LinkError> {
        self.held(&id.to_string())?.execution(&exec.to_string())?.cancel();
        Ok(())
    }

    async fn upload(&self, _: BatchStream) -> Result<mote::UploadSummary, LinkError> {
        Err(refused(Status::failed_precondition("a Go agent has no store of its own")))
    }

    async fn sync_tree(&self, id: InstanceId, sync: mote::TreeSync) -> Result<mote::TreeSyncResult, LinkError> {
        let held = self.held(&id.to_string())?;
        let _turn = held.sync_turn.lock().await;
        push::sync_tree(self, sync).await
    }

    async fn get_tar(&self, request: mote::BuildletGetTarRequest) -> Result<LinkStream<mote::TarChunk>, LinkError> {
        self.held(&request.instance_id)?;
        archives::get(&self.client, &request.dir, request.compression()).await
    }

    async fn put_file(
        &self,
        target: mote::BuildletPutFileTarget,
        content: Pieces,
    ) -> Result<mote::PutFileResponse, LinkError> {
        self.held(&target.instance_id)?;
        files::put(&self.client, target.file.unwrap_or_default(), content).await
    }

    async fn put_tar(
        &self,
        target: mote::BuildletPutTarTarget,
        archive: Pieces,
    ) -> Result<mote::PutTarResponse, LinkError> {
        self.held(&target.instance_id)?;
        archives::put(&self.client, &target.tar.unwrap_or_default().dir, archive).await
    }

    async fn get_file(&self, request: mote::BuildletGetFileRequest) -> Result<LinkStream<mote::FileChunk>, LinkError> {
        self.held(&request.instance_id)?;
        files::get(&self.client, &request.path).await
    }

    async fn list_dir(&self, request: mote::BuildletListDirRequest) -> Result<LinkStream<mote::DirListing>, LinkError> {
        self.held(&request.instance_id)?;
        files::list(&self.client, request.list.unwrap_or_default()).await
    }

    async fn remove_paths(&self, request: mote::BuildletRemovePathsRequest) -> Result<u64, LinkError> {
        self.held(&request.instance_id)?;
        files::remove(&self.client, &request.paths).await
    }

    /// The agent has no terminals and streams nothing in.
    async fn open_session(
        &self,
        _: stream::BoxStream<'static, mote::SessionInput>,
    ) -> Result<LinkStream<mote::SessionOutput>, LinkError> {
        let text = "there is no ssh to a Go agent's machine; `mote run` works, and so do put, get and push";
        Err(refused(Status::failed_precondition(text)))
    }

    /// It describes itself as a machine without action slots.
    async fn run_action(
        &self,
        _: stream::BoxStream<'static, mote::RunActionInput>,
    ) -> Result<LinkStream<mote::RunActionOutput>, LinkError> {
        Err(refused(Status::failed_precondition("a Go agent's machine has no action slots; it is leased whole")))
    }
}
