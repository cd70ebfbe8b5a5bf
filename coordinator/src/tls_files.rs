//! Notices when an operator's certificate was replaced in its files.

use crate::app::App;
use motefarm_net::tls::OperatorCertificate;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the files again when they change and on SIGHUP, until shutdown. What can not be used is logged,
/// and the certificate in use stays: connections that stand are not touched in any case.
pub async fn watch(app: Arc<App>, certificate: Arc<OperatorCertificate>, mut hangup: Signal) {
    loop {
        let force = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            _ = hangup.recv() => true,
            () = app.shutdown.cancelled() => return,
        };
        let reading = certificate.clone();
        match tokio::task::spawn_blocking(move || reading.reload(force)).await {
            Ok(Ok(true)) => tracing::info!("the certificate of [tls] was read again"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the new certificate of [tls] is no use; the one before stays in use");
            }
            Err(error) => tracing::error!(%error, "the certificate of [tls] could not be looked at"),
        }
    }
}
