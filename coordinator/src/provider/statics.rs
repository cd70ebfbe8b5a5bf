//! Buildlets that listen at addresses in the configuration.

use super::Provider;
use crate::app::App;
use crate::config::StaticFile;
use crate::farm::contact::{self, Origin};
use crate::link::grpc::GrpcLink;
use anyhow::Context as _;
use motefarm_core::HostType;
use motefarm_net::backoff::Backoff;
use motefarm_net::dial::{Bearer, Target, channel};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One listening buildlet.
pub struct Static {
    target: Target,
    bearer: Bearer,
    host_type: Option<HostType>,
}

impl Static {
    /// Reads the files an entry names.
    pub fn load(file: &StaticFile) -> anyhow::Result<Self> {
        let ca = std::fs::read_to_string(&file.ca_file)
            .with_context(|| format!("can not read {}", file.ca_file.display()))?;
        let token = std::fs::read_to_string(&file.token_file)
            .with_context(|| format!("can not read {}", file.token_file.display()))?;
        let tls = Arc::new(motefarm_net::tls::client_config(&ca)?);
        Ok(Self {
            target: Target::Tls { address: file.address.clone(), tls },
            bearer: Bearer::new(token.trim())
                .with_context(|| format!("{} holds no token", file.token_file.display()))?,
            host_type: file.host_type.as_deref().map(str::parse).transpose()?,
        })
    }
}

#[tonic::async_trait]
impl Provider for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    async fn run(self: Box<Self>, app: Arc<App>) {
        let origin = Origin {
            provider: "static",
            host_type: self.host_type.clone(),
            buildlet_id: None,
            join_token_id: None,
            cut: CancellationToken::new(),
        };
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let contact = async {
            loop {
                let target = || self.target.clone();
                match tokio::try_join!(channel(target()), channel(target())) {
                    Ok((control, bulk)) => {
                        backoff.reset();
                        let link = Arc::new(GrpcLink::new(control, bulk, self.bearer.clone()));
                        if let Err(error) = contact::serve(&app, link, &origin).await {
                            tracing::info!(address = %self.target, %error, "contact with a static buildlet ended");
                        }
                    }
                    Err(error) => tracing::info!(%error, "a static buildlet does not answer"),
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
        };
        tokio::select! {
            () = contact => {}
            () = app.shutdown.cancelled() => {}
        }
    }
}
