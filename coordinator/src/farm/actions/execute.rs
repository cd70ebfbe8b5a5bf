//! Taking actions in: checked, joined to one that makes the same already, answered from the cache, or
//! put into the queue.

use super::cache;
use super::inline::Inline;
use super::operation::{Listener, Operation, Progress, failure, response};
use super::task::Task;
use crate::app::App;
use crate::farm::FarmError;
use crate::farm::reap::SETTLE;
use crate::identity::{Identity, Role};
use motefarm_core::Digest;
use motefarm_core::name::UserName;
use std::sync::Arc;
use tonic::Status;
use uuid::Uuid;

/// What a caller wants executed.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// The action.
    pub action: Digest,
    /// Run it although its result may be known.
    pub skip_cache_lookup: bool,
    /// Lower goes first.
    pub priority: i32,
}

/// Takes an action in; whoever asks listens to it from now on. An error means that nothing was begun.
pub async fn execute(app: &Arc<App>, caller: &Identity, wish: Wish) -> Result<Listener, FarmError> {
    let task = Task::read(app, wish.action).await?;
    let (operation, is_new) = join_or_add(app, &caller.user, wish, task);
    let listener = operation.listen(true, app.clock.clone());
    if is_new {
        // On its own: when this caller leaves in the middle, others may have joined.
        let (app, user) = (app.clone(), caller.user.clone());
        let admitted = app.tasks.clone().spawn(async move { admit(&app, &operation, wish, &user).await });
        admitted.await.map_err(|_| FarmError::Unavailable("the coordinator is stopping; ask again".to_owned()))??;
    }
    Ok(listener)
}

/// The operation that a wish is fulfilled by, and whether it was made for it.
fn join_or_add(app: &App, user: &UserName, wish: Wish, task: Task) -> (Arc<Operation>, bool) {
    let mut table = app.actions.table();
    let running = table.in_flight(&task.action).cloned();
    if let Some(running) = &running
        && !task.do_not_cache
        // It may be about to be answered from the cache, which this caller does not want.
        && !(wish.skip_cache_lookup && matches!(running.progress(), Progress::CacheCheck))
    {
        running.join(user, app.now());
        return (running.clone(), false);
    }
    let shared = running.is_none() && !task.do_not_cache;
    let operation = Operation::new(task, user.clone(), app.now());
    table.add(operation.clone(), shared);
    (operation, true)
}

async fn admit(app: &Arc<App>, operation: &Arc<Operation>, wish: Wish, user: &UserName) -> Result<(), FarmError> {
    let admitted = answer_or_enqueue(app, operation, wish, user).await;
    if let Err(error) = &admitted {
        // For those who joined meanwhile; the first is told directly.
        app.actions.table().finish(operation, failure(error), app.now());
    }
    admitted
}

async fn answer_or_enqueue(
    app: &Arc<App>,
    operation: &Arc<Operation>,
    wish: Wish,
    user: &UserName,
) -> Result<(), FarmError> {
    let task = &operation.task;
    if !wish.skip_cache_lookup
        && !task.do_not_cache
        && let Some(result) = cache::lookup(app, &task.action, Inline::default()).await?
    {
        tracing::debug!(operation = %operation.id, action = %task.action, "answered from the action cache");
        let known = response(Some(result), true, &Status::ok(""));
        app.actions.table().finish(operation, known, app.now());
        return Ok(());
    }
    if let Some(why) = app.actions.unmet(&task.demand)
        && all_met(app).await?
    {
        return Err(FarmError::NotReady(format!("{why}; the action {} can run nowhere", task.action)));
    }
    let limits = &app.config.reapi;
    let mut table = app.actions.table();
    if limits.actions_per_user > 0 && table.unfinished_of(user) > limits.actions_per_user {
        let limit = limits.actions_per_user;
        return Err(FarmError::Exhausted(format!("{user} has {limit} actions already (reapi.actions_per_user)")));
    }
    table
        .enqueue(operation, wish.priority, limits.queue)
        .map_err(|full| FarmError::Exhausted(format!("{full} (reapi.queue)")))?;
    drop(table);
    app.actions.wake.notify_one();
    Ok(())
}

/// Whether every machine that could run something has been met: then what none of them has, none has.
pub(super) async fn all_met(app: &App) -> Result<bool, FarmError> {
    if app.now().since(app.started_at) >= SETTLE {
        return Ok(true);
    }
    if app.actions.has_met_none() {
        return Ok(false);
    }
    Ok(app.store.buildlets().await?.iter().all(|row| app.registry.was_heard(&row.id)))
}

/// Listens to an operation again.
pub fn wait(app: &App, caller: &Identity, name: &str) -> Result<Listener, FarmError> {
    Ok(find(app, caller, name)?.listen(false, app.clock.clone()))
}

/// Takes a caller's wish back. What nobody else wants ends; so does what an admin who did not ask for it
/// wants to end.
pub fn cancel(app: &App, caller: &Identity, name: &str) -> Result<(), FarmError> {
    let operation = find(app, caller, name)?;
    if operation.is_of(&caller.user) && !operation.leave(&caller.user) {
        return Ok(());
    }
    tracing::info!(operation = %operation.id, user = %caller.user, "an action was cancelled");
    let error = FarmError::Cut(format!("cancelled by {}", caller.user));
    app.actions.table().finish(&operation, failure(&error), app.now());
    app.actions.wake.notify_one();
    Ok(())
}

/// An operation by the name that a caller knows it by: whatever was put before its id. One that others
/// asked for is as unknown as one that is not there.
pub fn find(app: &App, caller: &Identity, name: &str) -> Result<Arc<Operation>, FarmError> {
    let id = name.rsplit('/').next().and_then(|id| id.parse::<Uuid>().ok());
    let found = id.and_then(|id| app.actions.table().get(id).cloned());
    found
        .filter(|operation| operation.is_of(&caller.user) || caller.role == Role::Admin)
        .ok_or_else(|| FarmError::NotFound { what: "operation", name: name.chars().take(200).collect() })
}
