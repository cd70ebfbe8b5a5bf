//! A process in an instance that a caller is connected to.

use super::FarmError;
use super::usage::Usage;
use crate::link::LinkStream;
use futures_util::StreamExt as _;
use mote::session_input::Input;
use mote::session_output::Output;
use mote::session_start::What;
use motefarm_proto::{SESSION_WINDOW_BYTES, mote};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Messages on their way to the buildlet. What they hold is bounded by its window.
const QUEUE: usize = 32;
/// For a buildlet to start a process.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for besides the process.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    /// More variables, NAME=value.
    pub env: Vec<String>,
    /// On a terminal of its own.
    pub terminal: Option<mote::SessionTerminal>,
}

/// An open session. Dropping both ends hangs up.
pub struct OpenSession {
    /// To the process.
    pub input: mpsc::Sender<mote::SessionInput>,
    /// From it.
    pub output: LinkStream<mote::SessionOutput>,
    /// How many bytes of input it takes before it says more.
    pub window: u64,
}

/// A message to a process.
pub fn message(input: Input) -> mote::SessionInput {
    mote::SessionInput { input: Some(input) }
}

/// Starts a process in the instance that is used. Whoever takes its output says when he has taken some.
pub async fn open(usage: &Usage, what: What, setting: Setting) -> Result<OpenSession, FarmError> {
    let (input, queued) = mpsc::channel(QUEUE);
    let start = mote::SessionStart {
        instance_id: usage.id(),
        what: Some(what),
        env: setting.env,
        terminal: setting.terminal,
        window: u64::try_from(SESSION_WINDOW_BYTES).unwrap_or(0),
    };
    // Fits: nothing else was queued.
    let _ = input.send(message(Input::Start(start))).await;
    let opening = async {
        let mut output = usage.session.link.open_session(ReceiverStream::new(queued).boxed()).await?;
        match output.next().await {
            Some(Ok(mote::SessionOutput { output: Some(Output::Started(started)) })) => Ok((output, started.window)),
            Some(Err(error)) => Err(error.into()),
            _ => Err(FarmError::Unavailable("the buildlet did not say that the process runs".to_owned())),
        }
    };
    let late = |_| FarmError::Unavailable(format!("no process within {} s", START_PATIENCE.as_secs()));
    let (output, window) = tokio::time::timeout(START_PATIENCE, opening).await.map_err(late)??;
    Ok(OpenSession { input, output, window })
}
