//! `google.longrunning.Operations`, of what `Execution` begins: to look at one, and to end it. The rest of
//! the service is not served, see `identity.rs`.

use super::execution;
use super::status::caller;
use crate::app::App;
use crate::farm::actions::execute;
use motefarm_proto::reapi::longrunning::operations_server::Operations;
use motefarm_proto::reapi::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use motefarm_proto::reapi::protobuf::Empty;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct OperationsService(pub(super) Arc<App>);

#[tonic::async_trait]
impl Operations for OperationsService {
    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        let caller = caller(&request)?;
        let name = request.into_inner().name;
        let operation = execute::find(&self.0, &caller, &name)?;
        Ok(Response::new(execution::message(&name, operation.task.action, &operation.progress())))
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<Empty>, Status> {
        let caller = caller(&request)?;
        execute::cancel(&self.0, &caller, &request.into_inner().name)?;
        Ok(Response::new(Empty {}))
    }

    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Err(Status::unimplemented("operations are known by their names alone"))
    }

    async fn delete_operation(&self, _: Request<DeleteOperationRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("operations are forgotten by themselves"))
    }

    async fn wait_operation(&self, _: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("Execution.WaitExecution waits"))
    }
}
