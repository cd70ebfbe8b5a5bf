//! Actions that run just now, so that equal ones run once.

use crate::backend::execute::{NotRun, Ran};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use motefarm_core::Digest;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

/// How one ended.
pub type Outcome = Result<Arc<Ran>, NotRun>;
type Run = BoxFuture<'static, Outcome>;

/// See the module.
#[derive(Default)]
pub struct Running(Mutex<HashMap<Key, WeakShared<Run>>>);

/// What makes two runs the same: the action, and whether its server may answer from its cache.
type Key = (Digest, bool);

impl Running {
    /// The run of this action: one that is under way, else a new one. It ends when nobody waits for it any
    /// more, unless it was `detach`ed: a client that left often comes back and asks again.
    pub fn join(
        &self,
        action: Digest,
        skip_cache: bool,
        detach: bool,
        run: impl Future<Output = Outcome> + Send + 'static,
    ) -> Shared<Run> {
        let mut running = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (action, skip_cache);
        if let Some(joined) = running.get(&key).and_then(WeakShared::upgrade)
            && joined.peek().is_none()
        {
            return joined;
        }
        running.retain(|_, run| run.upgrade().is_some_and(|run| run.peek().is_none()));
        let run = run.boxed().shared();
        running.extend(run.downgrade().map(|weak| (key, weak)));
        if detach {
            tokio::spawn(run.clone());
        }
        run
    }

    /// How many run.
    pub fn len(&self) -> usize {
        let running = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        running.values().filter(|run| run.upgrade().is_some_and(|run| run.peek().is_none())).count()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::reapi::ActionResult;
    use tokio::sync::oneshot;

    fn ran(exit_code: i32) -> Outcome {
        Ok(Arc::new(Ran { result: ActionResult { exit_code, ..ActionResult::default() }, cached: false }))
    }

    #[tokio::test]
    async fn equal_actions_run_once_and_again_when_that_is_over() {
        let running = Running::default();
        let (go, wait) = oneshot::channel();
        let one = running.join(Digest::of(b"a"), false, false, async move {
            wait.await.unwrap();
            ran(1)
        });
        let same = running.join(Digest::of(b"a"), false, false, async { ran(2) });
        let other = running.join(Digest::of(b"a"), true, false, async { ran(3) });
        assert_eq!(running.len(), 2);
        go.send(()).unwrap();
        let codes = [one.await, same.await, other.await].map(|ran| ran.unwrap().result.exit_code);
        assert_eq!(codes, [1, 1, 3]);
        let later = running.join(Digest::of(b"a"), false, false, async { ran(4) });
        assert_eq!(later.await.unwrap().result.exit_code, 4);
        assert!(running.is_empty());
    }

    #[tokio::test]
    async fn a_run_ends_with_its_last_waiter_unless_it_was_detached() {
        for detach in [false, true] {
            let running = Running::default();
            let (go, wait) = oneshot::channel::<()>();
            let (done, ended) = oneshot::channel();
            let run = running.join(Digest::of(b"a"), false, detach, async move {
                let _ = wait.await;
                let _ = done.send(());
                ran(0)
            });
            drop(run);
            let _ = go.send(());
            assert_eq!(ended.await.is_ok(), detach);
        }
    }
}
