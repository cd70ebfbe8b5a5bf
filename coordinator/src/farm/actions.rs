//! Actions of the Remote Execution API: commands over content by digest, run on any machine that fits,
//! whose results are worth keeping.
//!
//! [`execute`] takes them in, [`schedule`] gives them to machines, [`attempt`] is one machine's try, and
//! [`cache`] keeps results. An action in the making is an [`operation`], known in memory only: it
//! outlives the streams of those who wait for it, and not this process, upon whose death clients ask
//! anew. Digests are of encoded messages, so here, unlike elsewhere in `farm`, messages are the matter.

pub mod attempt;
pub mod cache;
pub mod execute;
pub mod inline;
pub mod operation;
mod outputs;
pub mod result;
pub mod schedule;
mod table;
pub mod task;

use crate::registry::Session;
use motefarm_core::platform::{Demand, Offer, unmet_by_all};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use table::Table;
use tokio::sync::Notify;

/// Every action that waits or runs, and those that ended a short time ago.
#[derive(Default)]
pub struct Actions {
    table: Mutex<Table>,
    /// What machines have been met since this process began, by their ids.
    offers: Mutex<BTreeMap<String, Offer>>,
    /// Something has changed for the scheduler.
    wake: Notify,
    /// Results stored since the cache was last trimmed.
    stored: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Actions {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// A machine is in contact.
    pub fn met(&self, session: &Session) {
        if session.action_slots > 0 {
            lock(&self.offers).insert(session.buildlet_id.clone(), session.offer.clone());
        }
        self.wake.notify_one();
    }

    /// Why no machine met so far could run what asks for this; `None`: one could, in contact or not.
    fn unmet(&self, demand: &Demand) -> Option<String> {
        unmet_by_all(demand, lock(&self.offers).values())
    }

    /// Whether no machine met so far takes actions.
    fn has_met_none(&self) -> bool {
        lock(&self.offers).is_empty()
    }

    /// How many wait, and how many run.
    pub fn counts(&self) -> (usize, usize) {
        self.table().counts()
    }
}
