//! `mote admin audit`: who did what.

use crate::cli::Audit;
use crate::commands::Context;
use crate::error::Error;
use crate::table;
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::mote;
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Serialize)]
struct Body {
    audit: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    at_ms: i64,
    user: String,
    action: String,
    subject: String,
    detail: String,
}

pub(super) async fn act(context: &Context, audit: Audit) -> Result<(), Error> {
    let farm = context.connect().await?;
    let ago_ms = |ago: Duration| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    let request = mote::ListAuditRequest {
        user: audit.user.unwrap_or_default(),
        action: audit.action.unwrap_or_default(),
        since_ms: audit.since.map_or(0, |ago| SystemClock.now().as_millis().saturating_sub(ago_ms(ago)).max(0)),
        limit: audit.limit,
    };
    let answer = farm.call_once("read the audit", farm.admin().list_audit(request)).await?;
    let row = |e: mote::AuditEntry| Row {
        at_ms: e.at_ms,
        user: e.user,
        action: e.action,
        subject: e.subject,
        detail: e.detail,
    };
    let body = Body { audit: answer.entries.into_iter().map(row).collect() };
    context.printer.data(&body, || {
        let cells =
            |r: &Row| [time(r.at_ms), or_dash(&r.user), r.action.clone(), or_dash(&r.subject), shown(&r.detail)];
        let rows: Vec<_> = body.audit.iter().map(cells).collect();
        table::render(["TIME", "USER", "ACTION", "SUBJECT", "DETAIL"], &rows)
    })
}

/// `2026-01-31T12:00:00Z`.
fn time(at_ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { shown(text) }
}

/// Users' words on one line, without what a terminal would act upon.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_one_line_each() {
        assert_eq!(time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(shown("sh -c a\nb\x1b[2J"), "sh -c a?b?[2J");
        assert_eq!(or_dash(""), "-");
    }
}
