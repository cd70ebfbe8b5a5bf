//! One machine's try at an action, from the first message to a result that is stored.

use super::cache::{self, blocking};
use super::operation::{Operation, Progress, response};
use super::outputs::Outputs;
use super::result::{self, Held, MAX_RESULT_BYTES};
use super::task::Loaded;
use crate::app::App;
use crate::farm::{FarmError, transfer};
use crate::link::{LinkError, LinkStream};
use crate::registry::Session;
use bytes::Bytes;
use futures_util::StreamExt as _;
use motefarm_cas::store::BlobSource as _;
use motefarm_core::{Digest, Timestamp};
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::mote::run_action_finished::End;
use motefarm_proto::mote::run_action_input::Input;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::{self, RunActionInput};
use motefarm_proto::reapi::{ActionResult, ExecuteResponse, ExecutedActionMetadata, protobuf};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// The longest silence of a machine, but for the time that a command may run.
const QUIET: Duration = Duration::from_secs(600);
/// Rounds of "what is missing": one for each level of the deepest tree, and portions of wide ones.
const MOST_ROUNDS: usize = 600;
/// What was written to stdout and stderr comes in the result itself up to here, else as a blob.
const INLINE_BYTES: u64 = 16 << 10;
/// Messages to a machine that it has not taken yet: each is an answer to one of its own.
const READY: usize = 4;

/// Why an attempt came to no result.
#[derive(Debug)]
pub enum AttemptError {
    /// Another machine, or this one later, may do better.
    Again(String),
    /// Nobody can.
    Final(FarmError),
}

impl From<FarmError> for AttemptError {
    fn from(error: FarmError) -> Self {
        Self::Final(error)
    }
}

impl From<LinkError> for AttemptError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Lost(why) => Self::Again(format!("it is out of contact: {why}")),
            LinkError::Refused(status) if status.code() == Code::InvalidArgument => {
                Self::Final(LinkError::Refused(status).into())
            }
            LinkError::Refused(status) => Self::Again(format!("it refused: {}", status.message())),
        }
    }
}

impl From<FieldError> for AttemptError {
    /// Of a machine's message: the action is not to blame.
    fn from(error: FieldError) -> Self {
        Self::Again(format!("it sent what makes no sense: {error}"))
    }
}

/// Runs an operation's action on one machine. Dropping it ends the action there.
pub(super) async fn run(
    app: &Arc<App>,
    session: &Arc<Session>,
    operation: &Arc<Operation>,
) -> Result<ExecuteResponse, AttemptError> {
    let Loaded { action, command, pins: _inputs_stay } = operation.task.clone().load(app).await?;
    let (inputs, receiver) = mpsc::channel(READY);
    let mut attempt = Attempt { app, session, operation, inputs, outputs: Outputs::new(app.cas.clone()), rounds: 0 };
    operation.reached(Progress::Executing(Arc::new(attempt.metadata())));
    attempt.say(Input::Start(attempt.start(action, command))).await?;
    tokio::select! {
        ended = attempt.drive(ReceiverStream::new(receiver)) => ended,
        // Whatever half of the link still works.
        () = session.ended.cancelled() => Err(AttemptError::Again("the contact to it ended".to_owned())),
    }
}

struct Attempt<'a> {
    app: &'a Arc<App>,
    session: &'a Arc<Session>,
    operation: &'a Arc<Operation>,
    inputs: mpsc::Sender<RunActionInput>,
    outputs: Outputs,
    rounds: usize,
}

impl Attempt<'_> {
    fn start(&self, action: Bytes, command: Bytes) -> mote::RunActionStart {
        let task = &self.operation.task;
        mote::RunActionStart {
            operation: self.operation.id.to_string(),
            action_digest: Some(task.action.into()),
            action,
            command,
            // Up, for none may be 0.
            timeout_ms: u64::try_from(task.timeout.as_millis()).unwrap_or(u64::MAX).max(1),
            inline_bytes: INLINE_BYTES,
            // As the buildlet is set up.
            max_output_bytes: 0,
            max_output_files: 0,
        }
    }

    async fn say(&self, input: Input) -> Result<(), AttemptError> {
        let said = self.inputs.send(RunActionInput { input: Some(input) }).await;
        said.map_err(|_| AttemptError::Again("it stopped listening".to_owned()))
    }

    /// Answers the machine until it has finished.
    async fn drive(&mut self, inputs: ReceiverStream<RunActionInput>) -> Result<ExecuteResponse, AttemptError> {
        let mut stream = self.session.link.run_action(inputs.boxed()).await?;
        let mut patience = QUIET;
        loop {
            let output = self.next(&mut stream, std::mem::replace(&mut patience, QUIET)).await?;
            match output {
                Output::Missing(missing) => self.bring(&missing.digests).await?,
                Output::Started(started) => {
                    patience = QUIET + self.operation.task.timeout;
                    self.note_started(&started);
                }
                Output::Outputs(listed) => {
                    let digests = self.outputs.wanted(&listed.digests)?;
                    self.say(Input::Wanted(mote::RunActionWanted { digests })).await?;
                }
                Output::Blobs(batch) => self.outputs.accept(batch).await?,
                Output::Finished(finished) => {
                    let end = finished.end.ok_or_else(|| FieldError::new("finished.end", "is not set"))?;
                    return self.finish(end).await;
                }
            }
        }
    }

    async fn next(
        &self,
        stream: &mut LinkStream<mote::RunActionOutput>,
        patience: Duration,
    ) -> Result<Output, AttemptError> {
        match tokio::time::timeout(patience, stream.next()).await {
            Ok(Some(output)) => {
                let output = output?.output;
                Ok(output.ok_or_else(|| FieldError::new("output", "is none of those that are known"))?)
            }
            Ok(None) => Err(AttemptError::Again("it stopped in the middle".to_owned())),
            Err(_) => Err(AttemptError::Again(format!("nothing came from it for {} s", patience.as_secs()))),
        }
    }

    /// Sees to inputs that the store lacks which the machine reads.
    async fn bring(&mut self, missing: &[mote::Digest]) -> Result<(), AttemptError> {
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            return Err(AttemptError::Again("it does not keep what it is sent; is its store full?".to_owned()));
        }
        let needed: Vec<Digest> = missing.iter().map(convert::digest).collect::<Result<_, _>>()?;
        let lacking = self.app.cas.missing(&needed);
        if !lacking.is_empty() {
            return Err(FarmError::MissingBlobs(lacking).into());
        }
        if self.session.reads_farm_store {
            // It looked at the very same, and found it wanting.
            self.check(needed).await?;
        } else if let Err(error) = transfer::forward(self.app, self.session, needed.clone()).await {
            self.check(needed).await?;
            return Err(AttemptError::Again(error.to_string()));
        }
        self.say(Input::Again(mote::RunActionAgain {})).await
    }

    /// Throws away those of these blobs that are not what their digests say, for the client to bring them
    /// again.
    async fn check(&self, digests: Vec<Digest>) -> Result<(), AttemptError> {
        let cas = self.app.cas.clone();
        let wrong = blocking(move || {
            let mut wrong = Vec::new();
            for digest in digests {
                // Gone, or not readable, is as bad as wrong.
                let is_right = cas.open(&digest)?.is_some_and(|blob| blob.is(&digest).unwrap_or(false));
                if !is_right {
                    cas.discard(&digest);
                    wrong.push(digest);
                }
            }
            Ok(wrong)
        });
        match wrong.await? {
            wrong if wrong.is_empty() => Ok(()),
            wrong => Err(FarmError::MissingBlobs(wrong).into()),
        }
    }

    /// What is known of the execution before it has ended.
    fn metadata(&self) -> ExecutedActionMetadata {
        ExecutedActionMetadata {
            worker: self.session.buildlet_id.clone(),
            queued_timestamp: Some(timestamp(self.operation.queued_at)),
            ..ExecutedActionMetadata::default()
        }
    }

    fn note_started(&self, started: &mote::RunActionStarted) {
        let at = |ms| Some(timestamp(Timestamp::from_millis(ms)));
        let metadata = ExecutedActionMetadata {
            worker_start_timestamp: at(started.accepted_at_ms),
            input_fetch_start_timestamp: at(started.accepted_at_ms),
            input_fetch_completed_timestamp: at(started.fetched_at_ms),
            execution_start_timestamp: at(started.started_at_ms),
            ..self.metadata()
        };
        self.operation.reached(Progress::Executing(Arc::new(metadata)));
    }

    async fn finish(&mut self, end: End) -> Result<ExecuteResponse, AttemptError> {
        match end {
            End::Result(bytes) => {
                let result = self.seal(&bytes).await?;
                let task = &self.operation.task;
                if result.exit_code == 0
                    && !task.do_not_cache
                    && let Err(error) = cache::store(self.app, &task.action, &result).await
                {
                    tracing::error!(action = %task.action, %error, "a result could not be kept for later");
                }
                Ok(response(Some(result), false, &Status::ok("")))
            }
            End::TimedOut(timed_out) => {
                let result = self.seal(&timed_out.result).await?;
                let timeout = self.operation.task.timeout;
                let status = Status::deadline_exceeded(format!("the action was ended after its {timeout:?}"));
                Ok(response(Some(result), false, &status))
            }
            End::Failed(failed) if failed.retry => Err(AttemptError::Again(failed.message)),
            End::Failed(failed) => {
                let code = match Code::from(failed.code) {
                    Code::Ok => Code::Internal,
                    code => code,
                };
                Err(FarmError::Link(LinkError::Refused(Box::new(Status::new(code, failed.message)))).into())
            }
        }
    }

    /// A machine's word for the result, once all that it names is in the store to stay.
    async fn seal(&mut self, bytes: &[u8]) -> Result<ActionResult, AttemptError> {
        if bytes.len() > MAX_RESULT_BYTES {
            return Err(AttemptError::Final(FarmError::Exhausted(format!(
                "the action's result alone has {} bytes, and {MAX_RESULT_BYTES} are answered; \
                 declare directories instead of so many files",
                bytes.len()
            ))));
        }
        self.outputs.end()?;
        let decoded = ActionResult::decode(bytes);
        let mut result = decoded.map_err(|error| AttemptError::Again(format!("it sent no result: {error}")))?;
        let (named, cas) = (result::named(&result)?, self.app.cas.clone());
        match blocking(move || result::hold(&cas, &named)).await? {
            Held::All(pins) => self.operation.keep(pins),
            Held::Lacks(lacks) => {
                let (n, first) = (lacks.len(), lacks.first().map(Digest::to_string).unwrap_or_default());
                return Err(AttemptError::Again(format!("it named {n} outputs that it did not send, such as {first}")));
            }
        }
        let mut metadata = result.execution_metadata.take().unwrap_or_default();
        metadata.queued_timestamp = Some(timestamp(self.operation.queued_at));
        if metadata.worker.is_empty() {
            metadata.worker.clone_from(&self.session.buildlet_id);
        }
        result.execution_metadata = Some(metadata);
        Ok(result)
    }
}

fn timestamp(at: Timestamp) -> protobuf::Timestamp {
    let ms = at.as_millis();
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    protobuf::Timestamp { seconds: ms.div_euclid(1000), nanos }
}
