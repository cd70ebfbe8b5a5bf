//! The action cache: results by a key that only clients can read anything into.

use super::inline::{self, Inline};
use super::result::{self, Held, MAX_RESULT_BYTES};
use crate::app::App;
use crate::farm::FarmError;
use motefarm_cas::store::StoreError as CasError;
use motefarm_core::Digest;
use motefarm_proto::reapi::ActionResult;
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task;

/// Runs something that reads the content store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CasError> + Send + 'static,
) -> Result<T, FarmError> {
    match task::spawn_blocking(work).await {
        Ok(done) => done.map_err(FarmError::Content),
        Err(error) => {
            tracing::error!(%error, "work on the content store did not end");
            Err(FarmError::Unavailable("the farm did not finish reading its content store; ask again".to_owned()))
        }
    }
}

/// The result stored under `key`, if all that it names is there: that then counts as used, as does the row.
pub async fn lookup(app: &Arc<App>, key: &Digest, wanted: Inline) -> Result<Option<ActionResult>, FarmError> {
    let Some(row) = app.store.action_result(key).await? else { return Ok(None) };
    let found = ActionResult::decode(row.as_slice()).ok();
    let Some((named, mut found)) = found.and_then(|found| Some((result::named(&found).ok()?, found))) else {
        tracing::error!(%key, "what lies in the action cache is no result; it is passed over");
        return Ok(None);
    };
    let cas = app.cas.clone();
    let whole = blocking(move || match result::hold(&cas, &named)? {
        Held::All(_pin) => inline::fill(&cas, &mut found, &wanted).map(|()| Some(found)),
        Held::Lacks(_) => Ok(None),
    });
    let whole = whole.await?;
    if whole.is_some() {
        app.store.action_result_used(key, app.now()).await?;
    }
    Ok(whole)
}

/// Stores what a client says is a result, if clients may.
pub async fn update(app: &Arc<App>, key: &Digest, result: &ActionResult) -> Result<(), FarmError> {
    if !app.config.reapi.clients_may_write_action_cache {
        return Err(FarmError::Forbidden(
            "clients do not write this farm's action cache; \
             its operator allows it with reapi.clients_may_write_action_cache"
                .to_owned(),
        ));
    }
    if result.exit_code != 0 {
        let code = result.exit_code;
        return Err(FarmError::Invalid(format!("field action_result.exit_code: is {code}; failures are not kept")));
    }
    result::named(result)?;
    store(app, key, result).await
}

/// Stores a result. Every hundredth part of the bound that has come, what is over it goes.
pub(super) async fn store(app: &Arc<App>, key: &Digest, result: &ActionResult) -> Result<(), FarmError> {
    let bytes = result.encode_to_vec();
    if bytes.len() > MAX_RESULT_BYTES {
        let size = bytes.len();
        return Err(FarmError::Exhausted(format!("a result of {size} bytes; at most {MAX_RESULT_BYTES} are kept")));
    }
    app.store.put_action_result(key, &bytes, app.now()).await?;
    let max = app.config.reapi.action_cache_entries;
    let stored = app.actions.stored.fetch_add(1, Ordering::Relaxed) + 1;
    if stored >= max / 100 {
        app.actions.stored.store(0, Ordering::Relaxed);
        trim(app).await?;
    }
    Ok(())
}

/// Removes the results used least recently that are over the bound.
pub(super) async fn trim(app: &App) -> Result<(), FarmError> {
    let gone = app.store.trim_action_results(app.config.reapi.action_cache_entries).await?;
    if gone > 0 {
        tracing::info!(results = gone, "results used least recently left the action cache");
    }
    Ok(())
}
