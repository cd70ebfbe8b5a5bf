//! Where buildlets come from: the resident one on this machine, those that dial in (ours and Go's agents), those that
//! listen.
//!
//! A provider's work is to keep [`contact::serve`](crate::farm::contact::serve) running over a link
//! to each of its buildlets. It knows nothing of leases.

pub mod go_agent;
pub mod join;
pub mod local;
pub mod statics;

use crate::app::App;
use std::sync::Arc;

/// A source of buildlets that runs by itself until shutdown.
#[tonic::async_trait]
pub trait Provider: Send + 'static {
    /// Its word in logs and SQL.
    fn name(&self) -> &'static str;
    /// Keeps its buildlets in contact until `app.shutdown`.
    async fn run(self: Box<Self>, app: Arc<App>);
}

/// Starts a provider.
pub fn start(app: &Arc<App>, provider: Box<dyn Provider>) {
    tracing::debug!(provider = provider.name(), "provider started");
    app.spawn(provider.run(app.clone()));
}
