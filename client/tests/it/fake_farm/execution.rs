//! Execution on the farm in the tests: every action says hello and ends with 3. The first time its inputs are
//! said to be missing.

use super::Service;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use motefarm_core::Digest;
use motefarm_proto::precondition::missing_blobs;
use motefarm_proto::reapi::execution_server::Execution;
use motefarm_proto::reapi::longrunning::{Operation, operation};
use motefarm_proto::reapi::{
    ActionResult, ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, WaitExecutionRequest, protobuf, rpc,
};
use prost::Message;
use tonic::{Code, Request, Response, Status};

type Operations = BoxStream<'static, Result<Operation, Status>>;

fn any(name: &str, message: &impl Message) -> protobuf::Any {
    let type_url = format!("type.googleapis.com/build.bazel.remote.execution.v2.{name}");
    protobuf::Any { type_url, value: message.encode_to_vec() }
}

#[tonic::async_trait]
impl Execution for Service {
    type ExecuteStream = Operations;
    type WaitExecutionStream = Operations;

    async fn execute(&self, _: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let before = {
            let mut state = self.called("execute_action");
            state.blobs.clear();
            state.calls.iter().filter(|call| **call == "execute_action").count()
        };
        let response = if before == 1 {
            let details = vec![missing_blobs(&[Digest::of(b"in")])];
            let status = rpc::Status { code: Code::FailedPrecondition.into(), message: "gone".into(), details };
            ExecuteResponse { status: Some(status), ..Default::default() }
        } else {
            let result = ActionResult { exit_code: 3, stdout_raw: b"hello\n".to_vec(), ..Default::default() };
            ExecuteResponse { result: Some(result), ..Default::default() }
        };
        let stage =
            |stage| Some(any("ExecuteOperationMetadata", &ExecuteOperationMetadata { stage, ..Default::default() }));
        let queued = Operation { name: "one".into(), metadata: stage(2), ..Default::default() };
        let result = Some(operation::Result::Response(any("ExecuteResponse", &response)));
        let done = Operation { name: "one".into(), metadata: stage(4), done: true, result };
        Ok(Response::new(stream::iter([Ok(queued), Ok(done)]).boxed()))
    }

    async fn wait_execution(
        &self,
        _: Request<WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        Err(Status::not_found("no such operation"))
    }
}
