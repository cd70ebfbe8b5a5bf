//! The instance that a Go agent has: which, and what was run in it.

use super::execution::Execution;
use super::refused;
use crate::link::LinkError;
use motefarm_core::{ExecId, InstanceId, Timestamp};
use motefarm_proto::mote::{ExecInfo, ExecSpec, InstanceReport};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;

/// Executions of one instance, ended ones included. Each keeps a file open.
const MOST_EXECS: usize = 1000;

/// See the module.
pub(super) struct Held {
    pub(super) id: InstanceId,
    pub(super) name: String,
    /// One tree at a time.
    pub(super) sync_turn: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

struct Inner {
    executions: BTreeMap<ExecId, Arc<Execution>>,
    /// In the order of their starts.
    order: Vec<ExecId>,
    last_use: Timestamp,
}

impl Held {
    /// One in which nothing was run yet.
    pub(super) fn new(id: InstanceId, name: String, now: Timestamp) -> Self {
        let inner = Inner { executions: BTreeMap::new(), order: Vec::new(), last_use: now };
        Self { id, name, sync_turn: tokio::sync::Mutex::default(), inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The execution of this id; tells whether it is new and so to be run, with output on the disk of
    /// `dir`. Another command under an id that is taken is refused.
    pub(super) fn begin(
        &self,
        id: ExecId,
        spec: ExecSpec,
        dir: &Path,
        now: Timestamp,
    ) -> Result<(Arc<Execution>, bool), LinkError> {
        let mut inner = self.lock();
        if let Some(known) = inner.executions.get(&id) {
            return match known.spec == spec {
                true => Ok((known.clone(), false)),
                false => Err(refused(Status::already_exists(format!("execution {id} is of another command")))),
            };
        }
        if inner.order.len() >= MOST_EXECS {
            let text = format!("this instance has {MOST_EXECS} executions, the most for one on a Go agent");
            return Err(refused(Status::resource_exhausted(text)));
        }
        let made = Execution::new(id, spec, dir, now.as_millis());
        let made = made
            .map_err(|error| refused(Status::internal(format!("there is no place for the output of {id}: {error}"))))?;
        let made = Arc::new(made);
        inner.executions.insert(id, made.clone());
        inner.order.push(id);
        inner.last_use = now;
        Ok((made, true))
    }

    /// An execution that is there.
    pub(super) fn execution(&self, id: &str) -> Result<Arc<Execution>, LinkError> {
        let known = id.parse().ok().and_then(|id: ExecId| self.lock().executions.get(&id).cloned());
        known.ok_or_else(|| refused(Status::not_found(format!("there is no execution {id} here"))))
    }

    /// These executions, or all, oldest first.
    pub(super) fn infos(&self, only: &[ExecId]) -> Vec<ExecInfo> {
        let inner = self.lock();
        let wanted = inner.order.iter().filter(|id| only.is_empty() || only.contains(id));
        wanted.filter_map(|id| inner.executions.get(id)).map(|execution| execution.info(self.id.to_string())).collect()
    }

    /// It was in use just now.
    pub(super) fn used(&self, now: Timestamp) {
        self.lock().last_use = now;
    }

    /// Ends what runs.
    pub(super) fn cancel_all(&self) {
        self.lock().executions.values().for_each(|execution| execution.cancel());
    }

    /// As the farm is told.
    pub(super) fn report(&self) -> InstanceReport {
        let inner = self.lock();
        let running: Vec<String> =
            inner.executions.values().filter(|exec| exec.is_running()).map(|exec| exec.id.to_string()).collect();
        InstanceReport {
            instance_id: self.id.to_string(),
            ended_execs: (inner.order.len() - running.len()) as u64,
            running_execs: running,
            last_use_ms: inner.last_use.as_millis(),
        }
    }
}
