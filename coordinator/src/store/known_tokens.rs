//! Tokens checked a moment ago, so that a caller's burst of calls costs one query.
//!
//! Never older than [`FRESH`], and emptied by whatever takes a right away: a revoked token is
//! refused by the next call of this process, and within [`FRESH`] when another process revoked it.

use crate::identity::Identity;
use motefarm_core::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// How long an answer is repeated.
const FRESH: Duration = Duration::from_secs(1);
/// More are forgotten altogether: a bound, not a policy.
const MOST: usize = 10_000;

/// See the module. Clones share what is known.
#[derive(Clone)]
pub(super) struct KnownTokens(Arc<Mutex<Known>>, watch::Sender<u64>);

impl Default for KnownTokens {
    fn default() -> Self {
        Self(Arc::default(), watch::Sender::new(0))
    }
}

#[derive(Default)]
struct Known {
    /// By the token's hash: whose it is, and when that was read.
    tokens: HashMap<[u8; 32], (Identity, Timestamp)>,
    /// Counts what was taken away, so that an answer read before is not kept after.
    emptied: u64,
}

/// How often rights had been taken away when a query began.
#[derive(Clone, Copy)]
pub(super) struct Asked(u64);

impl KnownTokens {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Who it is, if that was read less than a moment before `now`; otherwise what to [`Self::keep`] the answer with.
    pub(super) fn get(&self, hash: &[u8; 32], now: Timestamp) -> Result<Identity, Asked> {
        let known = self.lock();
        match known.tokens.get(hash) {
            // A clock set back makes "read" lie ahead: then ask.
            Some((identity, read)) if *read <= now && now < *read + FRESH => Ok(identity.clone()),
            _ => Err(Asked(known.emptied)),
        }
    }

    /// Keeps what a query answered, unless a right was taken away since it was asked.
    pub(super) fn keep(&self, asked: Asked, hash: [u8; 32], identity: &Identity, now: Timestamp) {
        let mut known = self.lock();
        if known.emptied != asked.0 {
            return;
        }
        if known.tokens.len() >= MOST {
            known.tokens.clear();
        }
        known.tokens.insert(hash, (identity.clone(), now));
    }

    /// Forgets all. To be called after the commit that takes a right away.
    pub(super) fn forget(&self) {
        {
            let mut known = self.lock();
            known.emptied += 1;
            known.tokens.clear();
        }
        self.1.send_modify(|times| *times += 1);
    }

    /// Changes whenever this process takes a right away.
    pub(super) fn taken(&self) -> watch::Receiver<u64> {
        self.1.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    #[test]
    fn answers_are_repeated_for_a_moment_and_never_after_a_right_was_taken_away() {
        let (known, hash, start) = (KnownTokens::default(), [7; 32], Timestamp::from_millis(5_000));
        let identity = Identity { user: "alice".parse().unwrap(), role: Role::User };
        let asked = known.get(&hash, start).unwrap_err();
        known.keep(asked, hash, &identity, start);
        assert_eq!(known.get(&hash, start + Duration::from_millis(999)).ok(), Some(identity.clone()));
        assert!(known.get(&hash, start + FRESH).is_err(), "too old");
        assert!(known.get(&hash, Timestamp::from_millis(4_999)).is_err(), "from the future");
        known.forget();
        let asked = known.get(&hash, start).unwrap_err();
        known.forget();
        known.keep(asked, hash, &identity, start);
        assert!(known.get(&hash, start).is_err(), "asked before, answered after");
    }
}
