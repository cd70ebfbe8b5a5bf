//! The executions of an instance that run now: who watches them, what was acknowledged.

use super::Instance;
use motefarm_core::clock::Timestamp;
use motefarm_core::{Clock as _, ExecId, SystemClock};
use std::sync::Arc;

/// A running execution.
pub(super) struct Running {
    pub(super) last_watched: Timestamp,
    pub(super) watchers: usize,
    acknowledged: u64,
    forwarding: bool,
}

impl Instance {
    /// Counts an execution as running; `false` if it was counted before.
    pub(crate) fn note_running(&self, id: ExecId) -> bool {
        let now = SystemClock.now();
        let mut state = self.state();
        if state.running.contains_key(&id) {
            return false;
        }
        state.running.insert(id, Running { last_watched: now, watchers: 0, acknowledged: 0, forwarding: false });
        true
    }

    /// Counts an execution as ended.
    pub(crate) fn note_ended(&self, id: ExecId, ended_at: Timestamp) {
        let mut state = self.state();
        state.running.remove(&id);
        state.ended += 1;
        state.last_use = state.last_use.max(ended_at.min(SystemClock.now()));
    }

    /// How many executions there are, running and ended.
    pub(crate) fn exec_count(&self) -> u64 {
        let state = self.state();
        state.ended + state.running.len() as u64
    }

    /// Counts a watcher of an execution until the guard goes.
    pub(crate) fn watcher(self: &Arc<Self>, id: ExecId) -> Watcher {
        if let Some(running) = self.state().running.get_mut(&id) {
            running.watchers += 1;
        }
        Watcher { instance: self.clone(), id }
    }

    /// Notes an acknowledgement; `true` if the caller is to forward it, with [`Self::to_forward`].
    pub(crate) fn acknowledge(&self, id: ExecId, offset: u64) -> bool {
        let mut state = self.state();
        let Some(running) = state.running.get_mut(&id) else { return false };
        if offset <= running.acknowledged {
            return false;
        }
        running.acknowledged = offset;
        !std::mem::replace(&mut running.forwarding, true)
    }

    /// What to forward if it is more than `forwarded`; otherwise forwarding is over.
    pub(crate) fn to_forward(&self, id: ExecId, forwarded: u64) -> Option<u64> {
        let mut state = self.state();
        let running = state.running.get_mut(&id)?;
        if running.acknowledged > forwarded {
            return Some(running.acknowledged);
        }
        running.forwarding = false;
        None
    }
}

/// See [`Instance::watcher`].
pub(crate) struct Watcher {
    instance: Arc<Instance>,
    id: ExecId,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(running) = self.instance.state().running.get_mut(&self.id) {
            running.watchers = running.watchers.saturating_sub(1);
            running.last_watched = SystemClock.now();
        }
    }
}
