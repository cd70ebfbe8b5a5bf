//! Actions of the Remote Execution API: one command each on a tree of inputs, in a directory and a sandbox
//! of its own, of which the declared outputs are all that is left.
//!
//! * [`asked`], [`declared`], [`ending`], [`output_tree`]: what is asked for and what came of it; pure.
//! * [`inputs`], [`materialize`]: from digests to files. [`collect`]: and back.
//! * [`runners`]: the processes that start commands. [`place`], [`places`]: the directories.
//! * [`talk`]: what is said to the caller and heard. [`run`]: all of it, in order.
//!
//! Nothing is kept over a restart: an action ends with its caller's stream.
//!
//! **Absent on purpose:** the queue, the action cache, platforms, who asked.

mod asked;
mod collect;
mod declared;
mod ending;
mod error;
mod found;
pub(crate) mod fuzzing;
mod inputs;
mod machine;
mod materialize;
mod output_tree;
mod place;
mod places;
mod result;
mod run;
mod runners;
mod shown;
mod talk;

pub(crate) use runners::{ActionSandbox, Runners};

use crate::agent::Agent;
use crate::error::AgentError;
use crate::trees::Blobs;
use asked::Asked;
use error::ActionError;
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::run_action_input::Input;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::{RunActionInput, RunActionOutput};
use places::Places;
use run::Run;
use std::sync::Arc;
use std::time::Duration;
use talk::Talk;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// For a caller to say what it wants.
const FIRST_PATIENCE: Duration = Duration::from_secs(15);
/// For a slot whose last action is being killed.
const SLOT_PATIENCE: Duration = Duration::from_secs(2);
/// Messages that wait for the connection: with batches of 2 MiB, a few MiB.
const QUEUE: usize = 2;

/// See the module.
pub(crate) struct Actions {
    agent: Arc<Agent>,
    blobs: Blobs,
    runners: Runners,
    places: Places,
    slots: Arc<Semaphore>,
}

impl Actions {
    pub(crate) fn new(agent: Arc<Agent>, blobs: Blobs, runners: Runners) -> Self {
        let slots = usize::try_from(agent.settings.action_slots).unwrap_or(0).min(Semaphore::MAX_PERMITS);
        // One is cleared while the next action has another.
        let places = Places::new(agent.clone(), 2 * slots);
        Self { agent, blobs, runners, places, slots: Arc::new(Semaphore::new(slots)) }
    }

    /// Takes a slot and runs what is asked for; the answers come as they are made.
    pub(crate) async fn run(
        self: &Arc<Self>,
        heard: Streaming<RunActionInput>,
    ) -> Result<mpsc::Receiver<Result<RunActionOutput, Status>>, AgentError> {
        let (said, answers) = mpsc::channel(QUEUE);
        let mut talk = Talk { heard, said };
        let Ok(Input::Start(start)) = talk.hear(FIRST_PATIENCE).await else {
            return Err(FieldError::new("start", "must come first").into());
        };
        let asked = Asked::parse(start)?;
        let slots = self.agent.settings.action_slots;
        let none = || AgentError::Exhausted(format!("no action slot is free: all {slots} are taken"));
        if slots == 0 {
            return Err(none());
        }
        let slot = tokio::time::timeout(SLOT_PATIENCE, self.slots.clone().acquire_owned()).await;
        let slot = slot.map_err(|_| none())?.map_err(|_| none())?;
        let actions = self.clone();
        tokio::spawn(async move {
            let stop = CancellationToken::new();
            let caller = talk.said.clone();
            let watch = stop.clone().drop_guard();
            let leaving = tokio::spawn({
                let stop = stop.clone();
                async move {
                    tokio::select! {
                        () = caller.closed() => stop.cancel(),
                        () = stop.cancelled() => {}
                    }
                }
            });
            let (talk, ended) = Run::new(actions, asked, talk, stop).drive().await;
            drop(watch);
            // Before the last word: whoever hears it may send the next action.
            drop(slot);
            let _ = leaving.await;
            match run::last_word(ended) {
                Ok(finished) => {
                    let _ = talk.say(Output::Finished(finished)).await;
                }
                Err(ActionError::Left) => {}
                Err(error) => {
                    let _ = talk.said.send(Err(error.into())).await;
                }
            }
        });
        Ok(answers)
    }
}

impl From<ActionError> for Status {
    fn from(error: ActionError) -> Self {
        match error {
            ActionError::Field(error) => error.into(),
            ActionError::Missing(_) => Self::failed_precondition(error.to_string()),
            ActionError::Protocol(_) => Self::invalid_argument(error.to_string()),
            ActionError::Left => Self::cancelled(error.to_string()),
            // Neither comes this far.
            ActionError::Wrong { .. } | ActionError::Failed(_) => Self::internal(error.to_string()),
        }
    }
}
