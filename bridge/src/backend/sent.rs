//! How much was sent to the server, by stage: what a cold build costs beyond its content shows here.

use super::Stage;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<[AtomicU64; Stage::ALL.len()]>);

impl Sent {
    pub(super) fn add(&self, stage: Stage, bytes: usize) {
        self.0[stage as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self, stage: Stage) -> u64 {
        self.0[stage as usize].load(Ordering::Relaxed)
    }
}
