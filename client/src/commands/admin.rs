//! `mote admin`: users, tokens, machines.
//!
//! These calls are made once: repeating one that got through would only say that it exists. What a
//! lost answer means, the listing tells.

mod audit;
mod buildlets;
mod invite;
mod join_token;
mod token;
mod user;

use crate::cli::Admin;
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use motefarm_core::{Clock as _, SystemClock, Timestamp};

pub(crate) async fn act(context: &Context, admin: Admin) -> Result<ExitStatus, Error> {
    match admin {
        Admin::User(user) => user::act(context, user).await,
        Admin::Token(token) => token::act(context, token).await,
        Admin::JoinToken(token) => join_token::act(context, token).await,
        Admin::Invite(invite) => invite::act(context, invite).await,
        Admin::Audit(audit) => audit::act(context, audit).await,
        Admin::Buildlets => buildlets::act(context).await,
    }
    .map(|()| ExitStatus::Success)
}

fn lifetime_ms(lifetime: Option<std::time::Duration>) -> u64 {
    lifetime.map_or(0, |lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
}

/// `3d ago`, by this machine's clock; `-` for never.
fn ago(at_ms: i64) -> String {
    if at_ms == 0 {
        return "-".to_owned();
    }
    let since = SystemClock.now().since(Timestamp::from_millis(at_ms));
    format!("{} ago", coarse(since))
}

/// `in 3d`, `expired`; `never` when it does not end.
pub(super) fn ahead(at_ms: i64) -> String {
    if at_ms == 0 {
        return "never".to_owned();
    }
    let left = Timestamp::from_millis(at_ms).since(SystemClock.now());
    if left.is_zero() { "expired".to_owned() } else { format!("in {}", coarse(left)) }
}

/// To the nearest unit: a day just begun to run out is still 24h.
fn coarse(duration: std::time::Duration) -> String {
    let rounded = |seconds: u64, unit: u64| (seconds + unit / 2) / unit;
    match duration.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", rounded(s, 60)),
        s @ 7_200..172_800 => format!("{}h", rounded(s, 3_600)),
        s => format!("{}d", rounded(s, 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ages_are_shown_in_one_unit() {
        for (seconds, text) in [(59, "59s"), (3_599, "60m"), (86_399, "24h"), (30 * 86_400 + 5, "30d")] {
            assert_eq!(coarse(Duration::from_secs(seconds)), text);
        }
        assert_eq!((ago(0), ahead(0), ahead(1)), ("-".to_owned(), "never".to_owned(), "expired".to_owned()));
    }
}
