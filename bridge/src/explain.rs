//! `mote-bridge explain`: asks the bridge what became of a compile, and says it in words.

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::net::TcpStream;

/// Time for the whole question.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer.
const MAX_BYTES: usize = 16 << 20;

/// The bridge's answer: a list of records.
pub async fn ask(bridge: &str, id: &str) -> anyhow::Result<Value> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:/".contains(c);
    anyhow::ensure!(!id.is_empty() && id.chars().all(plain), "{id:?} is no id of a compile");
    let asking = async {
        let stream = TcpStream::connect(motefarm_net::dial::split_address(bridge)?).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("/explain/{id}")).header("host", bridge).body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        connection.abort();
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body).trim());
        Ok::<Value, anyhow::Error>(serde_json::from_slice(&body)?)
    };
    let answered = tokio::time::timeout(TIMEOUT, asking).await.context("no answer in time");
    answered.and_then(|answer| answer).with_context(|| format!("can not ask the bridge at {bridge}"))
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
            format!("{} shipped, {} the worker's own, {} missing", field("inputs"), field("dropped"), field("missing")),
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
