//! The end of a contact with a Go agent, for all who wait for something of it.

use std::sync::OnceLock;
use tokio_util::sync::CancellationToken;

/// That the contact has ended, and why.
#[derive(Default)]
pub(super) struct End {
    token: CancellationToken,
    why: OnceLock<String>,
}

impl End {
    /// Ends it; the first reason stands.
    pub(super) fn because(&self, why: &str) {
        let _ = self.why.set(why.to_owned());
        self.token.cancel();
    }

    /// Waits for it.
    pub(super) async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Whether it has come.
    pub(super) fn is_here(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Why, for people.
    pub(super) fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_else(|| "the agent's channel ended".to_owned())
    }
}
