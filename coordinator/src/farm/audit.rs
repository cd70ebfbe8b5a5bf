//! Reading who did what. Callers are admins: the edge has checked.

use super::FarmError;
use crate::app::App;
use crate::store::{ACTIONS, AuditFilter, AuditRow};
use motefarm_core::Timestamp;

/// Rows unless asked otherwise, and at most.
const USUAL: u64 = 100;
const MOST: u64 = 10_000;

/// The newest rows that fit, oldest first. `user` and `action` may be empty, `since_ms` and `limit` zero.
pub async fn list(app: &App, user: &str, action: &str, since_ms: i64, limit: u64) -> Result<Vec<AuditRow>, FarmError> {
    if !action.is_empty() && !ACTIONS.contains(&action) {
        return Err(FarmError::Invalid(format!("field action: {action:?} is none of: {}", ACTIONS.join(", "))));
    }
    if limit > MOST {
        return Err(FarmError::Invalid(format!("field limit: {limit}; at most {MOST}")));
    }
    let filter = AuditFilter {
        actor: (!user.is_empty()).then_some(user),
        action: (!action.is_empty()).then_some(action),
        since: Timestamp::from_millis(since_ms),
        limit: if limit == 0 { USUAL } else { limit },
    };
    Ok(app.store.audit_rows(&filter).await?)
}
