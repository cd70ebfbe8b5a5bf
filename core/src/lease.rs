//! The time-bounded right to an instance.

use crate::clock::Timestamp;
use crate::instance::EndReason;
use std::time::Duration;

/// How long leases of a host type last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// A lease ends after this long without use. 30 minutes unless configured.
    pub idle_timeout: Duration,
    /// A lease ends at this age, used or not; `None`: no such limit.
    pub max_lifetime: Option<Duration>,
    /// How long an execution that nobody watches may go on renewing the lease.
    pub unwatched_limit: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30 * 60),
            max_lifetime: None,
            unwatched_limit: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl LeaseTerms {
    /// Renewals closer together than this are one: a sixtieth of the idle timeout, rounded up to a
    /// whole second (30 min: 30 s). So a busy lease costs two writes a minute, and ends at most
    /// this much before "last use + idle timeout".
    pub fn coalesce_window(&self) -> Duration {
        Duration::from_secs(self.idle_timeout.as_secs().div_ceil(60).max(1))
    }
}

/// A lease as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// When it was granted.
    pub created_at: Timestamp,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// What it was granted on.
    pub terms: LeaseTerms,
}

/// What a renewal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The end moved: write the new lease.
    Extended(Lease),
    /// Renewed so recently that writing it would change nothing worth a write.
    Coalesced,
}

/// Why a lease could not be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// It ended; the reaper may be taking the instance down already, so it stays ended.
    #[error("the lease expired {} s ago", .ago.as_secs())]
    Expired {
        /// How long ago it ended.
        ago: Duration,
    },
}

impl Lease {
    /// A lease granted at `now`.
    pub fn grant(now: Timestamp, terms: LeaseTerms) -> Self {
        let fresh = Self { created_at: now, expires_at: now, terms };
        Self { expires_at: fresh.end_if_renewed(now), ..fresh }
    }

    fn end_if_renewed(&self, now: Timestamp) -> Timestamp {
        let idle_end = now + self.terms.idle_timeout;
        match self.terms.max_lifetime {
            Some(max) => idle_end.min(self.created_at + max),
            None => idle_end,
        }
    }

    /// Moves the end to `now + idle_timeout`, never past the maximum lifetime and never back (a
    /// clock set back must not shorten a lease).
    pub fn renew(&self, now: Timestamp) -> Result<Renewal, RenewError> {
        if self.is_expired(now) {
            return Err(RenewError::Expired { ago: now.since(self.expires_at) });
        }
        let end = self.end_if_renewed(now);
        if end < self.expires_at + self.terms.coalesce_window() {
            return Ok(Renewal::Coalesced);
        }
        Ok(Renewal::Extended(Self { expires_at: end, ..*self }))
    }

    /// The lease after a use at `used` that could not be written down then: by what ran while the
    /// coordinator was away, or the machine asleep. It was never without use, so having run out on
    /// paper meanwhile does not count. Never earlier than it was.
    pub fn with_use_at(&self, used: Timestamp) -> Self {
        Self { expires_at: self.end_if_renewed(used).max(self.expires_at), ..*self }
    }

    /// Whether it has ended by `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    /// Why it ends, if it has ended.
    pub fn end_reason(&self, now: Timestamp) -> Option<EndReason> {
        if !self.is_expired(now) {
            return None;
        }
        let max_end = self.terms.max_lifetime.map(|max| self.created_at + max);
        Some(if max_end.is_some_and(|end| end <= self.expires_at) {
            EndReason::MaxLifetime
        } else {
            EndReason::IdleExpired
        })
    }

    /// Whether an execution that nobody has watched since `last_watched` may still renew.
    pub fn unwatched_may_renew(&self, last_watched: Timestamp, now: Timestamp) -> bool {
        now.since(last_watched) < self.terms.unwatched_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(60);
    fn at(minutes: u32) -> Timestamp {
        Timestamp::from_millis(1_000_000) + MIN * minutes
    }

    #[test]
    fn use_moves_the_end_and_an_ended_lease_stays_ended() {
        let lease = Lease::grant(at(0), LeaseTerms::default());
        assert_eq!(lease.expires_at, at(30));
        let Ok(Renewal::Extended(later)) = lease.renew(at(10)) else { panic!("not extended") };
        assert_eq!(later.expires_at, at(40));
        assert_eq!(later.renew(at(40)), Err(RenewError::Expired { ago: Duration::ZERO }));
        assert_eq!(later.end_reason(at(41)), Some(EndReason::IdleExpired));
        assert_eq!(later.end_reason(at(39)), None);
    }

    #[test]
    fn renewals_within_a_sixtieth_are_one() {
        let lease = Lease::grant(at(0), LeaseTerms::default());
        assert_eq!(lease.terms.coalesce_window(), Duration::from_secs(30));
        assert_eq!(lease.renew(at(0) + Duration::from_secs(29)), Ok(Renewal::Coalesced));
        assert!(matches!(lease.renew(at(0) + Duration::from_secs(30)), Ok(Renewal::Extended(_))));
        let short = LeaseTerms { idle_timeout: Duration::from_secs(3), ..LeaseTerms::default() };
        assert_eq!(short.coalesce_window(), Duration::from_secs(1));
    }

    #[test]
    fn no_use_outlives_the_maximum_lifetime() {
        let terms = LeaseTerms { max_lifetime: Some(MIN * 45), ..LeaseTerms::default() };
        let lease = Lease::grant(at(0), terms);
        let Ok(Renewal::Extended(lease)) = lease.renew(at(29)) else { panic!("not extended") };
        assert_eq!(lease.expires_at, at(45));
        assert_eq!(lease.renew(at(44)), Ok(Renewal::Coalesced));
        assert_eq!(lease.end_reason(at(45)), Some(EndReason::MaxLifetime));
    }

    #[test]
    fn a_use_learnt_of_late_counts_from_when_it_was() {
        let lease = Lease::grant(at(0), LeaseTerms::default());
        assert_eq!(lease.with_use_at(at(50)).expires_at, at(80));
        assert_eq!(lease.with_use_at(at(0) - MIN).expires_at, at(30));
        let terms = LeaseTerms { max_lifetime: Some(MIN * 60), ..LeaseTerms::default() };
        assert_eq!(Lease::grant(at(0), terms).with_use_at(at(50)).expires_at, at(60));
    }

    #[test]
    fn a_clock_set_back_never_shortens_a_lease() {
        let lease = Lease::grant(at(30), LeaseTerms::default());
        assert_eq!(lease.renew(at(5)), Ok(Renewal::Coalesced));
    }
}
