//! `mote.v1.Buildlet` over the agent. The only module that knows codes and messages' edges.
//!
//! A method that changes something runs to its end even if its caller leaves; one that only streams
//! stops with its caller.

mod files;
mod incoming;
mod outgoing;
mod sessions;
mod status;
mod tar_stream;

use crate::action::Actions;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::exec_events;
use crate::supervisor_client;
use crate::trees::{self, Blobs};
use motefarm_core::{ExecId, InstanceId, Timestamp};
use motefarm_proto::MAX_DIGESTS;
use motefarm_proto::convert::{self, FieldError, check_exec_spec};
use motefarm_proto::mote::buildlet_server::Buildlet;
use motefarm_proto::mote::supervisor_request::Request as Ask;
use motefarm_proto::mote::*;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// A report goes out at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Changes closer together than this are one report.
const REPORT_PAUSE: Duration = Duration::from_millis(10);
/// Most stdin in one message.
const MOST_STDIN_BYTES: usize = 256 * 1024;
/// Between SIGTERM and SIGKILL where the caller names none, and at most.
const DEFAULT_GRACE_MS: u64 = 2000;
const MOST_GRACE_MS: u64 = 60_000;
/// Executions that can be asked for by id in one call.
const MOST_EXECS_LISTED: usize = 1000;
/// Messages of an upload that wait to be stored.
const UPLOAD_QUEUE: usize = 2;

/// See the module.
#[derive(Clone)]
pub(crate) struct Service {
    agent: Arc<Agent>,
    blobs: Blobs,
    actions: Arc<Actions>,
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub(crate) fn new(agent: Arc<Agent>, blobs: Blobs, actions: Arc<Actions>) -> Self {
        Self { agent, blobs, actions }
    }

    fn events(&self, instance: &str, exec: ExecId, offset: u64, follow: bool) -> Result<BoxStream<ExecEvent>, Status> {
        let instance = self.agent.use_instance(id(instance)?)?;
        let events = exec_events::stream(&self.agent, instance, exec, offset, follow)?;
        Ok(Box::pin(events.map(|event| event.map_err(Status::from))))
    }

    /// Asks the supervisor of an execution; `None` if it has ended.
    async fn ask(&self, instance: &str, exec: &str, ask: Ask) -> Result<Option<SupervisorReply>, Status> {
        let instance = self.agent.use_instance(id(instance)?)?;
        let exec = instance.exec(exec_id(exec)?)?;
        let path = exec.path().to_owned();
        let answer = finish(async move {
            supervisor_client::ask(&path, ask)
                .await
                .map_err(|e| AgentError::Unavailable(format!("the execution's supervisor does not answer: {e}")))
        });
        Ok(answer.await?)
    }
}

fn id(text: &str) -> Result<InstanceId, Status> {
    Ok(convert::instance_id(text)?)
}

fn exec_id(text: &str) -> Result<ExecId, Status> {
    Ok(convert::exec_id(text)?)
}

/// Runs `work` to its end whether or not the caller waits for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, AgentError>> + Send + 'static,
) -> Result<T, AgentError> {
    tokio::spawn(work).await.map_err(|e| AgentError::Unavailable(format!("the work was cut short: {e}")))?
}

fn digests(wire: &[Digest]) -> Result<Vec<motefarm_core::Digest>, Status> {
    if wire.len() > MAX_DIGESTS {
        let problem = format!("{} digests; at most {MAX_DIGESTS} a call", wire.len());
        return Err(FieldError::new("digests", problem).into());
    }
    Ok(wire.iter().map(convert::digest).collect::<Result<_, _>>()?)
}

#[tonic::async_trait]
impl Buildlet for Service {
    type WatchStream = BoxStream<BuildletReport>;
    type ExecuteStream = BoxStream<ExecEvent>;
    type AttachExecStream = BoxStream<ExecEvent>;
    type GetTarStream = BoxStream<TarChunk>;
    type GetFileStream = BoxStream<FileChunk>;
    type ListDirStream = BoxStream<DirListing>;
    type OpenSessionStream = BoxStream<SessionOutput>;
    type RunActionStream = BoxStream<RunActionOutput>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<BuildletDescription>, Status> {
        Ok(Response::new(self.agent.describe()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (reports, receiver) = mpsc::channel(1);
        let agent = self.agent.clone();
        tokio::spawn(async move {
            let mut changes = agent.subscribe();
            loop {
                changes.borrow_and_update();
                if reports.send(Ok(agent.report())).await.is_err() {
                    return;
                }
                tokio::select! {
                    _ = changes.changed() => tokio::time::sleep(REPORT_PAUSE).await,
                    () = tokio::time::sleep(REPORT_INTERVAL) => {}
                    () = reports.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn create_instance(
        &self,
        request: Request<BuildletCreateInstanceRequest>,
    ) -> Result<Response<BuildletCreateInstanceResponse>, Status> {
        let (agent, request) = (self.agent.clone(), request.into_inner());
        let work_dir = finish(async move { agent.create_instance(request).await }).await?;
        Ok(Response::new(BuildletCreateInstanceResponse { work_dir }))
    }

    async fn end_instance(
        &self,
        request: Request<EndInstanceRequest>,
    ) -> Result<Response<EndInstanceResponse>, Status> {
        let (agent, id) = (self.agent.clone(), id(&request.get_ref().instance_id)?);
        finish(async move { agent.end_instance(id).await }).await?;
        Ok(Response::new(EndInstanceResponse {}))
    }

    async fn set_leases(&self, request: Request<SetLeasesRequest>) -> Result<Response<SetLeasesResponse>, Status> {
        let ends = request
            .into_inner()
            .leases
            .iter()
            .map(|lease| Ok((id(&lease.instance_id)?, Timestamp::from_millis(lease.expires_at_ms))))
            .collect::<Result<Vec<_>, Status>>()?;
        self.agent.set_leases(&ends)?;
        Ok(Response::new(SetLeasesResponse {}))
    }

    async fn execute(&self, request: Request<BuildletExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        let spec = request.spec.ok_or_else(|| FieldError::new("spec", "is not set"))?;
        check_exec_spec(&spec)?;
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        let agent = self.agent.clone();
        finish(async move { agent.ensure_started(&instance, exec, spec).await }).await?;
        Ok(Response::new(self.events(&request.instance_id, exec, request.offset, true)?))
    }

    async fn attach_exec(
        &self,
        request: Request<BuildletAttachExecRequest>,
    ) -> Result<Response<Self::AttachExecStream>, Status> {
        let request = request.into_inner();
        let exec = exec_id(&request.exec_id)?;
        Ok(Response::new(self.events(&request.instance_id, exec, request.offset, request.follow)?))
    }

    async fn list_execs(
        &self,
        request: Request<BuildletListExecsRequest>,
    ) -> Result<Response<BuildletListExecsResponse>, Status> {
        let request = request.into_inner();
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        if request.exec_ids.len() > MOST_EXECS_LISTED {
            let problem = format!("{} ids; at most {MOST_EXECS_LISTED} a call", request.exec_ids.len());
            return Err(FieldError::new("exec_ids", problem).into());
        }
        let only = request.exec_ids.iter().map(|id| exec_id(id)).collect::<Result<Vec<_>, _>>()?;
        let listed = finish(async move {
            let listing = tokio::task::spawn_blocking(move || {
                let mut execs = Vec::new();
                let chosen = if only.is_empty() { instance.all_execs()? } else { instance.some_execs(&only)? };
                for (id, exec) in chosen {
                    let outcome = exec.outcome()?;
                    let started_at_ms = match &outcome {
                        Some(outcome) => outcome.started_at_ms,
                        None => exec.started_at().map_or(0, |at| at.as_millis()),
                    };
                    execs.push(ExecInfo {
                        exec_id: id.to_string(),
                        instance_id: instance.id.to_string(),
                        spec: exec.spec()?.spec,
                        outcome,
                        started_at_ms,
                        output_bytes: exec.output_end()?,
                    });
                }
                execs.sort_by(|a, b| (a.started_at_ms, &a.exec_id).cmp(&(b.started_at_ms, &b.exec_id)));
                Ok(execs)
            });
            listing.await.map_err(|e| AgentError::Unavailable(e.to_string()))?
        });
        Ok(Response::new(BuildletListExecsResponse { execs: listed.await? }))
    }

    async fn ack_output(
        &self,
        request: Request<BuildletAckOutputRequest>,
    ) -> Result<Response<BuildletAckOutputResponse>, Status> {
        let request = request.into_inner();
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        self.agent.acknowledge(&instance, exec_id(&request.exec_id)?, request.offset)?;
        Ok(Response::new(BuildletAckOutputResponse {}))
    }

    async fn write_stdin(
        &self,
        request: Request<BuildletWriteStdinRequest>,
    ) -> Result<Response<BuildletWriteStdinResponse>, Status> {
        let request = request.into_inner();
        if request.data.len() > MOST_STDIN_BYTES {
            let problem = format!("{} bytes; at most {MOST_STDIN_BYTES} a call", request.data.len());
            return Err(FieldError::new("data", problem).into());
        }
        let offset = request.offset;
        let stdin = SupervisorStdin { offset, data: request.data, eof: request.eof };
        let reply = self.ask(&request.instance_id, &request.exec_id, Ask::Stdin(stdin)).await?;
        let response = match reply {
            Some(reply) if !reply.error.is_empty() => return Err(AgentError::OutOfRange(reply.error).into()),
            Some(reply) => BuildletWriteStdinResponse { accepted: reply.stdin_accepted, closed: reply.stdin_closed },
            None => BuildletWriteStdinResponse { accepted: offset, closed: true },
        };
        Ok(Response::new(response))
    }

    async fn signal_exec(
        &self,
        request: Request<BuildletSignalExecRequest>,
    ) -> Result<Response<BuildletSignalExecResponse>, Status> {
        let request = request.into_inner();
        if !(1..=31).contains(&request.signal) {
            return Err(FieldError::new("signal", format!("{} is not 1 to 31", request.signal)).into());
        }
        let signal = SupervisorSignal { signal: request.signal };
        match self.ask(&request.instance_id, &request.exec_id, Ask::Signal(signal)).await? {
            Some(reply) if reply.error.is_empty() => Ok(Response::new(BuildletSignalExecResponse {})),
            Some(reply) => Err(AgentError::Refused(reply.error).into()),
            None => Err(AgentError::Refused("the command has ended".to_owned()).into()),
        }
    }

    async fn cancel_exec(
        &self,
        request: Request<BuildletCancelExecRequest>,
    ) -> Result<Response<BuildletCancelExecResponse>, Status> {
        let request = request.into_inner();
        let grace_ms = if request.grace_ms == 0 { DEFAULT_GRACE_MS } else { request.grace_ms.min(MOST_GRACE_MS) };
        // One that has ended, with all it started, is as the caller wants it.
        self.ask(&request.instance_id, &request.exec_id, Ask::Cancel(SupervisorCancel { grace_ms })).await?;
        Ok(Response::new(BuildletCancelExecResponse {}))
    }

    async fn find_missing(
        &self,
        request: Request<FindMissingRequest>,
    ) -> Result<Response<FindMissingResponse>, Status> {
        let (blobs, digests) = (self.blobs.clone(), digests(&request.get_ref().digests)?);
        let missing = tokio::task::spawn_blocking(move || blobs.missing(&digests))
            .await
            .map_err(|e| AgentError::Unavailable(e.to_string()))?;
        Ok(Response::new(FindMissingResponse { missing: missing.into_iter().map(Digest::from).collect() }))
    }

    async fn upload_blobs(&self, request: Request<Streaming<BlobBatch>>) -> Result<Response<UploadSummary>, Status> {
        let mut receiver = self.blobs.receiver()?;
        let mut batches = request.into_inner();
        let (queue, mut queued) = mpsc::channel::<BlobBatch>(UPLOAD_QUEUE);
        // Unpacking and storing take processor and disk: on a thread that may, one message ahead.
        let storing = tokio::task::spawn_blocking(move || {
            let mut whole = false;
            while let Some(batch) = queued.blocking_recv() {
                // An empty message marks the stream's proper end.
                whole = batch.digests.is_empty() && batch.data.is_empty() && !batch.is_piece;
                if !whole {
                    receiver.accept(batch).map_err(trees::explain_batch)?;
                }
            }
            if whole { receiver.finish().map_err(trees::explain_batch) } else { Ok(UploadSummary::default()) }
        });
        let received = async {
            while let Some(batch) = batches.message().await? {
                if queue.send(batch).await.is_err() {
                    break;
                }
            }
            let _ = queue.send(BlobBatch::default()).await;
            Ok::<_, Status>(())
        }
        .await;
        drop(queue);
        let stored = storing.await.map_err(|e| AgentError::Unavailable(e.to_string()))?;
        received?;
        Ok(Response::new(stored?))
    }

    async fn sync_tree(&self, request: Request<BuildletSyncTreeRequest>) -> Result<Response<TreeSyncResult>, Status> {
        let request = request.into_inner();
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        let sync = request.sync.ok_or_else(|| FieldError::new("sync", "is not set"))?;
        Ok(Response::new(finish(trees::sync(self.blobs.clone(), instance, sync)).await?))
    }

    async fn get_tar(&self, request: Request<BuildletGetTarRequest>) -> Result<Response<Self::GetTarStream>, Status> {
        let request = request.into_inner();
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        let path = convert::work_path("dir", &request.dir)?;
        let dir = crate::files::dir(&instance.place().work, "dir", &path)?;
        let compression = request.compression();
        let chunks = outgoing::stream(instance, move |chunks| tar_stream::send(chunks, dir, compression));
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn put_file(
        &self,
        request: Request<Streaming<BuildletPutFileRequest>>,
    ) -> Result<Response<PutFileResponse>, Status> {
        Ok(Response::new(self.put_file_from(request.into_inner()).await?))
    }

    async fn put_tar(
        &self,
        request: Request<Streaming<BuildletPutTarRequest>>,
    ) -> Result<Response<PutTarResponse>, Status> {
        Ok(Response::new(self.put_tar_from(request.into_inner()).await?))
    }

    async fn get_file(
        &self,
        request: Request<BuildletGetFileRequest>,
    ) -> Result<Response<Self::GetFileStream>, Status> {
        let chunks = self.file_chunks(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn list_dir(
        &self,
        request: Request<BuildletListDirRequest>,
    ) -> Result<Response<Self::ListDirStream>, Status> {
        let pages = self.listing(request.into_inner())?;
        Ok(Response::new(Box::pin(ReceiverStream::new(pages))))
    }

    async fn remove_paths(
        &self,
        request: Request<BuildletRemovePathsRequest>,
    ) -> Result<Response<RemovePathsResponse>, Status> {
        Ok(Response::new(self.remove(request.into_inner()).await?))
    }

    async fn open_session(
        &self,
        request: Request<Streaming<SessionInput>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        Ok(Response::new(self.session(request.into_inner()).await?))
    }

    async fn run_action(
        &self,
        request: Request<Streaming<RunActionInput>>,
    ) -> Result<Response<Self::RunActionStream>, Status> {
        let answers = self.actions.run(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
