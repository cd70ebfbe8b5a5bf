//! Saying every few seconds what is waited for, as gomote does.

use crate::human;
use crate::printer::Printer;
use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// The first word comes after this long, and so do the others.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// One request that waits.
pub(super) struct Waiting<'a> {
    host_type: &'a str,
    index: usize,
    since: Instant,
    ahead: Cell<u64>,
}

impl<'a> Waiting<'a> {
    /// The `index`-th (from 1) of those asked for together.
    pub(super) fn new(host_type: &'a str, index: usize) -> Self {
        Self { host_type, index, since: Instant::now(), ahead: Cell::new(0) }
    }

    /// What the farm said last.
    pub(super) fn ahead(&self, requests: u64) {
        self.ahead.set(requests);
    }

    /// Says it, again and again, for as long as it is polled.
    pub(super) async fn tell(&self, printer: Printer) -> Infallible {
        let mut ticks = self.ticks();
        loop {
            ticks.tick().await;
            printer.message(self.line());
        }
    }

    /// On the seconds that count from the beginning, however often this is asked for.
    fn ticks(&self) -> Interval {
        let passed = self.since.elapsed().as_secs() / TELL_EVERY.as_secs();
        let next = self.since + TELL_EVERY * u32::try_from(passed + 1).unwrap_or(u32::MAX);
        let mut ticks = interval_at(next, TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    fn line(&self) -> String {
        let waited = Duration::from_secs(self.since.elapsed().as_secs_f64().round() as u64);
        let ahead = match self.ahead.get() {
            1 => "1 request ahead of you".to_owned(),
            n => format!("{n} requests ahead of you"),
        };
        format!("still creating {} ({}) after {}; {ahead}", self.host_type, self.index, human::duration(waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_line_is_gomotes_and_comes_every_five_seconds() {
        let waiting = Waiting::new("linux-amd64", 1);
        let mut ticks = waiting.ticks();
        ticks.tick().await;
        assert_eq!(waiting.line(), "still creating linux-amd64 (1) after 5s; 0 requests ahead of you");
        waiting.ahead(2);
        tokio::time::advance(Duration::from_secs(2)).await;
        // Asked anew after a cut: still on the same seconds.
        waiting.ticks().tick().await;
        assert_eq!(waiting.line(), "still creating linux-amd64 (1) after 10s; 2 requests ahead of you");
    }
}
