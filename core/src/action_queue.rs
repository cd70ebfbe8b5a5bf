//! Which action runs next, and where.

use crate::clock::Timestamp;
use crate::platform::{Demand, Offer};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use uuid::Uuid;

/// How often an action is begun in all; each time but the first because a machine was lost with it or
/// failed it.
pub const MAX_ATTEMPTS: usize = 4;
/// How long an action waits before its second attempt; each later one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// An action that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Of its operation.
    pub id: Uuid,
    /// Lower goes first.
    pub priority: i32,
    /// What it needs.
    pub demand: Demand,
    /// What became of it before.
    pub attempts: Attempts,
}

/// What became of an action so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Machines that failed it.
    failed_on: BTreeSet<String>,
    begun: usize,
    not_before: Option<Timestamp>,
}

impl Attempts {
    /// Notes that an attempt on this machine came to nothing. Answers whether there is to be another.
    pub fn failed(&mut self, machine: &str, now: Timestamp) -> bool {
        self.failed_on.insert(machine.to_owned());
        self.begun += 1;
        let doublings = u32::try_from(self.begun - 1).unwrap_or(u32::MAX).min(16);
        self.not_before = Some(now + FIRST_PAUSE * 2u32.pow(doublings));
        self.begun < MAX_ATTEMPTS
    }

    /// Attempts that came to nothing.
    pub fn count(&self) -> usize {
        self.begun
    }
}

/// A machine in contact.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its own id.
    pub id: String,
    /// Action slots that nothing runs on.
    pub free: u64,
    /// What it is.
    pub offer: Offer,
}

/// The queue is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} actions wait already; try again later")]
pub struct QueueFull(pub usize);

/// Actions that wait, by priority and then in the order they came. One that goes back after a failed
/// attempt has its old place.
#[derive(Debug, Clone, Default)]
pub struct ActionQueue {
    waiting: BTreeMap<(i32, u64), Waiting>,
    places: BTreeMap<Uuid, (i32, u64)>,
    next_place: u64,
}

/// An action's place, to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(i32, u64);

/// An action that is to run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub waiting: Waiting,
    /// The place it had.
    pub place: Place,
    /// Where: the machine's id.
    pub machine: String,
}

impl ActionQueue {
    /// Adds an action at the end of its priority; refused when `bound` wait.
    pub fn push(&mut self, waiting: Waiting, bound: usize) -> Result<(), QueueFull> {
        if self.waiting.len() >= bound {
            return Err(QueueFull(self.waiting.len()));
        }
        let place = Place(waiting.priority, self.next_place);
        self.next_place += 1;
        self.put_back(waiting, place);
        Ok(())
    }

    /// Puts an action back where it was. It was there before, so no bound refuses it.
    pub fn put_back(&mut self, waiting: Waiting, place: Place) {
        let key = (place.0, place.1);
        self.places.insert(waiting.id, key);
        self.waiting.insert(key, waiting);
    }

    /// Takes an action out; `None` if it does not wait.
    pub fn remove(&mut self, id: Uuid) -> Option<Waiting> {
        self.waiting.remove(&self.places.remove(&id)?)
    }

    /// Actions that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those that wait, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    /// Takes out the first action that some machine has a slot for, and says which. One that fits no
    /// machine holds up none behind it. Machines that failed an action before get it only when no other
    /// in contact fits, busy or not. Among several the one with most free slots.
    pub fn grant(&mut self, machines: &[Machine], now: Timestamp) -> Option<Grant> {
        if machines.iter().all(|machine| machine.free == 0) {
            return None;
        }
        // Many wait for the same: what found no machine once finds none again.
        let mut hopeless = HashSet::new();
        let (key, machine) = self.waiting.iter().find_map(|(key, waiting)| {
            let fresh = waiting.attempts.count() == 0;
            if waiting.attempts.not_before.is_some_and(|then| then > now)
                || (fresh && hopeless.contains(&waiting.demand))
            {
                return None;
            }
            let machine = choose(waiting, machines);
            if machine.is_none() && fresh {
                hopeless.insert(waiting.demand.clone());
            }
            machine.map(|machine| (*key, machine.id.clone()))
        })?;
        let waiting = self.waiting.remove(&key)?;
        self.places.remove(&waiting.id);
        Some(Grant { waiting, place: Place(key.0, key.1), machine })
    }
}

fn choose<'a>(waiting: &Waiting, machines: &'a [Machine]) -> Option<&'a Machine> {
    let fitting = || machines.iter().filter(|machine| machine.offer.satisfies(&waiting.demand));
    let is_untried = |machine: &&Machine| !waiting.attempts.failed_on.contains(&machine.id);
    let others = fitting().any(|machine| is_untried(&machine));
    fitting()
        .filter(|machine| machine.free > 0 && (!others || is_untried(machine)))
        // The first of several equals.
        .rev()
        .max_by_key(|machine| machine.free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUND: usize = 1000;
    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn waiting(n: u128, priority: i32, pool: &str) -> Waiting {
        let asked = (!pool.is_empty()).then(|| ("pool".to_owned(), pool.to_owned()));
        let demand = Demand::new(asked).unwrap();
        Waiting { id: Uuid::from_u128(n), priority, demand, attempts: Attempts::default() }
    }

    fn machine(id: &str, free: u64, pool: &str) -> Machine {
        let labels = BTreeMap::from([("pool".to_owned(), pool.to_owned())]);
        Machine { id: id.to_owned(), free, offer: Offer::new(&"t".parse().unwrap(), "none", false, &labels) }
    }

    #[test]
    fn one_that_failed_an_action_gets_it_last() {
        let mut queue = ActionQueue::default();
        queue.push(waiting(1, 0, ""), BOUND).unwrap();
        let mut machines = vec![machine("a", 4, "x"), machine("b", 2, "x")];
        let mut grant = queue.grant(&machines, NOW).unwrap();
        assert_eq!(grant.machine, "a");
        assert!(grant.waiting.attempts.failed("a", NOW));
        queue.put_back(grant.waiting, grant.place);
        assert_eq!(queue.grant(&machines, NOW), None, "not at once");
        let later = NOW + Duration::from_secs(1);
        machines[1].free = 0;
        assert_eq!(queue.grant(&machines, later), None, "b is busy, and will be free");
        machines[1].free = 1;
        let mut grant = queue.grant(&machines, later).unwrap();
        assert_eq!(grant.machine, "b");
        assert!(grant.waiting.attempts.failed("b", later));
        queue.put_back(grant.waiting, grant.place);
        let mut grant = queue.grant(&machines, later + Duration::from_secs(10)).unwrap();
        assert_eq!(grant.machine, "a", "everybody failed it: anybody may");
        assert!(grant.waiting.attempts.failed("a", later));
        assert!(!grant.waiting.attempts.failed("a", later), "the budget is used up");
    }

    #[test]
    fn a_full_queue_refuses_and_takes_back() {
        let mut queue = ActionQueue::default();
        queue.push(waiting(1, 0, ""), 1).unwrap();
        assert_eq!(queue.push(waiting(2, 0, ""), 1), Err(QueueFull(1)));
        let grant = queue.grant(&[machine("a", 1, "x")], NOW).unwrap();
        queue.push(waiting(3, 0, ""), 1).unwrap();
        queue.put_back(grant.waiting, grant.place);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.iter().next().unwrap().id, Uuid::from_u128(1), "its old place");
        assert!(queue.remove(Uuid::from_u128(1)).is_some());
        assert!(queue.remove(Uuid::from_u128(1)).is_none());
    }

    fn any_waiting() -> impl Strategy<Value = Vec<(i32, &'static str)>> {
        prop::collection::vec((-2..3i32, prop::sample::select(vec!["", "x", "y", "z"])), 0..40)
    }

    fn any_machines() -> impl Strategy<Value = Vec<(u64, &'static str)>> {
        prop::collection::vec((0..4u64, prop::sample::select(vec!["x", "y"])), 0..5)
    }

    proptest! {
        /// Whatever waits and whoever is there: nobody gets more than they have slots for or than they
        /// fit, what could still run does not wait, and nobody is overtaken by one who came later with
        /// the same wishes.
        #[test]
        fn slots_are_used_up_in_order(waiters in any_waiting(), offered in any_machines()) {
            let mut queue = ActionQueue::default();
            for (n, (priority, pool)) in waiters.iter().enumerate() {
                queue.push(waiting(n as u128, *priority, pool), BOUND).unwrap();
            }
            let mut machines: Vec<Machine> = offered
                .iter().enumerate().map(|(n, (free, pool))| machine(&n.to_string(), *free, pool)).collect();
            let mut granted: Vec<Waiting> = Vec::new();
            while let Some(grant) = queue.grant(&machines, NOW) {
                let machine = machines.iter_mut().find(|machine| machine.id == grant.machine).unwrap();
                prop_assert!(machine.free > 0 && machine.offer.satisfies(&grant.waiting.demand));
                machine.free -= 1;
                granted.push(grant.waiting);
            }
            prop_assert_eq!(granted.len() + queue.len(), waiters.len());
            for left in queue.iter() {
                prop_assert!(!machines.iter().any(|m| m.free > 0 && m.offer.satisfies(&left.demand)));
                for before in granted.iter().filter(|one| one.demand == left.demand) {
                    prop_assert!((before.priority, before.id) < (left.priority, left.id));
                }
            }
            for pair in granted.windows(2).filter(|pair| pair[0].demand == pair[1].demand) {
                prop_assert!((pair[0].priority, pair[0].id) < (pair[1].priority, pair[1].id));
            }
        }

        /// Failing and going back neither loses an action nor runs it more often than its budget, and
        /// never twice on one machine while another that fits has not tried.
        #[test]
        fn every_action_ends(waiters in any_waiting(), machines in 1..4usize) {
            let mut queue = ActionQueue::default();
            for (n, (priority, _)) in waiters.iter().enumerate() {
                queue.push(waiting(n as u128, *priority, ""), BOUND).unwrap();
            }
            let machines: Vec<Machine> = (0..machines).map(|n| machine(&n.to_string(), 1, "x")).collect();
            let (mut now, mut ended) = (NOW, 0);
            let mut runs: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
            while !queue.is_empty() {
                now = now + Duration::from_secs(60);
                while let Some(mut grant) = queue.grant(&machines, now) {
                    let before = runs.entry(grant.waiting.id).or_default();
                    before.push(grant.machine.clone());
                    let different: BTreeSet<&String> = before.iter().collect();
                    prop_assert_eq!(different.len(), before.len().min(machines.len()));
                    if grant.waiting.attempts.failed(&grant.machine, now) {
                        queue.put_back(grant.waiting, grant.place);
                    } else {
                        ended += 1;
                    }
                }
            }
            prop_assert_eq!(ended, waiters.len());
            prop_assert!(runs.values().all(|runs| runs.len() == MAX_ATTEMPTS));
        }
    }
}
