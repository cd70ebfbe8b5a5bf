//! The content store as its operator sees it. Callers are admins (the edge has checked).

use super::FarmError;
use crate::app::App;
use crate::identity::Identity;
use motefarm_cas::store::{Collected, Store as Cas, StoreError, VerifyProgress};
use motefarm_core::Digest;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Evicts down to `target_bytes`, or the store's bound; what went, and the disk space still taken.
pub async fn collect(app: &App, caller: &Identity, target_bytes: Option<u64>) -> Result<(Collected, u64), FarmError> {
    let target = target_bytes.unwrap_or(app.cas.limits().max_bytes);
    let collected = blocking(&app.cas, move |cas| cas.collect(target)).await?;
    let detail = format!("{} blobs, {} bytes", collected.blobs, collected.disk_bytes);
    app.audit(caller.user.as_str(), "content collect", &target.to_string(), &detail).await;
    Ok((collected, app.cas.stats().disk_bytes))
}

/// Reads and hashes all of it, telling after each blob; ends when nobody listens any more.
pub async fn verify(app: &App, tell: mpsc::Sender<VerifyProgress>) -> Result<(), FarmError> {
    let tell = move |progress| match tell.blocking_send(progress) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    blocking(&app.cas, move |cas| cas.verify_with(tell)).await
}

/// Throws away blobs that were found to be wrong; how many were still there.
pub async fn discard(app: &Arc<App>, caller: &Identity, bad: Vec<Digest>) -> Result<u64, FarmError> {
    let names = bad.iter().map(ToString::to_string).collect::<Vec<_>>();
    let discarded = blocking(&app.cas, move |cas| cas.discard_all(&bad)).await?;
    for name in names {
        tracing::warn!(digest = name, "a wrong blob was thrown away");
        app.audit(caller.user.as_str(), "content discard", &name, "").await;
    }
    Ok(discarded)
}

async fn blocking<T: Send + 'static>(
    cas: &Cas,
    work: impl FnOnce(&Cas) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FarmError> {
    let cas = cas.clone();
    let done = tokio::task::spawn_blocking(move || work(&cas)).await;
    let done =
        done.map_err(|error| FarmError::Unavailable(format!("the content store's work was not finished: {error}")))?;
    done.map_err(FarmError::Content)
}
