//! When to let a dribble of small writes gather before the next read.
//!
//! A program that writes its lines one by one would otherwise cost a wake-up, a read and a write of
//! the spool for each. A write on its own is never kept waiting.

use std::time::{Duration, Instant};

/// A read of less than this soon after the last one is one of a dribble.
const SMALL_BYTES: usize = 4096;
const GAP: Duration = Duration::from_millis(1);
/// So many in a row make it one.
const DRIBBLES: u32 = 8;
/// Short against what a person sees, long against a write: a pipe's 64 KiB do not fill meanwhile,
/// unless a program writes faster than 300 MB/s, and then its reads are not small.
const PAUSE: Duration = Duration::from_micros(200);

/// See the module.
#[derive(Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    dribbles: u32,
}

impl Pace {
    /// Takes note of a read of `bytes` at `now`; answers how long to wait before the next.
    pub(super) fn after_read(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let soon = self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) < GAP);
        self.dribbles = if soon && (bytes < SMALL_BYTES || self.dribbles >= DRIBBLES) {
            self.dribbles.saturating_add(1)
        } else {
            0
        };
        // What gathered in a pause may be no small read any more, and is the dribble all the same.
        (self.dribbles >= DRIBBLES && bytes < super::outputs::PIPE_BYTES / 2).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_on_their_own_and_large_reads_never_wait() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            now += Duration::from_millis(2);
            assert_eq!(pace.after_read(100, now), None);
        }
        for _ in 0..100 {
            now += Duration::from_micros(20);
            assert_eq!(pace.after_read(65536, now), None);
        }
    }

    #[test]
    fn a_dribble_waits_from_the_eighth_read_on_until_it_pauses() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut waits = Vec::new();
        for n in 0..20 {
            now += Duration::from_micros(if n < 10 { 10 } else { 250 });
            waits.push(pace.after_read(if n < 10 { 100 } else { 15_000 }, now).is_some());
        }
        assert_eq!(waits.iter().position(|wait| *wait), Some(8), "{waits:?}");
        assert!(waits[8..].iter().all(|wait| *wait), "{waits:?}");
        now += Duration::from_millis(5);
        assert_eq!(pace.after_read(100, now), None);
    }
}
