//! Leases that no coordinator renews: every call and everything that runs does (direct addressing).

use super::Instance;
use motefarm_core::Timestamp;
use motefarm_core::lease::LeaseTerms;
use motefarm_proto::mote;

/// Terms with what the caller left open filled in.
pub(super) fn terms(asked: mote::LeaseTerms) -> mote::LeaseTerms {
    let usual = mote::LeaseTerms::from(LeaseTerms::default());
    let or = |asked: u64, usual: u64| if asked == 0 { usual } else { asked };
    mote::LeaseTerms {
        idle_timeout_ms: or(asked.idle_timeout_ms, usual.idle_timeout_ms),
        unwatched_limit_ms: or(asked.unwatched_limit_ms, usual.unwatched_limit_ms),
        ..asked
    }
}

impl Instance {
    /// Whether its lease by use has ended, or it is being ended. An ended lease stays ended, although the sweep that takes
    /// the instance down may be a moment behind.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.leased_by_use && (self.is_ending() || self.ends_at(now) <= now)
    }
}
