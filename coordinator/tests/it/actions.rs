//! Actions over the gRPC services in process, on faked buildlets whose actions do what a test says.

mod bad_input;
mod cache;
mod execution;
mod scheduling;

use crate::farm::{TYPE, TestFarm};
use axum::{Extension, Router};
use bytes::Bytes;
use motefarm_coordinator::farm::actions::schedule;
use motefarm_coordinator::grpc;
use motefarm_coordinator::identity::Identity;
use motefarm_coordinator::link::fake::{FakeAction, FakeLink, Script};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::precondition;
use motefarm_proto::reapi::action_cache_client::ActionCacheClient;
use motefarm_proto::reapi::capabilities_client::CapabilitiesClient;
use motefarm_proto::reapi::execution_client::ExecutionClient;
use motefarm_proto::reapi::execution_stage::Value as Stage;
use motefarm_proto::reapi::longrunning::operations_client::OperationsClient;
use motefarm_proto::reapi::longrunning::{Operation, operation};
use motefarm_proto::reapi::{
    self, Action, ActionResult, Command, ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, OutputFile,
    WaitExecutionRequest,
};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

/// Nothing here takes so long, unless it hangs.
const SOON: Duration = Duration::from_secs(30);

/// A farm whose scheduler runs.
struct Bench {
    farm: TestFarm,
}

/// A script from a function.
fn script<F: Future<Output = ()> + Send + 'static>(play: impl Fn(FakeAction) -> F + Send + Sync + 'static) -> Script {
    Arc::new(move |action| Box::pin(play(action)))
}

/// Every action makes the file `out` with these bytes.
fn making(content: &'static [u8]) -> Script {
    script(move |mut action| async move {
        action.put(&[content]).await;
        action.result(&result_with(content)).await;
    })
}

/// As [`making`], but each tells that it has begun and waits for a permit.
fn held(content: &'static [u8]) -> (Script, mpsc::UnboundedReceiver<usize>, Arc<Semaphore>) {
    let (begun, begins) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(0));
    let held = permits.clone();
    let script = script(move |mut action| {
        let (begun, held) = (begun.clone(), held.clone());
        async move {
            begun.send(action.number).unwrap();
            held.acquire().await.unwrap().forget();
            action.put(&[content]).await;
            action.result(&result_with(content)).await;
        }
    });
    (script, begins, permits)
}

fn result_with(content: &[u8]) -> ActionResult {
    let file = OutputFile {
        path: "out".to_owned(),
        digest: Some(to_reapi_digest(Digest::of(content))),
        ..OutputFile::default()
    };
    ActionResult { output_files: vec![file], ..ActionResult::default() }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it hangs")
}

impl Bench {
    async fn new(config: &str) -> Self {
        let farm = TestFarm::new(config).await;
        farm.app.spawn(schedule::run(farm.app.clone()));
        Self { farm }
    }

    /// A farm with one buildlet, `b1`.
    async fn with(config: &str, slots: u64, script: Script) -> (Self, FakeLink) {
        let bench = Self::new(config).await;
        let buildlet = bench.join("b1", slots, script).await;
        (bench, buildlet)
    }

    async fn join(&self, id: &str, slots: u64, script: Script) -> FakeLink {
        let buildlet = FakeLink::new(id, TYPE, 1).acting(slots, script);
        self.farm.connect(&buildlet, id).await;
        buildlet
    }

    /// Lets the farm's clock run, ten times as fast as others.
    fn run_time(&self) -> AbortOnDropHandle<()> {
        let clock = self.farm.clock.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                clock.advance(Duration::from_millis(100));
            }
        }))
    }

    fn routes(&self, who: Identity) -> Router {
        grpc::routes(&self.farm.app).layer(Extension(who))
    }

    fn cache(&self) -> ActionCacheClient<Router> {
        ActionCacheClient::new(self.routes(TestFarm::alice()))
    }

    fn operations(&self, who: Identity) -> OperationsClient<Router> {
        OperationsClient::new(self.routes(who))
    }

    fn put(&self, content: &[u8]) -> reapi::Digest {
        let digest = Digest::of(content);
        self.farm.app.cas.put_batch(&[(digest, Bytes::copy_from_slice(content))]).unwrap();
        to_reapi_digest(digest)
    }

    /// Stores an action of this name (they differ by it) with an empty input root, changed at will.
    fn action_with(&self, name: &str, change: impl FnOnce(&mut Action, &mut Command)) -> reapi::Digest {
        let mut command = Command { arguments: vec!["make".to_owned(), name.to_owned()], ..Command::default() };
        let root = Some(to_reapi_digest(Digest::EMPTY));
        let mut action = Action { input_root_digest: root, ..Action::default() };
        change(&mut action, &mut command);
        let command = self.put(&command.encode_to_vec());
        action.command_digest.get_or_insert(command);
        self.put(&action.encode_to_vec())
    }

    fn action(&self, name: &str) -> reapi::Digest {
        self.action_with(name, |_, _| {})
    }

    async fn begin_as(&self, who: Identity, request: ExecuteRequest) -> Result<Streaming<Operation>, Status> {
        soon(ExecutionClient::new(self.routes(who)).execute(request)).await.map(tonic::Response::into_inner)
    }

    async fn begin(&self, action: &reapi::Digest) -> Streaming<Operation> {
        self.begin_as(TestFarm::alice(), of(action)).await.unwrap()
    }

    /// Executes to the end.
    async fn execute(&self, request: ExecuteRequest) -> Result<ExecuteResponse, Status> {
        end(self.begin_as(TestFarm::alice(), request).await?).await
    }

    async fn wait_for(&self, who: Identity, name: &str) -> Result<Streaming<Operation>, Status> {
        let request = WaitExecutionRequest { name: name.to_owned() };
        soon(ExecutionClient::new(self.routes(who)).wait_execution(request)).await.map(tonic::Response::into_inner)
    }

    async fn capabilities(&self) -> reapi::ServerCapabilities {
        let mut client = CapabilitiesClient::new(self.routes(TestFarm::alice()));
        client.get_capabilities(reapi::GetCapabilitiesRequest::default()).await.unwrap().into_inner()
    }

    async fn restart(self) -> Self {
        let farm = self.farm.restart().await;
        farm.app.spawn(schedule::run(farm.app.clone()));
        Self { farm }
    }
}

fn of(action: &reapi::Digest) -> ExecuteRequest {
    ExecuteRequest { action_digest: Some(action.clone()), ..ExecuteRequest::default() }
}

/// The next state of an operation.
async fn next(stream: &mut Streaming<Operation>) -> Operation {
    soon(stream.message()).await.unwrap().expect("the stream ended")
}

fn stage(operation: &Operation) -> Stage {
    let metadata = operation.metadata.as_ref().expect("metadata on every operation");
    assert!(metadata.type_url.ends_with("/build.bazel.remote.execution.v2.ExecuteOperationMetadata"));
    let metadata = ExecuteOperationMetadata::decode(metadata.value.as_slice()).unwrap();
    assert!(metadata.action_digest.is_some());
    metadata.stage()
}

/// Waits for a stage.
async fn reached(stream: &mut Streaming<Operation>, wanted: Stage) -> Operation {
    loop {
        let operation = next(stream).await;
        if stage(&operation) == wanted {
            return operation;
        }
        assert!(!operation.done, "it ended before: {operation:?}");
    }
}

fn response(operation: &Operation) -> ExecuteResponse {
    assert!(operation.done);
    assert_eq!(stage(operation), Stage::Completed);
    let Some(operation::Result::Response(any)) = &operation.result else { panic!("{operation:?}") };
    assert_eq!(any.type_url, "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse");
    ExecuteResponse::decode(any.value.as_slice()).unwrap()
}

/// The end of an operation. What comes after it is nothing.
async fn end(mut stream: Streaming<Operation>) -> Result<ExecuteResponse, Status> {
    loop {
        let operation = soon(stream.message()).await?.expect("the stream ended early");
        if operation.done {
            assert!(soon(stream.message()).await?.is_none());
            return Ok(response(&operation));
        }
    }
}

fn code(response: &ExecuteResponse) -> Code {
    Code::from(response.status.as_ref().map_or(0, |status| status.code))
}

fn why(response: &ExecuteResponse) -> &str {
    response.status.as_ref().map_or("", |status| &status.message)
}

/// The blobs that a status in trailers says are missing.
fn missing_in(status: &Status) -> Vec<Digest> {
    precondition::missing_in(&reapi::rpc::Status::decode(status.details()).unwrap())
}
