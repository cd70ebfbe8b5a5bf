//! Blobs that are on their way to the CAS, so that many requests with the same header send it once.

use motefarm_core::Digest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// See the module. Bounded by what is admitted: a blob is in it while the request that holds it is.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashMap<Digest, watch::Receiver<bool>>>>);

/// What a request has to do about its blobs.
pub struct Claimed {
    /// To be sent by whoever claimed.
    pub ours: Claim,
    /// Sent by others just now; wait, then look again.
    pub theirs: Vec<(Digest, watch::Receiver<bool>)>,
}

/// Blobs that nobody else sends while this is held.
pub struct Claim {
    owner: InFlight,
    digests: Vec<Digest>,
    done: watch::Sender<bool>,
}

impl InFlight {
    /// Claims those that nobody is sending.
    pub fn claim(&self, digests: impl IntoIterator<Item = Digest>) -> Claimed {
        let (done, waiting) = watch::channel(false);
        let mut claim = Claim { owner: self.clone(), digests: Vec::new(), done };
        let mut theirs = Vec::new();
        let mut sending = self.sending();
        for digest in digests {
            match sending.get(&digest) {
                Some(_) if claim.digests.contains(&digest) => {}
                Some(other) => theirs.push((digest, other.clone())),
                None => {
                    sending.insert(digest, waiting.clone());
                    claim.digests.push(digest);
                }
            }
        }
        drop(sending);
        Claimed { ours: claim, theirs }
    }

    fn sending(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<bool>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Claim {
    /// What was claimed.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// All of them are in the CAS now.
    pub fn succeeded(self) {
        // Told before the claim ends, so that no waiter sends again.
        let _ = self.done.send(true);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut sending = self.owner.sending();
        for digest in &self.digests {
            sending.remove(digest);
        }
    }
}

/// Waits until whoever sends has ended; whether it succeeded. Cancellation safe.
pub async fn ended(mut other: watch::Receiver<bool>) -> bool {
    other.wait_for(|done| *done).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_sends_and_the_others_wait_for_how_it_ends() {
        let in_flight = InFlight::default();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let first = in_flight.claim([a, a]);
        assert_eq!((first.ours.digests(), first.theirs.len()), (&[a][..], 0));
        let mut second = in_flight.claim([a, b]);
        assert_eq!(second.ours.digests(), [b]);
        let waiting = ended(second.theirs.remove(0).1);
        let (succeeded, ()) = tokio::join!(waiting, async { first.ours.succeeded() });
        assert!(succeeded);
        let mut third = in_flight.claim([b]);
        let waiting = ended(third.theirs.remove(0).1);
        let (succeeded, ()) = tokio::join!(waiting, async { drop(second) });
        assert!(!succeeded, "given up");
        assert_eq!(in_flight.claim([a, b]).ours.digests(), [a, b]);
    }
}
