//! How many bytes the other side of a stream still takes: flow control of our own, where the transport's
//! would let one reader who stands still hold up all the others.

use std::sync::Mutex;
use tokio::sync::Notify;

/// See the module.
pub struct Window {
    left: Mutex<u64>,
    opened: Notify,
}

impl Window {
    pub fn new(bytes: u64) -> Self {
        Self { left: Mutex::new(bytes), opened: Notify::new() }
    }

    fn left(&self) -> std::sync::MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The other side takes more.
    pub fn open(&self, bytes: u64) {
        let mut left = self.left();
        *left = left.saturating_add(bytes);
        self.opened.notify_waiters();
        drop(left);
    }

    /// Reserves up to `most` bytes, at least one, waiting for it. Cancellation safe.
    pub async fn take(&self, most: usize) -> usize {
        loop {
            let mut opened = std::pin::pin!(self.opened.notified());
            // Heard from here on: `open` may come between the look and the wait.
            opened.as_mut().enable();
            {
                let mut left = self.left();
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(most);
                if taken > 0 {
                    *left -= u64::try_from(taken).unwrap_or(0);
                    return taken;
                }
            }
            opened.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_is_gone_until_more_is_given() {
        let window = Window::new(5);
        assert_eq!(window.take(3).await, 3);
        assert_eq!(window.take(3).await, 2);
        let (taken, ()) = tokio::join!(window.take(10), async { window.open(4) });
        assert_eq!(taken, 4);
    }
}
