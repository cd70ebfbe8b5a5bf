//! One action from its acceptance to its last word.

use super::asked::Asked;
use super::collect::Collector;
use super::ending::Ending;
use super::error::{ActionError, Failed};
use super::inputs::{self, Looked};
use super::materialize::{Materializer, check_work_dir, make_dirs};
use super::place::Place;
use super::result::{Times, stamp};
use super::shown::shown;
use super::talk::Talk;
use super::{Actions, machine};
use crate::runner::names;
use motefarm_cas::batch::LocalBlob;
use motefarm_cas::store::PinGuard;
use motefarm_cas::sync::Tree;
use motefarm_core::{Clock as _, Digest, SystemClock};
use motefarm_proto::mote::run_action_finished::End;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::{
    RunActionFinished, RunActionStarted, RunActionTimedOut, RunnerPart, RunnerReply, RunnerRun, RunnerStream,
};
use motefarm_proto::reapi::ActionResult;
use prost::Message as _;
use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// An action under way.
pub(super) struct Run {
    actions: Arc<Actions>,
    asked: Arc<Asked>,
    talk: Talk,
    /// The caller has left.
    stop: CancellationToken,
    times: Times,
}

/// What ran, with all that is needed to look at what came of it.
struct Ran {
    reply: RunnerReply,
    /// Of the machine, before it ran.
    oom_kills: u64,
    shown: Vec<RunnerPart>,
}

impl Run {
    pub(super) fn new(actions: Arc<Actions>, asked: Asked, talk: Talk, stop: CancellationToken) -> Self {
        let now = SystemClock.now();
        let times = Times { accepted: now, fetched: now, started: now, ended: now, handed_over: now };
        Self { actions, asked: Arc::new(asked), talk, stop, times }
    }

    /// Everything but the last word, which is answered with the way to say it: by then nothing of the
    /// action is left, and its slot can be given up.
    pub(super) async fn drive(mut self) -> (Talk, Result<End, ActionError>) {
        let ended = self.act().await;
        (self.talk, ended)
    }

    async fn act(&mut self) -> Result<End, ActionError> {
        let mut place = self.prepare().await?;
        let ran = self.run(&mut place).await?;
        let place = Arc::new(place);
        self.times.ended = SystemClock.now();
        let kills = ran.oom_kills;
        let ending = Ending::of(&ran.reply, self.asked.bounds, || machine::signs(&place.path, kills));
        let code = match &ending {
            Ending::Failed(failed) => return Err(ActionError::Failed(failed.clone())),
            Ending::Exited(code) | Ending::TimedOut(code) => *code,
        };
        let (mut result, blobs) = self.collect(&place, ran).await?;
        result.exit_code = code;
        let compressed = !self.actions.agent.settings.reads_farm_store;
        self.talk.hand_over(blobs, compressed).await?;
        if let Some(place) = Arc::into_inner(place) {
            let actions = self.actions.clone();
            // Behind: whoever comes at once makes another.
            tokio::task::spawn_blocking(move || actions.places.give_back(place));
        }
        self.times.handed_over = SystemClock.now();
        stamp(&mut result, &self.actions.agent.identity.worker(), &self.times);
        let result = result.encode_to_vec().into();
        Ok(match ending {
            Ending::TimedOut(_) => End::TimedOut(RunActionTimedOut { result }),
            _ => End::Result(result),
        })
    }

    /// The inputs, first in the store and then in place.
    async fn prepare(&mut self) -> Result<Place, ActionError> {
        let mut asked_for = HashSet::new();
        loop {
            let (tree, _pin) = self.fetch(&mut asked_for).await?;
            self.times.fetched = SystemClock.now();
            match self.materialize(tree).await {
                Ok(place) => return Ok(place),
                Err(ActionError::Wrong { digest, path }) => {
                    tracing::error!(%digest, path, operation = self.asked.operation, "an input is not what it should be");
                    let blobs = self.actions.blobs.clone();
                    blocking(move || {
                        blobs.discard(&digest);
                        Ok(())
                    })
                    .await?;
                    self.demand(vec![digest], &mut asked_for).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn fetch(&mut self, asked_for: &mut HashSet<Digest>) -> Result<(Arc<Tree>, Option<PinGuard>), ActionError> {
        loop {
            let (blobs, root) = (self.actions.blobs.clone(), self.asked.root);
            let looked = blocking(move || {
                Ok(match inputs::look(&blobs, root)? {
                    Looked::Missing(missing) => Err(missing),
                    Looked::Complete(tree, all) => {
                        let pin = blobs.pin(all);
                        Ok((Arc::new(tree), pin))
                    }
                })
            });
            match looked.await? {
                Ok(complete) => return Ok(complete),
                Err(missing) => self.demand(missing, asked_for).await?,
            }
        }
    }

    /// Has the caller bring what is missing; each blob once.
    async fn demand(&mut self, missing: Vec<Digest>, asked_for: &mut HashSet<Digest>) -> Result<(), ActionError> {
        let again: Vec<Digest> = missing.iter().filter(|digest| asked_for.contains(*digest)).copied().collect();
        if !again.is_empty() {
            return Err(ActionError::Missing(again));
        }
        self.talk.ask_for(&missing).await?;
        asked_for.extend(missing.into_iter().take(motefarm_proto::MAX_DIGESTS));
        Ok(())
    }

    async fn materialize(&self, tree: Arc<Tree>) -> Result<Place, ActionError> {
        let (actions, asked, stop) = (self.actions.clone(), self.asked.clone(), self.stop.clone());
        blocking(move || {
            let inputs = tree.directory(&asked.root).into_iter().flat_map(|contents| &contents.entries);
            let outputs = asked.outputs.outputs.iter().filter_map(|output| output.path.parts().next());
            let names = inputs.map(|entry| &entry.name[..]).chain(outputs.map(str::as_bytes)).collect();
            let place = actions.places.take(&names)?;
            let root = place.root.as_fd();
            Materializer::new(&tree, &actions.blobs, &stop).fill(root, &asked.root)?;
            asked.outputs.parents().iter().try_for_each(|parent| make_dirs(root, parent))?;
            check_work_dir(root, &asked.work_dir)?;
            Ok(place)
        })
        .await
    }

    async fn run(&mut self, place: &mut Place) -> Result<Ran, ActionError> {
        let actions = self.actions.clone();
        let lost = |error| ActionError::machine(format!("the command could not be run: {error}"));
        let mut runner = actions.runners.take(&actions.agent.program).await.map_err(lost)?;
        let checked = shown(&runner.offered, place, &self.asked);
        let shown = match checked {
            Ok(shown) => shown,
            Err(error) => {
                actions.runners.give_back(runner);
                return Err(error);
            }
        };
        self.times.started = SystemClock.now();
        let started = RunActionStarted {
            accepted_at_ms: self.times.accepted.as_millis(),
            fetched_at_ms: self.times.fetched.as_millis(),
            started_at_ms: self.times.started.as_millis(),
        };
        let run = RunnerRun {
            action: place.name.clone(),
            work_dir: self.asked.work_dir.to_string(),
            arguments: self.asked.arguments.clone(),
            env: self.asked.env.clone(),
            timeout_ms: u64::try_from(self.asked.timeout.as_millis()).unwrap_or(u64::MAX),
            most_bytes: self.asked.bounds.bytes,
            shown: shown.parts.iter().map(|part| part.name.clone()).collect(),
            merged: shown.merged,
        };
        let oom_kills = machine::oom_kills();
        let said = self.talk.say(Output::Started(started)).await;
        let reply = tokio::select! {
            reply = runner.run(run), if said.is_ok() => reply.map_err(lost),
            () = self.stop.cancelled() => Err(ActionError::Left),
        };
        match reply {
            Ok(reply) => {
                actions.runners.give_back(runner);
                place.furniture.clone_from(&shown.parts);
                Ok(Ran { reply, oom_kills, shown: shown.parts })
            }
            Err(error) => {
                // Whatever it still runs goes with it.
                runner.end().await;
                Err(error)
            }
        }
    }

    async fn collect(&self, place: &Arc<Place>, ran: Ran) -> Result<(ActionResult, Vec<LocalBlob>), ActionError> {
        let (place, asked, stop) = (place.clone(), self.asked.clone(), self.stop.clone());
        blocking(move || {
            let path = place.path.join(names::ROOT);
            let mut collector = Collector::new(place.root.as_fd(), &path, &ran.shown, asked.bounds, &stop);
            let mut keep = |stream: Option<RunnerStream>, name: &str| {
                let stream = stream.unwrap_or_default();
                if !stream.in_file && stream.data.len() as u64 <= asked.inline_bytes {
                    return Ok((stream.data.to_vec(), None));
                }
                let digest = match stream.in_file {
                    true => collector.add_file(&place.path.join(name))?,
                    false => collector.add(stream.data)?,
                };
                Ok::<_, ActionError>((Vec::new(), Some(motefarm_proto::convert::to_reapi_digest(digest))))
            };
            let (stdout_raw, stdout_digest) = keep(ran.reply.stdout, names::STDOUT)?;
            let (stderr_raw, stderr_digest) = keep(ran.reply.stderr, names::STDERR)?;
            let (result, blobs) = collector.collect(&asked.outputs)?;
            Ok((ActionResult { stdout_raw, stdout_digest, stderr_raw, stderr_digest, ..result }, blobs))
        })
        .await
    }
}

/// Runs what waits for a disk where it may, to its end.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ActionError> + Send + 'static,
) -> Result<T, ActionError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ActionError::machine(format!("the work was cut short: {error}")))?
}

/// The last word for an action that has no result, if there is one to be said.
pub(super) fn last_word(ended: Result<End, ActionError>) -> Result<RunActionFinished, ActionError> {
    match ended {
        Ok(end) => Ok(RunActionFinished { end: Some(end) }),
        Err(ActionError::Failed(failed)) => {
            let Failed { code, message, retry } = &failed;
            tracing::info!(?code, message, retry, "an action has no result");
            Ok(RunActionFinished { end: Some(End::Failed(failed.into())) })
        }
        Err(error) => Err(error),
    }
}
