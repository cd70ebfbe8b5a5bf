//! Who is next for a slot.

use crate::host_type::HostType;
use crate::id::InstanceId;
use std::collections::BTreeMap;

/// One queued instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// Which instance waits.
    pub id: InstanceId,
    /// What it waits for.
    pub host_type: HostType,
}

/// Queued instances in the order they asked. A plain value: the store keeps the rows, this keeps
/// the rule (first come, first served, each host type by itself).
#[derive(Debug, Clone, Default)]
pub struct WaitQueue(Vec<Waiter>);

impl WaitQueue {
    /// From rows in the order of asking.
    pub fn new(in_order: Vec<Waiter>) -> Self {
        Self(in_order)
    }

    /// How many wait for the same host type ahead of `id`; `None` if it does not wait.
    pub fn ahead_of(&self, id: InstanceId) -> Option<u64> {
        let position = self.0.iter().position(|waiter| waiter.id == id)?;
        let host_type = &self.0[position].host_type;
        Some(self.0[..position].iter().filter(|waiter| waiter.host_type == *host_type).count() as u64)
    }

    /// Who may start now, in order, given free slots by host type.
    pub fn grants(&self, free: &BTreeMap<HostType, u64>) -> Vec<InstanceId> {
        let mut left = free.clone();
        self.0
            .iter()
            .filter(|waiter| match left.get_mut(&waiter.host_type) {
                Some(slots) if *slots > 0 => {
                    *slots -= 1;
                    true
                }
                _ => false,
            })
            .map(|waiter| waiter.id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn waiter(n: u128, host_type: &str) -> Waiter {
        Waiter { id: InstanceId::from_uuid(Uuid::from_u128(n)), host_type: host_type.parse().unwrap() }
    }

    #[test]
    fn a_full_type_does_not_hold_up_another() {
        let queue = WaitQueue::new(vec![waiter(1, "a"), waiter(2, "b"), waiter(3, "a"), waiter(4, "b")]);
        assert_eq!(queue.ahead_of(waiter(3, "a").id), Some(1));
        assert_eq!(queue.ahead_of(waiter(2, "b").id), Some(0));
        assert_eq!(queue.ahead_of(waiter(9, "b").id), None);
        let free = BTreeMap::from([("b".parse().unwrap(), 1)]);
        assert_eq!(queue.grants(&free), vec![waiter(2, "b").id]);
    }
}
