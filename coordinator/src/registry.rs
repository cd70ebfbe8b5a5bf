//! Buildlets in contact now. In memory only: a session dies with its connection.

use crate::link::Link;
use motefarm_core::platform::Offer;
use motefarm_core::{HostType, InstanceId};
use motefarm_proto::mote;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One live connection to a buildlet.
pub struct Session {
    /// The buildlet's own UUID.
    pub buildlet_id: String,
    /// What it serves.
    pub host_type: HostType,
    /// Its lease slots.
    pub slots: u64,
    /// Its action slots: others than those, for actions take nobody's instance.
    pub action_slots: u64,
    /// What actions may ask of it.
    pub offer: Offer,
    /// Whether its instances are kept apart from it and from each other.
    pub sandboxed: bool,
    /// Whether it reads this coordinator's CAS itself.
    pub reads_farm_store: bool,
    /// The way to it.
    pub link: Arc<dyn Link>,
    /// Cancelled when the contact ends. Whoever streams over the link stops then, even if its part
    /// of the link still works: the buildlet can not dial anew while half of the old link is held.
    pub ended: CancellationToken,
    /// By which token it joined, if it did.
    pub join_token_id: Option<String>,
    /// Cancelled to end the contact: that token is no longer good.
    pub revoked: CancellationToken,
    running: Mutex<HashMap<InstanceId, HashSet<String>>>,
    actions: Mutex<u64>,
}

/// An action slot that is taken, until it is dropped.
pub struct ActionSlot(Arc<Session>);

impl Drop for ActionSlot {
    fn drop(&mut self) {
        *lock(&self.0.actions) -= 1;
    }
}

impl Session {
    /// A session with what `description` says.
    pub fn new(
        description: &mote::BuildletDescription,
        host_type: HostType,
        link: Arc<dyn Link>,
        join_token_id: Option<String>,
    ) -> Self {
        let offer =
            Offer::new(&host_type, &description.action_sandbox, description.merges_system_files, &description.labels);
        Self {
            buildlet_id: description.buildlet_id.clone(),
            host_type,
            slots: description.lease_slots,
            // One that does not say how it keeps them apart is from before there were actions.
            action_slots: if description.action_sandbox.is_empty() { 0 } else { description.action_slots },
            offer,
            sandboxed: description.sandbox != "none",
            reads_farm_store: description.reads_farm_store,
            link,
            ended: CancellationToken::new(),
            join_token_id,
            revoked: CancellationToken::new(),
            running: Mutex::default(),
            actions: Mutex::default(),
        }
    }

    /// Takes in a report; answers the instances in which an execution has ended since the last one.
    pub fn take_report(&self, report: &mote::BuildletReport) -> Vec<InstanceId> {
        let now_running: HashMap<InstanceId, HashSet<String>> = report
            .instances
            .iter()
            .filter_map(|i| Some((i.instance_id.parse().ok()?, i.running_execs.iter().cloned().collect())))
            .collect();
        let mut running = lock(&self.running);
        let ended = running
            .iter()
            .filter(|(id, before)| now_running.get(id).is_none_or(|now| before.iter().any(|exec| !now.contains(exec))))
            .map(|(id, _)| *id)
            .collect();
        *running = now_running;
        running.retain(|_, execs| !execs.is_empty());
        ended
    }

    /// Action slots that nothing of ours runs on.
    pub fn free_action_slots(&self) -> u64 {
        self.action_slots.saturating_sub(*lock(&self.actions))
    }

    /// Takes an action slot; `None` if none is free.
    pub fn take_action_slot(self: &Arc<Self>) -> Option<ActionSlot> {
        let mut taken = lock(&self.actions);
        if *taken >= self.action_slots {
            return None;
        }
        *taken += 1;
        Some(ActionSlot(self.clone()))
    }

    /// Executions running in an instance, as last reported.
    pub fn running_in(&self, id: InstanceId) -> usize {
        lock(&self.running).get(&id).map_or(0, HashSet::len)
    }

    /// Instances in which something runs, as last reported.
    pub fn busy(&self) -> Vec<InstanceId> {
        lock(&self.running).keys().copied().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// All sessions.
pub struct Registry {
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    /// Buildlets heard of since this process started: their leases may be judged.
    heard: Mutex<HashSet<String>>,
    changes: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { sessions: Mutex::default(), heard: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Registry {
    /// Adds a session; an older one of the same buildlet is replaced.
    pub fn add(&self, session: Arc<Session>) {
        lock(&self.heard).insert(session.buildlet_id.clone());
        lock(&self.sessions).insert(session.buildlet_id.clone(), session);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Removes this session, unless a newer one has taken its place. Tells whether it was there.
    pub fn remove(&self, session: &Arc<Session>) -> bool {
        let mut sessions = lock(&self.sessions);
        let current = sessions.get(&session.buildlet_id).is_some_and(|s| Arc::ptr_eq(s, session));
        if current {
            sessions.remove(&session.buildlet_id);
        }
        drop(sessions);
        self.changes.send_modify(|n| *n += 1);
        current
    }

    /// The session of a buildlet, if it is in contact.
    pub fn get(&self, buildlet_id: &str) -> Option<Arc<Session>> {
        lock(&self.sessions).get(buildlet_id).cloned()
    }

    /// The session of a buildlet, waiting up to `limit` for it to come back.
    pub async fn wait_for(&self, buildlet_id: &str, limit: Duration) -> Option<Arc<Session>> {
        self.wait_until(limit, || self.get(buildlet_id)).await
    }

    /// Waits up to `limit` for a buildlet that serves this host type.
    pub async fn wait_for_host_type(&self, host_type: &HostType, limit: Duration) -> Option<Arc<Session>> {
        self.wait_until(limit, || lock(&self.sessions).values().find(|s| s.host_type == *host_type).cloned()).await
    }

    /// Looks after every change until something is found or `limit` has passed.
    async fn wait_until<T>(&self, limit: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look() {
                    return found;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }

    /// Every session.
    pub fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).values().cloned().collect()
    }

    /// Whether this buildlet was heard of since the process started.
    pub fn was_heard(&self, buildlet_id: &str) -> bool {
        lock(&self.heard).contains(buildlet_id)
    }
}
