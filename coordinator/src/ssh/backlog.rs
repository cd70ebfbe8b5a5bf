//! What a client has sent on its channels and nobody has taken: the bound of what one connection holds.
//!
//! The ssh library lets a client send more as soon as something has come, not when it was taken. So
//! the connection is not read while too much waits (`transport.rs`), unless output waits for the
//! client's word, which comes the same way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Reading pauses when more than this waits.
const PAUSE_BYTES: usize = 4 * 1024 * 1024;
/// Reading goes on beyond that, up to here, only so that output can go on.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What a channel lets its client send ahead while little waits, and while much does.
const WIDE_WINDOW: u32 = 2 * 1024 * 1024;
const NARROW_WINDOW: u32 = 128 * 1024;
/// What a message costs besides its content.
const MESSAGE_BYTES: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Backlog(Mutex<State>);

#[derive(Default)]
struct State {
    /// Takings may be noted before comings: a message is taken as soon as it is there.
    waiting: HashMap<u32, i64>,
    total: i64,
    /// Outputs that wait for their client's window.
    starved: usize,
    reader: Option<Waker>,
}

impl State {
    fn reads(&self) -> bool {
        let total = usize::try_from(self.total).unwrap_or(0);
        total <= PAUSE_BYTES || (self.starved > 0 && total <= MOST_BYTES)
    }

    fn wake(&mut self) {
        if self.reads()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

fn cost(bytes: usize) -> i64 {
    i64::try_from(bytes + MESSAGE_BYTES).unwrap_or(i64::MAX)
}

impl Backlog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Begins to count what comes on a channel.
    pub(super) fn open(&self, channel: u32) {
        self.state().waiting.insert(channel, 0);
    }

    /// A message with so much content has come.
    pub(super) fn came(&self, channel: u32, bytes: usize) {
        let mut state = self.state();
        let Some(waiting) = state.waiting.get_mut(&channel) else { return };
        *waiting += cost(bytes);
        state.total += cost(bytes);
    }

    /// It was taken, and room for as much again is there.
    pub(super) fn taken(&self, channel: u32, bytes: usize) {
        self.less(channel, cost(bytes));
    }

    /// Part of it was.
    pub(super) fn taken_in_part(&self, channel: u32, bytes: usize) {
        self.less(channel, cost(bytes) - cost(0));
    }

    fn less(&self, channel: u32, cost: i64) {
        let mut state = self.state();
        let Some(waiting) = state.waiting.get_mut(&channel) else { return };
        *waiting -= cost;
        state.total -= cost;
        state.wake();
    }

    /// Nobody takes anything from a channel any more.
    pub(super) fn close(&self, channel: u32) {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.remove(&channel) {
            state.total -= waiting;
            state.wake();
        }
    }

    /// Output waits for its client until the guard goes.
    pub(super) fn starve(&self) -> Starved<'_> {
        let mut state = self.state();
        state.starved += 1;
        state.wake();
        Starved(self)
    }

    /// Ready when the connection may be read.
    pub(super) fn poll_reads(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.reads() {
            return Poll::Ready(());
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// What a client may send ahead on a channel from now on.
    pub(super) fn window(&self) -> u32 {
        if self.state().total > cost(PAUSE_BYTES / 4) { NARROW_WINDOW } else { WIDE_WINDOW }
    }
}

/// See [`Backlog::starve`].
pub(super) struct Starved<'a>(&'a Backlog);

impl Drop for Starved<'_> {
    fn drop(&mut self) {
        self.0.state().starved -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_pauses_while_too_much_waits_unless_output_needs_it() {
        let (backlog, context) = (Backlog::default(), Context::from_waker(Waker::noop()));
        let (one, two) = (1, 2);
        backlog.open(one);
        backlog.open(two);
        assert_eq!(backlog.window(), WIDE_WINDOW);
        backlog.came(one, 3 << 20);
        assert_eq!(backlog.window(), NARROW_WINDOW);
        assert!(backlog.poll_reads(&context).is_ready());
        backlog.came(two, 2 << 20);
        assert!(backlog.poll_reads(&context).is_pending());
        let starved = backlog.starve();
        assert!(backlog.poll_reads(&context).is_ready());
        drop(starved);
        assert!(backlog.poll_reads(&context).is_pending());
        backlog.taken(two, 2 << 20);
        assert!(backlog.poll_reads(&context).is_ready());
        backlog.close(one);
        backlog.came(one, 1 << 30);
        backlog.close(one);
        assert_eq!(backlog.window(), WIDE_WINDOW);
        assert!(backlog.poll_reads(&context).is_ready());
        backlog.came(two, 1 << 30);
        let _starved = backlog.starve();
        assert!(backlog.poll_reads(&context).is_pending(), "not without end");
    }
}
