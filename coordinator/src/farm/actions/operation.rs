//! One action in the making, and those who wait for it.

use super::lock;
use super::task::Task;
use crate::farm::FarmError;
use crate::grpc::status;
use motefarm_cas::store::PinGuard;
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;
use motefarm_proto::reapi::{ActionResult, ExecuteResponse, ExecutedActionMetadata};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

/// How far it is.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The cache is being asked.
    CacheCheck,
    /// It waits for a slot: for the first time, or again.
    Queued,
    /// A machine has it. What is known of when and where.
    Executing(Arc<ExecutedActionMetadata>),
    /// It is over, one way or another.
    Done(Arc<ExecuteResponse>),
}

/// See the module.
pub struct Operation {
    /// Its name, without what callers put before it.
    pub id: Uuid,
    /// What is to be done.
    pub task: Arc<Task>,
    /// When it came.
    pub queued_at: Timestamp,
    /// Cancelled to take it from the machine that has it.
    pub(super) cancelled: CancellationToken,
    progress: watch::Sender<Progress>,
    crowd: Mutex<Crowd>,
    /// What was last known of its execution.
    run: Mutex<Option<Arc<ExecutedActionMetadata>>>,
    /// Keeps outputs until somebody has been told of them.
    pins: Mutex<Option<PinGuard>>,
}

/// Who is interested.
struct Crowd {
    /// Streams that are open.
    listeners: usize,
    /// Since when none is.
    alone_since: Timestamp,
    /// Who has asked for it.
    owners: BTreeSet<UserName>,
}

impl Operation {
    /// One that begins with a look into the cache.
    pub(super) fn new(task: Task, owner: UserName, now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            id: Uuid::new_v4(),
            task: Arc::new(task),
            queued_at: now,
            cancelled: CancellationToken::new(),
            progress: watch::Sender::new(Progress::CacheCheck),
            crowd: Mutex::new(Crowd { listeners: 0, alone_since: now, owners: BTreeSet::from([owner]) }),
            run: Mutex::default(),
            pins: Mutex::default(),
        })
    }

    /// How far it is now.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Done(_))
    }

    /// Says how far it is; an operation that is over stays over.
    pub(super) fn reached(&self, progress: Progress) {
        if let Progress::Executing(metadata) = &progress {
            *lock(&self.run) = Some(metadata.clone());
        }
        self.progress.send_if_modified(|now| {
            let goes_on = !matches!(now, Progress::Done(_));
            if goes_on {
                *now = progress;
            }
            goes_on
        });
    }

    /// Keeps what its result names.
    pub(super) fn keep(&self, pins: PinGuard) {
        *lock(&self.pins) = Some(pins);
    }

    /// Somebody has been told of the result: from here on it ages like everything else.
    fn told(&self) {
        lock(&self.pins).take();
    }

    /// Counts one more who asked for it.
    pub(super) fn join(&self, user: &UserName, now: Timestamp) {
        let mut crowd = lock(&self.crowd);
        crowd.owners.insert(user.clone());
        // They are about to listen.
        crowd.alone_since = now;
    }

    /// Whether this user has asked for it.
    pub fn is_of(&self, user: &UserName) -> bool {
        lock(&self.crowd).owners.contains(user)
    }

    /// One who asked for it wants it no more. Answers whether nobody else does.
    pub(super) fn leave(&self, user: &UserName) -> bool {
        let mut crowd = lock(&self.crowd);
        crowd.owners.remove(user);
        crowd.owners.is_empty()
    }

    /// Since when no stream has listened; `None`: one does.
    pub(super) fn alone_since(&self) -> Option<Timestamp> {
        let crowd = lock(&self.crowd);
        (crowd.listeners == 0).then_some(crowd.alone_since)
    }

    /// Opens a stream's ear, from the beginning on or from now.
    pub(super) fn listen(self: &Arc<Self>, from_start: bool, clock: Arc<dyn motefarm_core::Clock>) -> Listener {
        lock(&self.crowd).listeners += 1;
        let mut progress = self.progress.subscribe();
        progress.mark_changed();
        Listener { operation: self.clone(), progress, run_is_news: from_start, clock }
    }
}

/// Somebody who waits for an operation. Dropping it is leaving.
pub struct Listener {
    operation: Arc<Operation>,
    progress: watch::Receiver<Progress>,
    /// It has not been told that the action runs, and is to be told before the end.
    run_is_news: bool,
    clock: Arc<dyn motefarm_core::Clock>,
}

impl Listener {
    /// What is listened to.
    pub fn operation(&self) -> &Arc<Operation> {
        &self.operation
    }

    /// The state at once, then each change; what changes faster than it is asked for is told once, but
    /// that an action ran is told before its end. Cancel-safe.
    pub async fn next(&mut self) -> Progress {
        // The sender lives as long as the operation, which is held here.
        let _ = self.progress.changed().await;
        let progress = self.progress.borrow_and_update().clone();
        match &progress {
            Progress::Done(_) => {
                let run = lock(&self.operation.run).clone();
                if let Some(run) = run.filter(|_| std::mem::take(&mut self.run_is_news)) {
                    self.progress.mark_changed();
                    return Progress::Executing(run);
                }
                self.operation.told();
            }
            Progress::Executing(_) => self.run_is_news = false,
            Progress::CacheCheck | Progress::Queued => self.run_is_news = true,
        }
        progress
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut crowd = lock(&self.operation.crowd);
        crowd.listeners -= 1;
        crowd.alone_since = self.clock.now();
    }
}

/// A response that says how it ended: well, or with a status, and with whatever result there is.
pub(super) fn response(result: Option<ActionResult>, cached_result: bool, status: &Status) -> ExecuteResponse {
    ExecuteResponse { result, cached_result, status: Some(status::to_message(status)), ..ExecuteResponse::default() }
}

/// A response without a result: why.
pub(super) fn failure(error: &FarmError) -> ExecuteResponse {
    response(None, false, &Status::from(error))
}
