//! Everything a use case needs, built once and shared.

use crate::config::Config;
use crate::farm::actions::Actions;
use crate::farm::bootstrap::Bootstraps;
use crate::farm::snapshots::Kept;
use crate::registry::Registry;
use crate::ssh::Gateway;
use crate::store::Store;
use motefarm_cas::store::Store as Cas;
use motefarm_core::{Clock, ExecId, InstanceId, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Notify, OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The farm.
pub struct App {
    /// What was configured.
    pub config: Config,
    /// What is stored.
    pub store: Store,
    /// Content by digest.
    pub cas: Cas,
    /// Who is in contact.
    pub registry: Registry,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// When this process began to serve.
    pub started_at: Timestamp,
    /// Ends everything that runs on.
    pub shutdown: CancellationToken,
    /// Everything that runs on, to be awaited.
    pub tasks: TaskTracker,
    /// Bumped when an instance changes state.
    pub changes: watch::Sender<u64>,
    /// Wakes the allocator: a slot or a request has come.
    pub wake_allocator: Notify,
    /// Wakes the reaper: an instance is to be taken down.
    pub wake_reaper: Notify,
    /// Actions that wait and run.
    pub actions: Actions,
    /// What keeps the trees of snapshots.
    pub kept: Kept,
    /// The ssh gateway, once it serves.
    pub ssh: OnceLock<Arc<Gateway>>,
    /// Bootstrap toolchains that were asked for.
    pub(crate) bootstraps: Bootstraps,
    /// What fetches for users, once it has been needed.
    pub(crate) fetcher: OnceCell<reqwest::Client>,
    /// Until when renewing again would change nothing, by instance.
    pub(crate) renewed_until: Mutex<HashMap<InstanceId, Timestamp>>,
    /// Executions that somebody reads now: how many readers.
    pub(crate) readers: Mutex<HashMap<ExecId, usize>>,
}

impl App {
    /// Puts the parts together.
    pub fn new(config: Config, store: Store, cas: Cas, clock: Arc<dyn Clock>) -> Arc<Self> {
        let started_at = clock.now();
        Arc::new(Self {
            config,
            store,
            cas,
            registry: Registry::default(),
            clock,
            started_at,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            changes: watch::Sender::new(0),
            wake_allocator: Notify::new(),
            wake_reaper: Notify::new(),
            actions: Actions::default(),
            kept: Kept::default(),
            ssh: OnceLock::new(),
            bootstraps: Bootstraps::default(),
            fetcher: OnceCell::new(),
            renewed_until: Mutex::default(),
            readers: Mutex::default(),
        })
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Says that some instance has changed state.
    pub fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Starts a task that is awaited at shutdown. It must end by itself when `shutdown` is cancelled.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Writes an audit row; a failure is logged, not passed on: the act has happened.
    pub async fn audit(&self, actor: &str, action: &'static str, subject: &str, detail: &str) {
        if let Err(error) = self.store.audit(actor, action, subject, detail, self.now()).await {
            tracing::error!(%error, actor, action, subject, "an audit row could not be written");
        }
    }
}
