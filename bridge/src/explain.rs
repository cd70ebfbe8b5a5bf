//! `mote-bridge explain`: asks the bridge what became of a compile, and says it in words.

use crate::caller::Caller;
use http::Method;
use serde_json::Value;
use std::fmt::Write as _;

/// The bridge's answer: a list of records.
pub async fn ask(mut caller: Caller, id: &str) -> anyhow::Result<Value> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:/".contains(c);
    anyhow::ensure!(!id.is_empty() && id.chars().all(plain), "{id:?} is no id of a compile");
    let answer = caller.call(Method::GET, &format!("/explain/{id}"), Vec::new()).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// In words.
pub fn describe(records: &Value) -> String {
    let mut text = String::new();
    for record in records.as_array().into_iter().flatten() {
        let field = |name: &str| match &record[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut line = |label: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{label:<14}{value}");
        };
        line("request", format!("{} (attempt {} of {})", field("id"), field("attempt"), field("compile")));
        line("caller", field("caller"));
        line("output", field("output"));
        line("outcome", field("outcome"));
        for name in ["exit_status", "stage", "code", "message", "action"] {
            if !record[name].is_null() {
                line(name, field(name));
            }
        }
        line(
            "inputs",
            format!(
                "{} shipped, {} the worker's own, {} read where they lie, {} missing",
                field("inputs"),
                field("dropped"),
                field("local"),
                field("missing")
            ),
        );
        for missing in record["missing_named"].as_array().into_iter().flatten() {
            line(
                "  missing",
                format!("{}: {}", missing[0].as_str().unwrap_or("?"), missing[1].as_str().unwrap_or("?")),
            );
        }
        for stage in record["stages"].as_array().into_iter().flatten() {
            line("  took", format!("{} {:.1} ms", stage[0].as_str().unwrap_or("?"), stage[1].as_f64().unwrap_or(0.0)));
        }
        line("in all", format!("{:.1} ms", record["total_ms"].as_f64().unwrap_or(0.0)));
        text.push('\n');
    }
    text
}
