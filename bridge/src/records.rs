//! What became of each request: for `explain`, for the log, for the counters.

use crate::backend::Stage;
use crate::metrics::Metrics;
use crate::pipeline::inputs::Layout;
use crate::pipeline::refusal::Refusal;
use motefarm_core::{Digest, Timestamp};
use motefarm_proto::goma::RequesterInfo;
use motefarm_proto::goma::exec_resp::CacheSource;
use serde::Serialize;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;
use uuid::Uuid;

/// Requests remembered, the latest.
const MOST: usize = 4096;
/// Missing inputs that are named in a record; the client was told all of them.
const NAMED: usize = 20;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client left before there was an answer.
    Abandoned,
    /// With the compiler's exit code.
    Compiled,
    /// From the action cache.
    Cached,
    /// Content was asked for.
    MissingInput,
    /// It will never be served.
    BadRequest,
    /// Something failed.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Abandoned, Self::Compiled, Self::Cached, Self::MissingInput, Self::BadRequest, Self::Failed];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Compiled => "compiled",
            Self::Cached => "cached",
            Self::MissingInput => "missing_input",
            Self::BadRequest => "bad_request",
            Self::Failed => "failed",
        }
    }
}

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Ours.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who asked.
    pub caller: String,
    /// The client's id of the compile; the same on every attempt.
    pub compile: String,
    /// The attempt, from 0 on.
    pub attempt: i32,
    /// The first output that was asked for.
    pub output: String,
    /// Digest of the action, once there was one.
    pub action: Option<String>,
    /// Inputs in the tree.
    pub inputs: usize,
    /// Inputs left to the worker.
    pub dropped: usize,
    /// Inputs that were read where they lie.
    pub local: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// Where it failed.
    pub stage: Option<&'static str>,
    /// In gRPC's words.
    pub code: Option<String>,
    /// In words.
    pub message: Option<String>,
    /// Of the compiler.
    pub exit_status: Option<i32>,
    /// How many inputs were asked for.
    pub missing: usize,
    /// Some of them, with the reason.
    pub missing_named: Vec<(String, String)>,
    /// How long each stage took, in milliseconds.
    pub stages: Vec<(&'static str, f64)>,
    /// In all.
    pub total_ms: f64,
}

/// The latest requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Records {
    latest: Arc<Mutex<VecDeque<Record>>>,
    metrics: Arc<Metrics>,
}

impl Records {
    /// The counters beside them.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The latest requests with this in their id or the client's id of the compile, latest first.
    pub fn find(&self, id: &str) -> Vec<Record> {
        let latest = self.latest.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let fits = |record: &&Record| record.id == id || (!id.is_empty() && record.compile.contains(id));
        latest.iter().rev().filter(fits).take(50).cloned().collect()
    }

    /// The latest requests that got no result, latest first.
    pub fn latest_failures(&self, most: usize) -> Vec<Record> {
        let latest = self.latest.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let failed = |record: &&Record| matches!(record.outcome, Outcome::Failed | Outcome::BadRequest);
        latest.iter().rev().filter(failed).take(most).cloned().collect()
    }

    /// Begins one.
    pub fn begin(&self, now: Timestamp, caller: &str, requester: Option<&RequesterInfo>) -> Trace {
        let record = Record {
            id: Uuid::new_v4().simple().to_string()[..12].to_owned(),
            at_ms: now.as_millis(),
            caller: caller.to_owned(),
            compile: requester.map(|info| info.compiler_proxy_id().to_owned()).unwrap_or_default(),
            attempt: requester.map_or(0, RequesterInfo::retry),
            output: String::new(),
            action: None,
            inputs: 0,
            dropped: 0,
            local: 0,
            outcome: Outcome::Abandoned,
            stage: None,
            code: None,
            message: None,
            exit_status: None,
            missing: 0,
            missing_named: Vec::new(),
            stages: Vec::new(),
            total_ms: 0.0,
        };
        Trace { record, began: Instant::now(), records: self.clone() }
    }
}

/// A request under way. What became of it is kept when this is dropped.
pub struct Trace {
    record: Record,
    began: Instant,
    records: Records,
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

impl Trace {
    /// Times a stage.
    pub async fn stage<T>(&mut self, stage: Stage, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.record.stages.push((stage.name(), milliseconds(began)));
        self.records.metrics.stage(stage, began.elapsed());
        done
    }

    /// What it is to make.
    pub fn output(&mut self, filename: &str) {
        self.record.output = filename.to_owned();
    }

    /// What it became.
    pub fn action(&mut self, action: Digest, layout: &Layout) {
        self.record.action = Some(action.to_string());
        self.record.inputs = layout.inputs.len();
        self.record.dropped = layout.dropped;
    }

    /// So many more inputs were read where they lie.
    pub fn read_local(&mut self, inputs: usize) {
        self.record.local += inputs;
        self.records.metrics.local_inputs.fetch_add(inputs as u64, Ordering::Relaxed);
    }

    /// It has a result.
    pub fn finished(&mut self, exit_status: i32, source: CacheSource) {
        self.record.exit_status = Some(exit_status);
        self.record.outcome = match source {
            CacheSource::NoCache => Outcome::Compiled,
            CacheSource::MemCache | CacheSource::StorageCache | CacheSource::LocalOutputCache => Outcome::Cached,
        };
    }

    /// It has none.
    pub fn refused(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::Never(why) => {
                self.record.outcome = Outcome::BadRequest;
                self.record.message = Some(why.clone());
            }
            Refusal::Missing(missing) => {
                self.record.outcome = Outcome::MissingInput;
                self.record.missing = missing.len();
                let named = missing.iter().take(NAMED).map(|input| (input.filename.clone(), input.reason.clone()));
                self.record.missing_named = named.collect();
            }
            Refusal::Trouble(fault) => {
                self.record.outcome = Outcome::Failed;
                self.record.stage = Some(fault.stage.name());
                self.record.code = Some(format!("{:?}", fault.code));
                self.record.message = Some(fault.message.clone());
            }
        }
    }

    /// A message for the client's log, by which the request is found here.
    pub fn sign(&self, message: &str) -> String {
        format!("mote-bridge [{}]: {message}", self.record.id)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.record.total_ms = milliseconds(self.began);
        let record = &self.record;
        self.records.metrics.request(record.outcome);
        let (id, compile, outcome) = (&record.id, &record.compile, record.outcome.name());
        let (output, duration_ms) = (&record.output, record.total_ms);
        match record.outcome {
            Outcome::Failed | Outcome::BadRequest => tracing::warn!(
                request.id = id,
                compile,
                output,
                outcome,
                stage = record.stage,
                code = record.code,
                duration_ms,
                attempt = record.attempt,
                caller = record.caller,
                "{}",
                record.message.as_deref().unwrap_or_default()
            ),
            Outcome::MissingInput => {
                tracing::debug!(
                    request.id = id,
                    compile,
                    output,
                    outcome,
                    missing = record.missing,
                    duration_ms,
                    "content is asked for"
                );
            }
            Outcome::Abandoned | Outcome::Compiled | Outcome::Cached => {
                let exit_status = record.exit_status;
                tracing::info!(request.id = id, compile, output, outcome, exit_status, duration_ms, "a compile");
            }
        }
        let mut latest = self.records.latest.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if latest.len() == MOST {
            latest.pop_front();
        }
        latest.push_back(self.record.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_found_by_its_id_and_by_its_compile() {
        let records = Records::default();
        let info = RequesterInfo { compiler_proxy_id: Some("u@h:1/2/77".into()), ..RequesterInfo::default() };
        let mut trace = records.begin(Timestamp::EPOCH, "alice", Some(&info));
        trace.stage(Stage::Ingest, async {}).await;
        trace.refused(&Refusal::never("because"));
        let signed = trace.sign("because");
        drop(trace);
        drop(records.begin(Timestamp::EPOCH, "alice", None));
        let found = records.find("/77");
        assert_eq!((found.len(), found[0].outcome), (1, Outcome::BadRequest));
        assert!(signed.contains(&found[0].id));
        assert_eq!(records.find(&found[0].id).len(), 1);
        assert_eq!(records.latest_failures(10).len(), 1);
        assert!(records.find("").is_empty());
        for _ in 0..MOST {
            drop(records.begin(Timestamp::EPOCH, "alice", None));
        }
        assert!(records.find("/77").is_empty(), "the oldest goes");
    }
}
