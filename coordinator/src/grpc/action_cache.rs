//! `ActionCache` of the Remote Execution API.

use super::execution;
use super::status::caller;
use crate::app::App;
use crate::farm::FarmError;
use crate::farm::actions::cache;
use crate::farm::actions::inline::Inline;
use motefarm_proto::reapi::action_cache_server::ActionCache;
use motefarm_proto::reapi::{ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct ActionCacheService(pub(super) Arc<App>);

#[tonic::async_trait]
impl ActionCache for ActionCacheService {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        let key = execution::action_digest(request.action_digest.as_ref(), request.digest_function)?;
        let wanted = Inline {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files.into_iter().collect(),
        };
        match cache::lookup(&self.0, &key, wanted).await? {
            Some(result) => Ok(Response::new(result)),
            None => Err(FarmError::NotFound { what: "result of action", name: key.to_string() }.into()),
        }
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let user = caller(&request)?.user;
        let request = request.into_inner();
        let key = execution::action_digest(request.action_digest.as_ref(), request.digest_function)?;
        let result =
            request.action_result.ok_or_else(|| Status::invalid_argument("field action_result: is not set"))?;
        cache::update(&self.0, &key, &result).await?;
        tracing::debug!(%user, action = %key, "a client stored a result");
        Ok(Response::new(result))
    }
}
