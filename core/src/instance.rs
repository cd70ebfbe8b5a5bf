//! The life of an instance.

use std::fmt;

/// Where an instance is in its life. Stored with the lease; nothing else decides whether it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// Waits for a free lease slot of its host type.
    Queued,
    /// A slot is reserved; its buildlet has been or will be asked to make the directory.
    Starting,
    /// Usable.
    Ready,
    /// Was ready; its buildlet is out of contact. It may come back, with everything it runs.
    Lost,
    /// Being taken down: processes are ended, then the directory is wiped.
    Ending,
    /// Nothing of it is left but the record.
    Gone,
}

impl InstanceState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Starting, Self::Ready, Self::Lost, Self::Ending, Self::Gone];

    /// Whether `next` may follow. Staying is not a change. Everything may be ended at any time;
    /// nothing comes back from the end.
    pub fn may_become(self, next: Self) -> bool {
        use InstanceState::{Ending, Gone, Lost, Queued, Ready, Starting};
        matches!(
            (self, next),
            (Queued, Starting | Ending | Gone)
                // A buildlet lost while starting gives the slot back: the request queues again.
                | (Starting, Ready | Queued | Ending)
                | (Ready, Lost | Ending)
                | (Lost, Ready | Ending)
                | (Ending, Gone)
        )
    }

    /// Whether it holds one of its buildlet's lease slots.
    pub fn holds_slot(self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::Lost | Self::Ending)
    }

    /// Whether its owner still has it (and its name is taken).
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Ending | Self::Gone)
    }

    /// The word in SQL, logs, listings and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Lost => "lost",
            Self::Ending => "ending",
            Self::Gone => "gone",
        }
    }

    /// The state a word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an instance is being ended; kept in the record and told to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its owner or an admin asked.
    Destroyed,
    /// Nobody used it for the idle timeout.
    IdleExpired,
    /// It reached the longest life its host type allows.
    MaxLifetime,
    /// Its buildlet no longer knows it (a wiped disk, a rebuilt host).
    BuildletForgot,
    /// The one who asked went away, or gave up, before it was ready.
    CreateCancelled,
    /// The snapshot it was to be made from could not be put in place.
    SnapshotFailed,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Destroyed,
        Self::IdleExpired,
        Self::MaxLifetime,
        Self::BuildletForgot,
        Self::CreateCancelled,
        Self::SnapshotFailed,
    ];

    /// The word in SQL, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::IdleExpired => "idle_expired",
            Self::MaxLifetime => "max_lifetime",
            Self::BuildletForgot => "buildlet_forgot",
            Self::CreateCancelled => "create_cancelled",
            Self::SnapshotFailed => "snapshot_failed",
        }
    }

    /// The reason a word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use InstanceState::*;

    #[test]
    fn the_end_is_final_and_always_reachable() {
        for from in InstanceState::ALL {
            assert!(!Gone.may_become(from));
            if from.is_live() {
                assert!(from.may_become(Ending), "{from} can not be ended");
            }
            assert!(!Ending.may_become(from) || from == Gone);
            assert_eq!(InstanceState::from_word(from.as_str()), Some(from));
        }
        assert!(Lost.may_become(Ready) && !Queued.may_become(Ready));
    }

    #[test]
    fn every_reason_has_its_word() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::from_word(reason.as_str()), Some(reason));
        }
    }
}
