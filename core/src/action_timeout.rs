//! How long an action may run.

use std::time::Duration;

/// The farm's own bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutBounds {
    /// For actions that do not say.
    pub default: Duration,
    /// The most one may ask for.
    pub max: Duration,
}

/// Why a timeout is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutError {
    /// Below zero, or with nanoseconds that are no part of a second.
    #[error("a timeout of {seconds} s and {nanos} ns is none")]
    Malformed {
        /// As it came.
        seconds: i64,
        /// As it came.
        nanos: i32,
    },
    /// More than the farm allows.
    #[error("a timeout of {asked_s} s is over the {max_s} s that this farm allows (reapi.max_timeout)")]
    TooLong {
        /// What was asked for.
        asked_s: u64,
        /// What is allowed.
        max_s: u64,
    },
}

impl TimeoutBounds {
    /// The time for an action that asks for so many seconds and nanoseconds; zero is as good as not
    /// asking. The API wants longer ones than allowed refused, not shortened.
    pub fn of(&self, asked: Option<(i64, i32)>) -> Result<Duration, TimeoutError> {
        let Some((seconds, nanos)) = asked else { return Ok(self.default) };
        let malformed = TimeoutError::Malformed { seconds, nanos };
        let asked_s = u64::try_from(seconds).map_err(|_| malformed)?;
        let part = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or(malformed)?;
        match Duration::new(asked_s, part) {
            Duration::ZERO => Ok(self.default),
            asked if asked > self.max => Err(TimeoutError::TooLong { asked_s, max_s: self.max.as_secs() }),
            asked => Ok(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_timeouts_are_refused_and_others_kept() {
        let bounds = TimeoutBounds { default: Duration::from_secs(10), max: Duration::from_secs(100) };
        assert_eq!(bounds.of(None), Ok(Duration::from_secs(10)));
        assert_eq!(bounds.of(Some((0, 0))), Ok(Duration::from_secs(10)));
        assert_eq!(bounds.of(Some((100, 0))), Ok(Duration::from_secs(100)));
        assert_eq!(bounds.of(Some((0, 1))), Ok(Duration::from_nanos(1)));
        assert!(matches!(bounds.of(Some((100, 1))), Err(TimeoutError::TooLong { .. })));
        assert!(matches!(bounds.of(Some((i64::MAX, 0))), Err(TimeoutError::TooLong { .. })));
        for (seconds, nanos) in [(-1, 0), (1, -1), (1, 1_000_000_000), (i64::MIN, i32::MIN)] {
            assert_eq!(bounds.of(Some((seconds, nanos))), Err(TimeoutError::Malformed { seconds, nanos }));
        }
    }
}
