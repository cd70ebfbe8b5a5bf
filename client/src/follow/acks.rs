//! When to tell the farm that output is safe here: every [`ACK_BYTES`] or [`ACK_AFTER`].
//!
//! A command that is over before that costs no call.

use std::time::Duration;
use tokio::time::Instant;

/// Half of what the smallest sensible spool holds.
const ACK_BYTES: u64 = 4 * 1024 * 1024;
const ACK_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Acks {
    enabled: bool,
    kept: u64,
    told: u64,
    due_at: Option<Instant>,
}

impl Acks {
    /// Without a file nothing is safe, and nothing is acknowledged.
    pub(super) fn new(offset: u64, enabled: bool) -> Self {
        Self { enabled, kept: offset, told: offset, due_at: None }
    }

    /// The file holds `kept` bytes now.
    pub(super) fn note(&mut self, kept: u64) {
        if !self.enabled || kept == self.kept {
            return;
        }
        self.kept = kept;
        if kept - self.told >= ACK_BYTES {
            self.due_at = Some(Instant::now());
        } else if self.due_at.is_none() {
            self.due_at = Some(Instant::now() + ACK_AFTER);
        }
    }

    /// Waits until there is something to tell.
    pub(super) async fn due(&self) {
        match self.due_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// What to tell.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.due_at = None;
        (self.kept > self.told).then(|| {
            self.told = self.kept;
            self.kept
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn much_is_told_at_once_and_little_after_a_second() {
        let mut acks = Acks::new(10, true);
        acks.note(10 + ACK_BYTES);
        acks.due().await;
        assert_eq!(acks.take(), Some(10 + ACK_BYTES));
        let begin = Instant::now();
        acks.note(11 + ACK_BYTES);
        acks.note(12 + ACK_BYTES);
        acks.due().await;
        assert!(begin.elapsed() >= ACK_AFTER);
        assert_eq!(acks.take(), Some(12 + ACK_BYTES));
        assert_eq!(acks.take(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_file_nothing_is_told() {
        let mut acks = Acks::new(0, false);
        acks.note(ACK_BYTES * 2);
        assert!(tokio::time::timeout(ACK_AFTER * 5, acks.due()).await.is_err());
    }
}
