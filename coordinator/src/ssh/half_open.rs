//! Connections that have not signed in: few, and for a short time.
//!
//! When there are too many the oldest makes way, so that whoever fills the places with connections
//! that say nothing locks nobody out who signs in at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Places.
const MOST: usize = 256;
/// Time to sign in.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// See the module. Clones share the places.
#[derive(Clone, Default)]
pub(super) struct HalfOpen(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    next: u64,
    /// Oldest first.
    taken: VecDeque<(u64, CancellationToken)>,
}

/// A place, given back when it is dropped.
pub(super) struct Place {
    number: u64,
    half_open: HalfOpen,
}

impl HalfOpen {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a place; `cut` is cancelled if it is taken away.
    pub(super) fn enter(&self, cut: CancellationToken) -> Place {
        let mut places = self.places();
        if places.taken.len() >= MOST
            && let Some((_, oldest)) = places.taken.pop_front()
        {
            oldest.cancel();
        }
        places.next += 1;
        let number = places.next;
        places.taken.push_back((number, cut));
        drop(places);
        Place { number, half_open: self.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.half_open.places().taken.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_way() {
        let half_open = HalfOpen::default();
        let cuts: Vec<_> = (0..MOST + 2).map(|_| CancellationToken::new()).collect();
        let mut places: Vec<_> = cuts.iter().map(|cut| half_open.enter(cut.clone())).collect();
        let cut: Vec<_> = cuts.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(cut.iter().filter(|cut| **cut).count(), 2);
        assert!(cut[0] && cut[1]);
        places.truncate(10);
        assert_eq!(half_open.places().taken.len(), 8);
        drop(places);
        assert_eq!(half_open.places().taken.len(), 0);
    }
}
