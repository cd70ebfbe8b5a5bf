//! Giving actions to machines, and ending what nobody waits for.

use super::attempt::{self, AttemptError};
use super::operation::{Operation, failure};
use super::{cache, execute};
use crate::app::App;
use crate::farm::FarmError;
use crate::registry::{ActionSlot, Session};
use motefarm_core::Timestamp;
use motefarm_core::action_queue::{Grant, Machine};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Between two looks at what only time changes.
const SWEEP: Duration = Duration::from_millis(500);
/// How long an action goes on that no stream listens to: clients whose connection broke come back sooner.
pub const ABANDONED: Duration = Duration::from_secs(120);
/// How long an action waits for a machine to come back into contact when no other fits.
pub const OUT_OF_CONTACT: Duration = Duration::from_secs(300);

/// Schedules until shutdown.
pub async fn run(app: Arc<App>) {
    if let Err(error) = cache::trim(&app).await {
        tracing::error!(%error, "the action cache could not be trimmed");
    }
    let mut sweeper = Sweeper::default();
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pass(&app);
        tokio::select! {
            () = app.actions.wake.notified() => {}
            _ = ticks.tick() => {
                if let Err(error) = sweeper.sweep(&app).await {
                    tracing::error!(%error, "a sweep over the actions failed; the next one tries again");
                }
            }
            () = app.shutdown.cancelled() => return,
        }
    }
}

/// Gives what waits to machines that have a slot for it.
pub fn pass(app: &Arc<App>) {
    if app.actions.table().is_idle() {
        return;
    }
    let now = app.now();
    let sessions: Vec<Arc<Session>> = machines(app);
    let mut machines: Vec<Machine> = sessions
        .iter()
        .map(|session| Machine {
            id: session.buildlet_id.clone(),
            free: session.free_action_slots(),
            offer: session.offer.clone(),
        })
        .collect();
    loop {
        let granted = app.actions.table().grant(&machines, now);
        let Some((operation, grant)) = granted else { return };
        let Some(at) = machines.iter().position(|machine| machine.id == grant.machine) else { return };
        match sessions[at].take_action_slot() {
            Some(slot) => {
                machines[at].free -= 1;
                let work = work(app.clone(), sessions[at].clone(), slot, operation, grant);
                app.spawn(work);
            }
            None => {
                machines[at].free = 0;
                app.actions.table().put_back(&operation, grant);
            }
        }
    }
}

/// Who is in contact and takes actions.
fn machines(app: &App) -> Vec<Arc<Session>> {
    let all = app.registry.all().into_iter();
    all.filter(|session| session.action_slots > 0 && !session.ended.is_cancelled()).collect()
}

/// One attempt, and what follows from how it ended.
async fn work(app: Arc<App>, session: Arc<Session>, slot: ActionSlot, operation: Arc<Operation>, mut grant: Grant) {
    let began = app.now();
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (waiting, running) = app.actions.counts();
        tracing::debug!(operation = %operation.id, buildlet.id = session.buildlet_id, waiting, running, "an action goes to a buildlet");
    }
    let ended = tokio::select! {
        ended = attempt::run(&app, &session, &operation) => Some(ended),
        () = operation.cancelled.cancelled() => None,
        // Whoever waits is told by their streams; the buildlet ends it with its link.
        () = app.shutdown.cancelled() => return,
    };
    drop(slot);
    let now = app.now();
    let (id, buildlet) = (operation.id, &session.buildlet_id);
    let response = match ended {
        // Whoever cancelled it has said so.
        None => None,
        Some(Ok(response)) => {
            let duration_ms = u64::try_from(now.since(began).as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(operation = %id, buildlet.id = buildlet, duration_ms, "an action was run");
            Some(response)
        }
        Some(Err(AttemptError::Final(error))) => {
            tracing::info!(operation = %id, action = %operation.task.action, buildlet.id = buildlet, %error, "an action can not be run");
            Some(failure(&error))
        }
        Some(Err(AttemptError::Again(why))) => {
            let again = grant.waiting.attempts.failed(buildlet, now);
            let attempts = grant.waiting.attempts.count();
            tracing::warn!(operation = %id, action = %operation.task.action, buildlet.id = buildlet, attempts, again, why, "an attempt to run an action failed");
            if again {
                app.actions.table().put_back(&operation, grant);
                None
            } else {
                let text = format!("the action was begun {attempts} times in vain; at last on {buildlet}: {why}");
                Some(failure(&FarmError::Unavailable(text)))
            }
        }
    };
    if let Some(response) = response {
        app.actions.table().finish(&operation, response, now);
    }
    app.actions.wake.notify_one();
}

/// Ends what only time ends.
#[derive(Default)]
pub struct Sweeper {
    /// Since when what waits has fitted nobody in contact.
    unfit_since: HashMap<Uuid, Timestamp>,
}

impl Sweeper {
    /// One sweep.
    pub async fn sweep(&mut self, app: &Arc<App>) -> Result<(), FarmError> {
        let now = app.now();
        app.actions.table().forget(now);
        give_up_abandoned(app, now);
        self.give_up_unfit(app, now).await
    }

    async fn give_up_unfit(&mut self, app: &Arc<App>, now: Timestamp) -> Result<(), FarmError> {
        let waiting: Vec<Arc<Operation>> = app.actions.table().waiting().cloned().collect();
        if waiting.is_empty() {
            self.unfit_since.clear();
            return Ok(());
        }
        let (sessions, all_met) = (machines(app), execute::all_met(app).await?);
        let fits = |operation: &Operation| sessions.iter().any(|s| s.offer.satisfies(&operation.task.demand));
        let unfit: Vec<Arc<Operation>> = waiting.into_iter().filter(|operation| !fits(operation)).collect();
        let before = std::mem::take(&mut self.unfit_since);
        for operation in unfit {
            let since = before.get(&operation.id).copied().unwrap_or(now);
            let error = match app.actions.unmet(&operation.task.demand) {
                Some(why) if all_met => FarmError::NotReady(format!("{why}; the action can run nowhere")),
                _ if now.since(since) >= OUT_OF_CONTACT => FarmError::Unavailable(format!(
                    "no machine that the action fits was in contact for {} s; ask again",
                    OUT_OF_CONTACT.as_secs()
                )),
                _ => {
                    self.unfit_since.insert(operation.id, since);
                    continue;
                }
            };
            tracing::warn!(operation = %operation.id, %error, "an action that waited was given up");
            app.actions.table().finish(&operation, failure(&error), now);
        }
        Ok(())
    }
}

fn give_up_abandoned(app: &Arc<App>, now: Timestamp) {
    let mut table = app.actions.table();
    let abandoned = |operation: &Operation| operation.alone_since().is_some_and(|since| now.since(since) >= ABANDONED);
    let alone: Vec<Arc<Operation>> = table.unfinished().filter(|operation| abandoned(operation)).cloned().collect();
    for operation in alone {
        tracing::info!(operation = %operation.id, "an action that nobody waits for any more was given up");
        let error = FarmError::Cut(format!("nobody waited for it for {} s", ABANDONED.as_secs()));
        table.finish(&operation, failure(&error), now);
    }
}
