//! What people and their programs look at: the status page, the counters, what became of a request.

use super::{Answer, Edge, text};
use crate::backend::Stage;
use crate::records::Outcome;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use std::fmt::Write as _;
use std::time::Duration;

/// What the backend says, in a few words; `ok` if all is well.
pub(super) async fn backend_state(edge: &Edge, wait: Duration) -> String {
    let asked = tokio::time::timeout(wait, edge.compiler.content().backend().abilities()).await;
    match asked {
        Ok(Ok(abilities)) => format!("ok (REAPI {})", abilities.versions),
        Ok(Err(fault)) => format!("failing ({:?}: {})", fault.code, fault.message.replace('\n', " ")),
        Err(_) => format!("no answer within {} s", wait.as_secs()),
    }
}

pub(super) fn metrics(edge: &Edge) -> String {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let backend = edge.compiler.content().backend();
    edge.records.metrics().render(&[
        (
            "sent_content_bytes",
            "Clients' content sent to the server since the start.",
            backend.sent_bytes(Stage::Ingest),
        ),
        (
            "sent_message_bytes",
            "Directories, commands and actions sent to the server since the start.",
            backend.sent_bytes(Stage::Upload),
        ),
        ("running_actions", "Actions that run just now.", count(edge.compiler.running().len())),
        ("hash_keys", "Entries of the hash map.", count(edge.compiler.content().known())),
        ("held_packed_bytes", "Memory held by requests as they came.", edge.packed.in_use()),
        ("held_unpacked_bytes", "Memory held by unpacked requests.", edge.unpacked.in_use()),
        ("held_answer_bytes", "Memory held by answers.", edge.answers.in_use()),
    ])
}

pub(super) async fn status(edge: &Edge) -> Answer {
    let backend = backend_state(edge, Duration::from_secs(2)).await;
    let mut page = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{label:<18}{value}");
    };
    line("mote-bridge", env!("CARGO_PKG_VERSION"));
    line("backend", &backend);
    line("auth", &edge.access.to_string());
    line("paths below", &edge.path_prefixes.join(" "));
    line("hash keys", &edge.compiler.content().known().to_string());
    line("running", &edge.compiler.running().len().to_string());
    for outcome in Outcome::ALL {
        line(outcome.name(), &edge.records.metrics().requests(outcome).to_string());
    }
    let failures = edge.records.latest_failures(20);
    if !failures.is_empty() {
        page.push_str("\nLatest without a result (mote-bridge explain ID says more):\n");
        for record in failures {
            let why = record.message.unwrap_or_default();
            let _ = writeln!(page, "{}  {}  {}  {why}", record.id, record.outcome.name(), record.output);
        }
    }
    text(StatusCode::OK, &page)
}

/// JSON: a list of records, latest first.
pub(super) fn explain(edge: &Edge, id: &str) -> Answer {
    match serde_json::to_vec(&edge.records.find(id)) {
        Ok(json) => {
            let mut answer = Response::new(Full::new(Bytes::from(json)));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("mote-bridge: {error}\n")),
    }
}
