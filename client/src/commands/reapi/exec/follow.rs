//! An operation from its beginning to its response.

use super::Asked;
use crate::cli;
use crate::connection::{Farm, opened};
use crate::printer::Printer;
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::precondition;
use motefarm_proto::reapi::execution_stage::Value as Stage;
use motefarm_proto::reapi::longrunning::operation;
use motefarm_proto::reapi::{ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, ExecutionPolicy, rpc};
use prost::Message as _;
use tonic::{Code, Status};

/// What came of it. Its status may be one of failure.
pub(super) struct Ended {
    pub(super) response: ExecuteResponse,
}

impl Ended {
    /// Why there is no result to be believed, if so.
    pub(super) fn failure(&self) -> Option<Status> {
        let status = self.response.status.clone().unwrap_or_default();
        (status.code != 0).then(|| Status::new(status.code.into(), status.message))
    }

    /// Inputs that the farm says it lacks.
    pub(super) fn missing(&self) -> Vec<Digest> {
        self.response.status.as_ref().map(precondition::missing_in).unwrap_or_default()
    }
}

/// Asks once. An error is one of the call: the connection, or what was asked.
pub(super) async fn execute(
    farm: &Farm,
    printer: Printer,
    asked: &Asked,
    flags: &cli::ReapiExec,
) -> Result<Ended, Status> {
    let request = ExecuteRequest {
        action_digest: Some(to_reapi_digest(asked.action.0)),
        skip_cache_lookup: flags.again,
        execution_policy: (flags.priority != 0).then_some(ExecutionPolicy { priority: flags.priority }),
        inline_stdout: true,
        inline_stderr: true,
        ..ExecuteRequest::default()
    };
    let mut client = farm.execution();
    let mut operations = match opened(client.execute(request)).await {
        Ok(operations) => operations,
        Err(status) => return refused(status),
    };
    let mut told = Stage::Unknown;
    while let Some(operation) = operations.message().await? {
        match operation.result {
            Some(operation::Result::Response(any)) => {
                let response = ExecuteResponse::decode(any.value.as_slice());
                let response = response.map_err(|e| Status::data_loss(format!("its response is none: {e}")))?;
                return Ok(Ended { response });
            }
            Some(operation::Result::Error(status)) => return Err(Status::new(status.code.into(), status.message)),
            None => {}
        }
        let metadata = operation.metadata.and_then(|any| ExecuteOperationMetadata::decode(any.value.as_slice()).ok());
        let stage = metadata.map_or(Stage::Unknown, |metadata| metadata.stage());
        if stage != told {
            told = stage;
            match stage {
                Stage::Queued => printer.message("waiting for a free slot"),
                Stage::Executing => printer.message("executing"),
                _ => {}
            }
        }
    }
    Err(Status::unavailable("the stream ended before the operation did"))
}

/// What is missing is told in the call's own status before there is an operation: nothing that asking again
/// without an upload would mend.
fn refused(status: Status) -> Result<Ended, Status> {
    if status.code() != Code::FailedPrecondition {
        return Err(status);
    }
    let told = rpc::Status::decode(status.details()).unwrap_or_default();
    let told = rpc::Status { code: status.code().into(), message: status.message().to_owned(), ..told };
    Ok(Ended { response: ExecuteResponse { status: Some(told), ..ExecuteResponse::default() } })
}
