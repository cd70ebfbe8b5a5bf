//! Running an action, whatever becomes of the connection meanwhile: a stream that breaks is taken up by
//! `WaitExecution`, and an operation that is gone is begun again.

use super::cas::in_time;
use super::retry::{MAX_TRIES, is_transient, retrying};
use super::{Backend, Fault, Stage};
use bazel_remote_apis::google::longrunning::{Operation, operation};
use motefarm_core::Digest;
use motefarm_net::backoff::Backoff;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{
    ActionResult, ExecuteRequest, ExecuteResponse, GetActionResultRequest, RequestMetadata, ToolDetails,
    UpdateActionResultRequest, WaitExecutionRequest,
};
use prost::Message as _;
use std::time::Duration;
use tonic::metadata::{Binary, MetadataValue};
use tonic::{Code, Request, Status, Streaming};

/// In which metadata a server finds who asks, and for what (`RequestMetadata`).
const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";
/// Streams of one action in all: a server that drops each after a second is given up some time.
const MAX_STREAMS: u32 = 200;

/// Whose compile it is, in a server's words.
#[derive(Debug, Clone)]
pub struct Origin(MetadataValue<Binary>);

impl Origin {
    /// `compile`: the client's id of this compile. `build`: of its build, if it has one.
    pub fn new(compile: &str, build: &str) -> Self {
        let metadata = RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: "mote-bridge".to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            action_id: compile.to_owned(),
            tool_invocation_id: build.to_owned(),
            ..RequestMetadata::default()
        };
        Self(MetadataValue::from_bytes(&metadata.encode_to_vec()))
    }

    fn on<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert_bin(REQUEST_METADATA, self.0.clone());
        request
    }
}

/// An action that ran to an exit code.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What it left.
    pub result: ActionResult,
    /// Whether the server had it from its cache.
    pub cached: bool,
}

/// Why an action has no result.
#[derive(Debug, Clone)]
pub enum NotRun {
    /// The server says, in whatever words, that content is not there. Look again and upload.
    Incomplete(Fault),
    /// It took longer than its own timeout.
    TimedOut(Fault),
    /// Something else, after all retries.
    Failed(Fault),
}

impl Backend {
    /// The action cache's result, if it has one. A cache that fails has none: the action can be run.
    pub async fn cached_result(&self, action: Digest, origin: &Origin) -> Option<ActionResult> {
        let message = GetActionResultRequest {
            instance_name: self.instance(),
            action_digest: Some(to_reapi_digest(action)),
            // A compiler's words are few, and else were two more calls.
            inline_stdout: true,
            inline_stderr: true,
            ..GetActionResultRequest::default()
        };
        let answer = retrying(Stage::Lookup, || {
            let (mut client, request) = (self.action_cache_client(), origin.on(message.clone()));
            async move { in_time(client.get_action_result(request)).await }
        });
        match answer.await {
            Ok(answer) => Some(answer.into_inner()),
            Err(fault) => {
                if fault.code != Code::NotFound {
                    tracing::warn!(%fault, "the action cache could not be asked; the action is run");
                }
                None
            }
        }
    }

    /// Puts a result into the action cache.
    pub async fn store_result(&self, action: Digest, result: &ActionResult, origin: &Origin) -> Result<(), Fault> {
        let message = UpdateActionResultRequest {
            instance_name: self.instance(),
            action_digest: Some(to_reapi_digest(action)),
            action_result: Some(result.clone()),
            ..UpdateActionResultRequest::default()
        };
        let stored = retrying(Stage::Execute, || {
            let (mut client, request) = (self.action_cache_client(), origin.on(message.clone()));
            async move { in_time(client.update_action_result(request)).await }
        });
        stored.await.map(drop)
    }

    /// Runs an action to its end. Dropping the future leaves it to the server whether it goes on.
    pub async fn execute(&self, action: Digest, skip_cache: bool, origin: &Origin) -> Result<Ran, NotRun> {
        let message = ExecuteRequest {
            instance_name: self.instance(),
            skip_cache_lookup: skip_cache,
            action_digest: Some(to_reapi_digest(action)),
            ..ExecuteRequest::default()
        };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut failures = 0;
        let mut name = String::new();
        for _ in 0..MAX_STREAMS {
            let waited = !name.is_empty();
            let stream = if waited {
                let wait = WaitExecutionRequest { name: name.clone() };
                self.execution_client().wait_execution(origin.on(wait)).await
            } else {
                self.execution_client().execute(origin.on(message.clone())).await
            };
            match follow(stream, &mut name).await {
                End::Answered(response) => match of_response(*response) {
                    Err(NotRun::Failed(fault)) if is_transient(fault.code) && failures < MAX_TRIES => {
                        tracing::debug!(%fault, "the action is run again");
                        name.clear();
                    }
                    decided => return decided,
                },
                // A sign of life forgives what failed before.
                End::Broken { heard: true, .. } => failures = 0,
                // Whatever is said of a name that was waited for, it is of no use any more.
                End::Broken { status, .. } if waited => {
                    tracing::debug!(code = ?status.code(), "the operation is gone; the action is run again");
                    name.clear();
                }
                End::Broken { status, .. } if !is_transient(status.code()) => return Err(of_status(&status)),
                End::Broken { status, .. } if failures + 1 >= MAX_TRIES => {
                    return Err(NotRun::Failed(Fault::of(Stage::Execute, &status)));
                }
                End::Broken { .. } => {}
            }
            failures += 1;
            tokio::time::sleep(backoff.next_wait()).await;
        }
        let message = format!("the server dropped {MAX_STREAMS} streams of this action");
        Err(NotRun::Failed(Fault::new(Stage::Execute, Code::Unavailable, message)))
    }
}

enum End {
    Answered(Box<ExecuteResponse>),
    /// `heard`: something was said of the operation before.
    Broken {
        status: Status,
        heard: bool,
    },
}

/// Follows one stream to its end; notes what the server calls the operation.
async fn follow(stream: Result<tonic::Response<Streaming<Operation>>, Status>, name: &mut String) -> End {
    let mut heard = false;
    let mut stream = match stream {
        Ok(stream) => stream.into_inner(),
        Err(status) => return End::Broken { status, heard },
    };
    loop {
        let operation = match stream.message().await {
            Ok(Some(operation)) => operation,
            Ok(None) => {
                let status = Status::unavailable("the stream ended before the action did");
                return End::Broken { status, heard };
            }
            Err(status) => return End::Broken { status, heard },
        };
        heard = true;
        if !operation.name.is_empty() {
            name.clone_from(&operation.name);
        }
        if !operation.done {
            continue;
        }
        let response = match operation.result {
            Some(operation::Result::Response(any)) => match ExecuteResponse::decode(&any.value[..]) {
                Ok(response) => response,
                Err(error) => failed(Code::Internal, format!("the operation's answer is no ExecuteResponse: {error}")),
            },
            Some(operation::Result::Error(status)) => failed(Code::from(status.code), status.message),
            None => failed(Code::Internal, "the operation is done and has no answer".to_owned()),
        };
        return End::Answered(Box::new(response));
    }
}

fn failed(code: Code, message: String) -> ExecuteResponse {
    let status = motefarm_proto::reapi::rpc::Status { code: code.into(), message, details: vec![] };
    ExecuteResponse { status: Some(status), ..ExecuteResponse::default() }
}

fn of_response(response: ExecuteResponse) -> Result<Ran, NotRun> {
    let status = response.status.unwrap_or_default();
    let code = Code::from(status.code);
    let words = [status.message, response.message].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    match (code, response.result) {
        (Code::Ok, Some(result)) => Ok(Ran { result, cached: response.cached_result }),
        (Code::Ok, None) => Err(of_status(&Status::internal("the server answered neither a result nor an error"))),
        (code, _) => Err(of_status(&Status::new(code, words.join("; ")))),
    }
}

fn of_status(status: &Status) -> NotRun {
    let fault = Fault::of(Stage::Execute, status);
    match status.code() {
        Code::FailedPrecondition | Code::NotFound => NotRun::Incomplete(fault),
        Code::DeadlineExceeded => NotRun::TimedOut(fault),
        _ => NotRun::Failed(fault),
    }
}
