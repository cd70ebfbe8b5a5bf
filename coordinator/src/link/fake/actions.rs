//! Actions on the faked buildlet: a test says, message by message, what they do.

use super::{FakeState, cut_off};
use crate::link::{LinkError, LinkStream};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use motefarm_core::Digest;
use motefarm_proto::mote::run_action_finished::End;
use motefarm_proto::mote::run_action_input::Input;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::{self, RunActionInput, RunActionOutput};
use motefarm_proto::{convert, reapi};
use prost::Message as _;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// What every action does.
pub type Script = Arc<dyn Fn(FakeAction) -> BoxFuture<'static, ()> + Send + Sync>;

/// One action, as the script has it. Its stream ends with it.
pub struct FakeAction {
    /// What was asked for.
    pub start: mote::RunActionStart,
    /// The how manieth this is, from 0.
    pub number: usize,
    input: BoxStream<'static, RunActionInput>,
    output: mpsc::Sender<Result<RunActionOutput, LinkError>>,
    _running: Running,
}

/// Counts an action as running.
struct Running(Arc<Mutex<FakeState>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).actions_running -= 1;
    }
}

impl FakeAction {
    /// Sends a message.
    pub async fn say(&mut self, output: Output) {
        let _ = self.output.send(Ok(RunActionOutput { output: Some(output) })).await;
    }

    /// The next message that comes; for ever when none does.
    pub async fn hear(&mut self) -> Input {
        match self.input.next().await.and_then(|input| input.input) {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }

    /// Offers outputs and sends those that are wanted; tells which that were.
    pub async fn put(&mut self, blobs: &[&[u8]]) -> Vec<Digest> {
        let digests = blobs.iter().map(|blob| Digest::of(blob).into()).collect();
        self.say(Output::Outputs(mote::RunActionOutputs { digests })).await;
        let Input::Wanted(wanted) = self.hear().await else { return Vec::new() };
        let wanted: Vec<Digest> = wanted.digests.iter().filter_map(|digest| convert::digest(digest).ok()).collect();
        for blob in blobs.iter().filter(|blob| wanted.contains(&Digest::of(blob))) {
            self.send(Digest::of(blob), blob).await;
        }
        wanted
    }

    /// Sends a blob under a digest, whether it is its own or not.
    pub async fn send(&mut self, digest: Digest, content: &[u8]) {
        let data = Bytes::copy_from_slice(content);
        let batch = mote::BlobBatch { digests: vec![digest.into()], data, ..Default::default() };
        self.say(Output::Blobs(batch)).await;
    }

    /// Ends with this.
    pub async fn end(mut self, end: End) {
        self.say(Output::Finished(mote::RunActionFinished { end: Some(end) })).await;
    }

    /// Ends with a result.
    pub async fn result(self, result: &reapi::ActionResult) {
        self.end(End::Result(result.encode_to_vec().into())).await;
    }

    /// Ends without one.
    pub async fn fail(self, code: tonic::Code, message: &str, retry: bool) {
        let failed = mote::RunActionFailed { code: code.into(), message: message.to_owned(), retry };
        self.end(End::Failed(failed)).await;
    }
}

/// Plays one action.
pub(super) async fn run(
    script: &Script,
    mut input: BoxStream<'static, RunActionInput>,
    state: Arc<Mutex<FakeState>>,
    connected: watch::Receiver<bool>,
) -> Result<LinkStream<RunActionOutput>, LinkError> {
    let Some(Input::Start(start)) = input.next().await.and_then(|first| first.input) else {
        return Err(LinkError::Refused(Box::new(Status::invalid_argument("field start: must come first"))));
    };
    let (output, receiver) = mpsc::channel(4);
    let number = {
        let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.actions.push(start.clone());
        state.actions_running += 1;
        state.actions.len() - 1
    };
    let action = FakeAction { start, number, input, output, _running: Running(state) };
    // Ends with the stream: whoever leaves has it killed.
    let playing = AbortOnDropHandle::new(tokio::spawn(script(action)));
    let outputs = stream::unfold(Some((receiver, playing)), move |playing| {
        let mut connected = connected.clone();
        async move {
            let (mut receiver, playing) = playing?;
            tokio::select! {
                output = receiver.recv() => Some((output?, Some((receiver, playing)))),
                () = cut_off(&mut connected) => Some((Err(LinkError::Lost("the fake was cut off".to_owned())), None)),
            }
        }
    });
    Ok(outputs.boxed())
}
