//! From the relay's configuration to a serving relay, and back down in order.

use super::config::RelayConfig;
use super::{Relay, serve};
use crate::authorization::Authorization;
use crate::local_auth::LocalAuth;
use crate::secret_file::SecretFile;
use anyhow::Context as _;
use motefarm_core::SystemClock;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A relay whose files were found good.
pub struct Ready {
    config: RelayConfig,
    relay: Arc<Relay>,
    authorization: Option<Arc<SecretFile<Authorization>>>,
}

impl Ready {
    /// Reads what is named; opens no port.
    pub fn new(config: RelayConfig) -> anyhow::Result<Self> {
        let authorization = config.token_file.as_deref();
        let authorization = authorization.map(|path| SecretFile::open(path, Authorization::parse).map(Arc::new));
        let authorization = authorization.transpose()?;
        let relay = Arc::new(Relay::new(&config, authorization.clone())?);
        Ok(Self { config, relay, authorization })
    }

    /// Serves until it is told to stop. `ignores_interrupt`: in `http_proxy`'s place, where an interrupt of the
    /// build reaches it as well and is not meant for it.
    pub async fn run(self, ignores_interrupt: bool) -> anyhow::Result<()> {
        let Self { config, relay, authorization } = self;
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = TcpListener::bind(("127.0.0.1", config.port)).await;
        let listener = listener.with_context(|| format!("can not listen on 127.0.0.1:{}", config.port))?;
        let address = listener.local_addr()?;
        let (shutdown, beside) = (CancellationToken::new(), TaskTracker::new());
        if let Some(file) = &config.local_auth {
            let opened = LocalAuth::open(file, authorization, Arc::new(SystemClock)).await;
            let local_auth = opened.with_context(|| format!("can not write {}", file.display()))?;
            tracing::info!(LUCI_CONTEXT = %local_auth.context().display(), "clients are given tokens");
            beside.spawn(local_auth.serve(shutdown.clone()));
        }
        let port = tokio::spawn(serve(relay.clone(), listener, config.connections, shutdown.clone()));
        tracing::info!(%address, upstream = %config.upstream, "the relay serves");
        tokio::spawn(async move {
            if let Err(why) = relay.look().await {
                tracing::warn!("{why}; calls fail until it answers");
            }
        });
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => if ignores_interrupt { continue } else { break },
            }
        }
        tracing::info!("stopping: what is in progress is answered first");
        shutdown.cancel();
        beside.close();
        let ending = async {
            let ended = port.await;
            beside.wait().await;
            ended
        };
        tokio::select! {
            ended = ending => ended?,
            _ = terminate.recv() => tracing::warn!("told to stop again: stopping at once"),
        }
        Ok(())
    }
}
