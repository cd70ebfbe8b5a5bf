//! Which operations there are, and which of them wait. In memory, with no IO; its bounds are the queue's,
//! the machines' slots, and what is kept of what is over.

use super::operation::{Operation, Progress};
use motefarm_core::action_queue::{ActionQueue, Attempts, Grant, Machine, QueueFull, Waiting};
use motefarm_core::name::UserName;
use motefarm_core::{Digest, Timestamp};
use motefarm_proto::reapi::ExecuteResponse;
use prost::Message as _;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long an operation can be asked for when it is over.
pub(super) const KEEP_FINISHED: Duration = Duration::from_secs(300);
/// The most that are kept that long.
pub(super) const MOST_FINISHED: usize = 1000;
/// The most that their results may take together, encoded.
const MOST_FINISHED_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    operations: HashMap<Uuid, Arc<Operation>>,
    /// Those that others may join, by their actions.
    in_flight: HashMap<Digest, Uuid>,
    queue: ActionQueue,
    finished: VecDeque<Finished>,
    finished_bytes: usize,
}

/// An operation that is over.
struct Finished {
    at: Timestamp,
    id: Uuid,
    bytes: usize,
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
            let bytes = response.encoded_len();
            operation.reached(Progress::Done(Arc::new(response)));
            self.finished.push_back(Finished { at: now, id: operation.id, bytes });
            self.finished_bytes += bytes;
        }
        operation.cancelled.cancel();
        self.forget(now);
    }

    fn no_longer_in_flight(&mut self, operation: &Operation) {
        if self.in_flight.get(&operation.task.action) == Some(&operation.id) {
            self.in_flight.remove(&operation.task.action);
        }
    }

    /// Forgets what has been over for long, or is one too many.
    pub(super) fn forget(&mut self, now: Timestamp) {
        let too_much = |table: &Self| {
            table.finished.len() > MOST_FINISHED
                || table.finished_bytes > MOST_FINISHED_BYTES
                || table.finished.front().is_some_and(|first| now.since(first.at) >= KEEP_FINISHED)
        };
        while too_much(self)
            && let Some(first) = self.finished.pop_front()
        {
            self.finished_bytes -= first.bytes;
            self.operations.remove(&first.id);
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

#[cfg(test)]
mod tests {
    use super::super::task::Task;
    use super::*;
    use motefarm_core::platform::Demand;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn operation(table: &mut Table, n: u32) -> Arc<Operation> {
        let task = Task {
            action: Digest::of(&n.to_le_bytes()),
            command: Digest::EMPTY,
            input_root: Digest::EMPTY,
            demand: Demand::default(),
            timeout: Duration::from_secs(1),
            do_not_cache: false,
        };
        let operation = Operation::new(task, "alice".parse().unwrap(), NOW);
        table.add(operation.clone(), true);
        operation
    }

    #[test]
    fn what_is_over_is_kept_for_a_time_and_within_bounds() {
        let mut table = Table::default();
        let first = operation(&mut table, 0);
        table.finish(&first, ExecuteResponse::default(), NOW);
        assert!(table.get(first.id).is_some() && table.in_flight(&first.task.action).is_none());
        for n in 1..=1000 {
            let more = operation(&mut table, n);
            table.finish(&more, ExecuteResponse::default(), NOW);
        }
        assert!(table.get(first.id).is_none(), "one too many");
        let large = ExecuteResponse { message: "x".repeat(40 << 20), ..ExecuteResponse::default() };
        let both = [operation(&mut table, 2000), operation(&mut table, 2001)];
        both.iter().for_each(|one| table.finish(one, large.clone(), NOW));
        assert!(table.get(both[0].id).is_none() && table.get(both[1].id).is_some(), "too much together");
        table.forget(NOW + KEEP_FINISHED);
        assert!(table.get(both[1].id).is_none() && table.operations.is_empty());
        assert_eq!(table.finished_bytes, 0);
    }

    #[test]
    fn only_the_first_end_counts_and_what_ended_does_not_go_back() {
        let mut table = Table::default();
        let one = operation(&mut table, 0);
        table.enqueue(&one, 0, 10).unwrap();
        let machine = Machine { id: "m".to_owned(), free: 1, offer: Default::default() };
        let (_, grant) = table.grant(&[machine], NOW).unwrap();
        let ended = |message: &str| ExecuteResponse { message: message.to_owned(), ..ExecuteResponse::default() };
        table.finish(&one, ended("first"), NOW);
        table.finish(&one, ended("second"), NOW);
        table.put_back(&one, grant);
        assert!(table.is_idle());
        assert!(one.cancelled.is_cancelled());
        assert!(matches!(one.progress(), Progress::Done(response) if response.message == "first"));
        assert_eq!(table.counts(), (0, 0));
    }
}
