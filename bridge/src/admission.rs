//! Memory by weight: who needs much waits until there is as much, and nobody is turned away.
//!
//! Requests come in two pools: what was received waits packed in one while it is unpacked into the other.
//! Whoever holds of the second never waits for the first, so nobody waits for himself.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Weights are counted in these.
const UNIT_BYTES: u64 = 1 << 10;

/// An amount of memory that is shared out. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    units: Arc<Semaphore>,
    all: u32,
}

/// Some of it, given back when dropped.
#[derive(Debug, Default)]
#[must_use]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Pool {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.all)
    }

    /// Waits for so many bytes, first come, first served; more than there are in all is all there are.
    /// Cancellation safe.
    pub async fn hold(&self, bytes: u64) -> Held {
        // The pool is never closed.
        Held(self.units.clone().acquire_many_owned(self.units(bytes)).await.ok())
    }

    /// Makes `held` as much as `bytes` if there is as much just now.
    pub fn try_grow(&self, held: &mut Held, bytes: u64) -> bool {
        let has = held.0.as_ref().map_or(0, |permit| u32::try_from(permit.num_permits()).unwrap_or(u32::MAX));
        let lacking = self.units(bytes).saturating_sub(has);
        if lacking == 0 {
            return true;
        }
        let Ok(more) = self.units.clone().try_acquire_many_owned(lacking) else { return false };
        match &mut held.0 {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        true
    }

    /// Bytes that are held just now.
    pub fn in_use(&self) -> u64 {
        (u64::from(self.all) - self.units.available_permits() as u64) * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn who_needs_more_than_there_is_waits_and_nobody_waits_for_ever() {
        let pool = Pool::new(10 << 10);
        let mut first = pool.hold(4 << 10).await;
        let other = pool.hold(3 << 10).await;
        assert!(pool.try_grow(&mut first, 6 << 10) && !pool.try_grow(&mut first, 8 << 10));
        assert_eq!(pool.in_use(), 9 << 10);
        let mut second = Box::pin(pool.hold(5 << 10));
        assert!(second.as_mut().now_or_never().is_none());
        drop((first, other));
        drop(second.await);
        drop(pool.hold(u64::MAX).await);
        assert_eq!(pool.in_use(), 0);
    }
}
