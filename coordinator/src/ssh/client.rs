//! Who has signed in on a connection.

use super::backlog::Backlog;
use super::certificate::Grant;
use crate::app::App;
use crate::farm::usage::Usage;
use crate::farm::{FarmError, access};
use crate::identity::Identity;
use crate::store::InstanceRow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Everything the connection's channels share.
pub(super) struct Client {
    pub(super) app: Arc<App>,
    pub(super) grant: Grant,
    pub(super) identity: Identity,
    /// As it was when they signed in.
    pub(super) instance: InstanceRow,
    pub(super) backlog: Arc<Backlog>,
    pub(super) from: SocketAddr,
    channels: AtomicUsize,
    /// Cancelled when nothing may go on; `why` says it.
    pub(super) over: CancellationToken,
    why: OnceLock<String>,
    /// Cuts the connection.
    pub(super) cut: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    #[expect(clippy::too_many_arguments, reason = "a connection's parts, put together once")]
    pub(super) fn new(
        app: &Arc<App>,
        grant: Grant,
        identity: Identity,
        instance: InstanceRow,
        backlog: Arc<Backlog>,
        cut: CancellationToken,
        from: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            app: app.clone(),
            grant,
            identity,
            instance,
            backlog,
            from,
            channels: AtomicUsize::new(0),
            over: CancellationToken::new(),
            why: OnceLock::new(),
            cut,
            _permit: permit,
        }
    }

    /// How many channels there are now.
    pub(super) fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Counts a channel until the guard goes.
    pub(super) fn count(self: &Arc<Self>) -> Counted {
        self.channels.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Ends everything of this connection, for the reason given. The first reason is the one.
    pub(super) fn end(&self, why: String) {
        let _ = self.why.set(why);
        self.over.cancel();
    }

    /// Waits for the end, and answers its reason.
    pub(super) async fn ended(&self) -> String {
        self.over.cancelled().await;
        self.why.get().cloned().unwrap_or_default()
    }

    /// Begins to use the instance.
    pub(super) async fn usage(&self) -> Result<Usage, FarmError> {
        Usage::begin(&self.app, &self.identity, &self.instance.id.to_string()).await
    }

    /// Writes an audit row, in the background: nobody waits for it.
    pub(super) fn audit(&self, action: &'static str, detail: &str) {
        let (app, actor, name) = (self.app.clone(), self.identity.user.to_string(), self.instance.name.clone());
        let detail = format!("{detail} from {}", self.from);
        self.app.spawn(async move { app.audit(&actor, action, &name, &detail).await });
    }

    /// What to tell of an error: of an instance that has ended, why it has.
    pub(super) async fn explain(&self, error: &FarmError) -> String {
        match access::usable_instance(&self.app, &self.identity, &self.instance.id.to_string()).await {
            Err(ended @ FarmError::Ended { .. }) => ended.to_string(),
            _ => error.to_string(),
        }
    }
}

/// See [`Client::count`].
pub(super) struct Counted(Arc<Client>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.channels.fetch_sub(1, Ordering::Relaxed);
    }
}
