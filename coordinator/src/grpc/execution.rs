//! `Execution` of the Remote Execution API.

use super::status::caller;
use crate::app::App;
use crate::farm::actions::execute::{self, Wish};
use crate::farm::actions::inline::{self, Inline};
use crate::farm::actions::operation::{Listener, Progress};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use motefarm_core::Digest;
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::reapi;
use motefarm_proto::reapi::execution_server::Execution;
use motefarm_proto::reapi::longrunning::{Operation, operation};
use motefarm_proto::reapi::protobuf::Any;
use motefarm_proto::reapi::{
    ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, WaitExecutionRequest, digest_function, execution_stage,
};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Proxies drop streams on which nothing comes: after so long the state is told again.
const REPEAT: Duration = Duration::from_secs(30);
const API: &str = "type.googleapis.com/build.bazel.remote.execution.v2";

/// See the module.
pub(super) struct ExecutionService(pub(super) Arc<App>);

/// The states of an operation, until it is over.
pub type Operations = BoxStream<'static, Result<Operation, Status>>;

#[tonic::async_trait]
impl Execution for ExecutionService {
    type ExecuteStream = Operations;
    type WaitExecutionStream = Operations;

    /// The action goes on when the caller leaves: for as long as others wait, or until it is clear that
    /// nobody comes back.
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Operations>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let action = action_digest(request.action_digest.as_ref(), request.digest_function)?;
        let priority = request.execution_policy.map_or(0, |policy| policy.priority);
        let wish = Wish { action, skip_cache_lookup: request.skip_cache_lookup, priority };
        let inline = Inline {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files.into_iter().collect(),
        };
        let listener = execute::execute(&self.0, &caller, wish).await?;
        let name = format!("{}/{}", request.instance_name, listener.operation().id);
        Ok(Response::new(follow(self.0.clone(), listener, name, inline, REPEAT)))
    }

    async fn wait_execution(&self, request: Request<WaitExecutionRequest>) -> Result<Response<Operations>, Status> {
        let caller = caller(&request)?;
        let name = request.into_inner().name;
        let listener = execute::wait(&self.0, &caller, &name)?;
        Ok(Response::new(follow(self.0.clone(), listener, name, Inline::default(), REPEAT)))
    }
}

/// Tells an operation's state at once, after every change, and when nothing has changed for `repeat`;
/// ends after the last. Public for tests, which do not wait so long.
pub fn follow(app: Arc<App>, listener: Listener, name: String, inline: Inline, repeat: Duration) -> Operations {
    let states = stream::unfold(Some((listener, app, name, inline)), move |state| async move {
        let (mut listener, app, name, inline) = state?;
        let progress = tokio::select! {
            progress = listener.next() => progress,
            () = tokio::time::sleep(repeat) => listener.operation().progress(),
            () = app.shutdown.cancelled() => {
                return Some((Err(Status::unavailable("the coordinator is stopping; ask again")), None));
            }
        };
        let progress = match progress {
            Progress::Done(response) => filled(&app, response, inline.clone()).await,
            other => Ok(other),
        };
        let action = listener.operation().task.action;
        let told = progress.map(|progress| message(&name, action, &progress));
        let goes_on = told.as_ref().is_ok_and(|operation| !operation.done);
        Some((told, goes_on.then_some((listener, app, name, inline))))
    });
    states.boxed()
}

/// The end with what one caller wants to have in it.
async fn filled(app: &App, response: Arc<ExecuteResponse>, wanted: Inline) -> Result<Progress, Status> {
    if response.result.is_none() || wanted == Inline::default() {
        return Ok(Progress::Done(response));
    }
    let (cas, mut response) = (app.cas.clone(), ExecuteResponse::clone(&response));
    let filled = tokio::task::spawn_blocking(move || {
        response.result.as_mut().map_or(Ok(()), |result| inline::fill(&cas, result, &wanted)).map(|()| response)
    });
    let filled = filled.await.map_err(|_| Status::unavailable("the coordinator is stopping; ask again"))?;
    Ok(Progress::Done(Arc::new(filled.map_err(crate::farm::FarmError::Content)?)))
}

/// A state as the API has it.
pub(super) fn message(name: &str, action: Digest, progress: &Progress) -> Operation {
    use execution_stage::Value as Stage;
    let (stage, partial, response) = match progress {
        Progress::CacheCheck => (Stage::CacheCheck, None, None),
        Progress::Queued => (Stage::Queued, None, None),
        Progress::Executing(metadata) => (Stage::Executing, Some((**metadata).clone()), None),
        Progress::Done(response) => (Stage::Completed, None, Some(response)),
    };
    let metadata = ExecuteOperationMetadata {
        stage: stage.into(),
        action_digest: Some(convert::to_reapi_digest(action)),
        partial_execution_metadata: partial,
        digest_function: digest_function::Value::Sha256.into(),
        ..ExecuteOperationMetadata::default()
    };
    let any = |of: &str, value| Any { type_url: format!("{API}.{of}"), value };
    Operation {
        name: name.to_owned(),
        metadata: Some(any("ExecuteOperationMetadata", metadata.encode_to_vec())),
        done: response.is_some(),
        // Never `Error`: that would be of the operation, not of the action.
        result: response.map(|response| operation::Result::Response(any("ExecuteResponse", response.encode_to_vec()))),
    }
}

/// The digest that a request is about.
pub(super) fn action_digest(digest: Option<&reapi::Digest>, function: i32) -> Result<Digest, Status> {
    match digest_function::Value::try_from(function) {
        Ok(digest_function::Value::Unknown | digest_function::Value::Sha256) => {}
        _ => return Err(FieldError::new("digest_function", format!("{function} is not SHA256")).into()),
    }
    let digest = digest.ok_or_else(|| FieldError::new("action_digest", "is not set"))?;
    let digest = convert::reapi_digest(digest).map_err(|error| FieldError::new("action_digest", error.problem))?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::super::status;
    use super::*;

    #[test]
    fn a_status_keeps_its_details_in_a_response() {
        let missing = crate::farm::FarmError::MissingBlobs(vec![Digest::of(b"x")]);
        let message = status::to_message(&Status::from(&missing));
        assert_eq!(motefarm_proto::precondition::missing_in(&message), [Digest::of(b"x")]);
        assert_eq!(message.code, i32::from(tonic::Code::FailedPrecondition));
        let plain = status::to_message(&Status::not_found("no"));
        assert_eq!((plain.code, plain.message.as_str(), plain.details.len()), (5, "no", 0));
    }

    #[test]
    fn malformed_digests_and_other_functions_are_refused_by_name() {
        let digest = |hash: &str, size_bytes| reapi::Digest { hash: hash.to_owned(), size_bytes };
        let good = convert::to_reapi_digest(Digest::of(b"x"));
        assert_eq!(action_digest(Some(&good), 0).unwrap(), Digest::of(b"x"));
        assert_eq!(action_digest(Some(&good), 1).unwrap(), Digest::of(b"x"));
        assert!(action_digest(Some(&good), 9).unwrap_err().message().contains("digest_function"));
        for bad in
            [None, Some(digest("abc", 1)), Some(digest(&good.hash.to_uppercase(), 1)), Some(digest(&good.hash, -1))]
        {
            let refused = action_digest(bad.as_ref(), 0).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains("action_digest"), "{refused}");
        }
    }
}
