//! Its capabilities, action cache and execution.

use super::worker::{self, Job};
use super::{FakeReapi, Ran};
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::protobuf::Any;
use futures_util::Stream;
use motefarm_core::Digest;
use motefarm_proto::convert::reapi_digest;
use motefarm_proto::reapi::action_cache_server::ActionCache;
use motefarm_proto::reapi::capabilities_server::Capabilities;
use motefarm_proto::reapi::execution_server::Execution;
use motefarm_proto::reapi::{
    Action, ActionCacheUpdateCapabilities, ActionResult, CacheCapabilities, Command, ExecuteRequest, ExecuteResponse,
    ExecutionCapabilities, GetActionResultRequest, GetCapabilitiesRequest, SemVer, ServerCapabilities,
    UpdateActionResultRequest, WaitExecutionRequest,
};
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(super) struct ExecutionSide {
    fake: FakeReapi,
    operations: Arc<Mutex<HashMap<String, watch::Receiver<Option<ExecuteResponse>>>>>,
}

type Operations = Pin<Box<dyn Stream<Item = Result<Operation, Status>> + Send>>;

fn pending(name: &str) -> Operation {
    Operation { name: name.to_owned(), ..Operation::default() }
}

fn done(name: &str, response: &ExecuteResponse) -> Operation {
    let any = Any {
        type_url: "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse".to_owned(),
        value: response.encode_to_vec(),
    };
    Operation {
        name: name.to_owned(),
        done: true,
        result: Some(operation::Result::Response(any)),
        ..Operation::default()
    }
}

fn failed(status: &Status) -> ExecuteResponse {
    let status = motefarm_proto::reapi::rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: vec![],
    };
    ExecuteResponse { status: Some(status), ..ExecuteResponse::default() }
}

impl ExecutionSide {
    pub(super) fn new(fake: FakeReapi) -> Self {
        Self { fake, operations: Arc::default() }
    }

    fn message<M: prost::Message + Default>(
        &self,
        digest: Option<&motefarm_proto::reapi::Digest>,
    ) -> Result<M, Status> {
        let digest = reapi_digest(digest.unwrap()).unwrap();
        let content = self.fake.get(digest).map_err(|_| Status::failed_precondition(format!("missing {digest}")))?;
        Ok(M::decode(&content[..]).unwrap())
    }

    /// As a server checks and runs an action.
    fn run(&self, request: &ExecuteRequest) -> Result<ActionResult, Status> {
        let loses = std::mem::take(&mut self.fake.state().loses);
        for digest in loses {
            self.fake.state().blobs.remove(&digest);
        }
        let digest = reapi_digest(request.action_digest.as_ref().unwrap()).unwrap();
        let action: Action = self.message(request.action_digest.as_ref())?;
        let command: Command = self.message(action.command_digest.as_ref())?;
        let asked: BTreeMap<&str, &str> = action
            .platform
            .iter()
            .flat_map(|platform| &platform.properties)
            .map(|property| (property.name.as_str(), property.value.as_str()))
            .collect();
        if asked != self.fake.rules.platform {
            return Err(Status::failed_precondition(format!("No workers exist for platform {asked:?}")));
        }
        let mut job = Job::load(&self.fake, &action, &command)?;
        if !self.fake.rules.reads_output_paths {
            #[expect(deprecated, reason = "what this kind of server reads")]
            let old = command.output_files.iter().chain(&command.output_directories).cloned().collect();
            job.outputs = old;
        }
        self.fake.state().ran.push(Ran {
            command: command.clone(),
            do_not_cache: action.do_not_cache,
            skip_cache_lookup: request.skip_cache_lookup,
            salt: action.salt.clone(),
            files: job.files.keys().cloned().collect(),
        });
        let result = worker::run(&self.fake, job);
        let keep = !action.do_not_cache && (result.exit_code == 0 || self.fake.rules.caches_failures);
        if keep {
            self.fake.state().results.insert(digest, result.clone());
        }
        Ok(result)
    }

    fn follow(&self, name: String, mut outcome: watch::Receiver<Option<ExecuteResponse>>) -> Operations {
        let (sender, receiver) = mpsc::channel(4);
        let fake = self.fake.clone();
        tokio::spawn(async move {
            if fake.rules.tells_stages {
                let _ = sender.send(Ok(pending(&name))).await;
                let breaks = {
                    let mut state = fake.state();
                    let breaks = state.breaks > 0;
                    state.breaks -= usize::from(breaks);
                    breaks
                };
                if breaks {
                    let _ = sender.send(Err(Status::unavailable("the connection broke"))).await;
                    return;
                }
            }
            let response = outcome.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            let _ = sender.send(Ok(done(&name, &response))).await;
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

#[tonic::async_trait]
impl Capabilities for ExecutionSide {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        self.fake.called("capabilities", &request.get_ref().instance_name)?;
        let version = |minor| Some(SemVer { major: self.fake.rules.major, minor, ..SemVer::default() });
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities {
                digest_functions: vec![1],
                max_batch_total_size_bytes: self.fake.rules.batch_bytes,
                action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled: true }),
                ..CacheCapabilities::default()
            }),
            execution_capabilities: Some(ExecutionCapabilities {
                digest_function: 1,
                exec_enabled: true,
                ..ExecutionCapabilities::default()
            }),
            low_api_version: version(self.fake.rules.versions.0),
            high_api_version: version(self.fake.rules.versions.1),
            ..ServerCapabilities::default()
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for ExecutionSide {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        self.fake.called("get_action_result", &request.instance_name)?;
        let digest = reapi_digest(request.action_digest.as_ref().unwrap()).unwrap();
        let found = self.fake.state().results.get(&digest).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found("no result"))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        self.fake.called("update_action_result", &request.instance_name)?;
        let digest = reapi_digest(request.action_digest.as_ref().unwrap()).unwrap();
        let result = request.action_result.unwrap();
        self.fake.state().results.insert(digest, result.clone());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl Execution for ExecutionSide {
    type ExecuteStream = Operations;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Operations>, Status> {
        let request = request.into_inner();
        self.fake.called("execute", &request.instance_name)?;
        let digest: Digest = reapi_digest(request.action_digest.as_ref().unwrap()).unwrap();
        let cached = self.fake.state().results.get(&digest).cloned().filter(|_| !request.skip_cache_lookup);
        let name = format!("op/{}/{}", digest.hash_hex(), self.fake.calls("execute"));
        let (sender, outcome) = watch::channel(None);
        self.operations.lock().unwrap().insert(name.clone(), outcome.clone());
        let side = self.clone();
        tokio::spawn(async move {
            side.fake.gate.subscribe().wait_for(|open| *open).await.unwrap();
            let ran = tokio::task::spawn_blocking(move || match cached {
                Some(result) => ExecuteResponse { result: Some(result), cached_result: true, ..Default::default() },
                None => match side.run(&request) {
                    Ok(result) => ExecuteResponse { result: Some(result), ..ExecuteResponse::default() },
                    Err(status) => failed(&status),
                },
            });
            sender.send_replace(Some(ran.await.unwrap()));
        });
        Ok(Response::new(self.follow(name, outcome)))
    }

    type WaitExecutionStream = Operations;

    async fn wait_execution(&self, request: Request<WaitExecutionRequest>) -> Result<Response<Operations>, Status> {
        self.fake.called("wait_execution", self.fake.rules.instance)?;
        if self.fake.state().forgets {
            return Err(Status::not_found("no such operation"));
        }
        let name = request.into_inner().name;
        let outcome = self.operations.lock().unwrap().get(&name).cloned();
        let outcome = outcome.ok_or_else(|| Status::not_found("no such operation"))?;
        Ok(Response::new(self.follow(name, outcome)))
    }
}
