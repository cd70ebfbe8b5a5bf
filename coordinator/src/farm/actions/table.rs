//! Which operations there are, and which of them wait. In memory, with no IO; its bounds are the queue's,
//! the machines' slots, and [`MOST_FINISHED`].

use super::operation::{Operation, Progress};
use motefarm_core::action_queue::{ActionQueue, Attempts, Grant, Machine, QueueFull, Waiting};
use motefarm_core::name::UserName;
use motefarm_core::{Digest, Timestamp};
use motefarm_proto::reapi::ExecuteResponse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long an operation can be asked for when it is over.
pub(super) const KEEP_FINISHED: Duration = Duration::from_secs(300);
/// The most that are kept that long.
pub(super) const MOST_FINISHED: usize = 1000;

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    operations: HashMap<Uuid, Arc<Operation>>,
    /// Those that others may join, by their actions.
    in_flight: HashMap<Digest, Uuid>,
    queue: ActionQueue,
    finished: VecDeque<(Timestamp, Uuid)>,
}

impl Table {
    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<Operation>> {
        self.operations.get(&id)
    }

    /// The operation that makes the result of `action` already, if it may be shared.
    pub(super) fn in_flight(&self, action: &Digest) -> Option<&Arc<Operation>> {
        self.operations.get(self.in_flight.get(action)?)
    }

    /// Adds an operation; one that may be shared can be joined from now on.
    pub(super) fn add(&mut self, operation: Arc<Operation>, shared: bool) {
        if shared {
            self.in_flight.insert(operation.task.action, operation.id);
        }
        self.operations.insert(operation.id, operation);
    }

    /// Puts an operation into the queue.
    pub(super) fn enqueue(&mut self, operation: &Operation, priority: i32, bound: usize) -> Result<(), QueueFull> {
        let demand = operation.task.demand.clone();
        let waiting = Waiting { id: operation.id, priority, demand, attempts: Attempts::default() };
        self.queue.push(waiting, bound)?;
        operation.reached(Progress::Queued);
        Ok(())
    }

    /// Puts one back after an attempt that came to nothing, unless it is over.
    pub(super) fn put_back(&mut self, operation: &Operation, grant: Grant) {
        if !operation.is_done() {
            self.queue.put_back(grant.waiting, grant.place);
            operation.reached(Progress::Queued);
        }
    }

    /// The next to run, and where.
    pub(super) fn grant(&mut self, machines: &[Machine], now: Timestamp) -> Option<(Arc<Operation>, Grant)> {
        loop {
            let grant = self.queue.grant(machines, now)?;
            if let Some(operation) = self.operations.get(&grant.waiting.id) {
                return Some((operation.clone(), grant));
            }
        }
    }

    /// Ends an operation, wherever it is. Only the first end counts.
    pub(super) fn finish(&mut self, operation: &Operation, response: ExecuteResponse, now: Timestamp) {
        self.queue.remove(operation.id);
        self.no_longer_in_flight(operation);
        if !operation.is_done() {
            operation.reached(Progress::Done(Arc::new(response)));
            self.finished.push_back((now, operation.id));
        }
        operation.cancelled.cancel();
    }

    fn no_longer_in_flight(&mut self, operation: &Operation) {
        if self.in_flight.get(&operation.task.action) == Some(&operation.id) {
            self.in_flight.remove(&operation.task.action);
        }
    }

    /// Forgets what has been over for long, or is one too many.
    pub(super) fn forget(&mut self, now: Timestamp) {
        while let Some((since, id)) = self.finished.front().copied()
            && (self.finished.len() > MOST_FINISHED || now.since(since) >= KEEP_FINISHED)
        {
            self.finished.pop_front();
            self.operations.remove(&id);
        }
    }

    /// Those that are not over.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations.values().filter(|operation| !operation.is_done())
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Those that wait for a slot.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.queue.iter().filter_map(|waiting| self.operations.get(&waiting.id))
    }

    /// How many of this user's are not over.
    pub(super) fn unfinished_of(&self, user: &UserName) -> usize {
        self.unfinished().filter(|operation| operation.is_of(user)).count()
    }

    /// How many wait, and how many run.
    pub(super) fn counts(&self) -> (usize, usize) {
        let waiting = self.queue.len();
        (waiting, self.unfinished().count().saturating_sub(waiting))
    }
}
