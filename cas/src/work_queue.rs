//! Jobs that make more jobs, on a few threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is left to do. Last in, first out: a walk that goes deep before it goes wide holds few
/// directories open.
pub(crate) struct WorkQueue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

struct State<J> {
    jobs: Vec<J>,
    /// Jobs taken and not finished, which may make more.
    running: usize,
    stopped: bool,
}

/// A job under way.
struct Running<'a, J>(&'a WorkQueue<J>);

impl<J> Drop for Running<'_, J> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        if state.running == 0 && state.jobs.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

/// How many threads walks and hashing use: the machine's, but two to four. One waits for the disk
/// while another computes; more contend for directory locks.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

/// Runs `work` on all of `initial` and whatever it pushes. The first error stops everything.
pub(crate) fn run<J: Send, E: Send>(
    initial: Vec<J>,
    work: impl Fn(J, &WorkQueue<J>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let queue =
        WorkQueue { state: Mutex::new(State { jobs: initial, running: 0, stopped: false }), changed: Condvar::new() };
    let failed = Mutex::new(None);
    let worker = || {
        while let Some(job) = queue.take() {
            // By guard, so that a panic ends the other threads instead of leaving them waiting.
            let _running = Running(&queue);
            if let Err(error) = work(job, &queue) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                queue.stop();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads() {
            scope.spawn(worker);
        }
        worker();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

impl<J> WorkQueue<J> {
    /// Adds a job.
    pub(crate) fn push(&self, job: J) {
        self.state().jobs.push(job);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<J> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.jobs.pop() {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn jobs_of_jobs_are_done_before_it_returns() {
        let done = AtomicUsize::new(0);
        let result: Result<(), ()> = run(vec![10u32], |depth, queue| {
            done.fetch_add(1, Ordering::Relaxed);
            if depth > 0 {
                queue.push(depth - 1);
                queue.push(depth - 1);
            }
            Ok(())
        });
        assert_eq!((result, done.into_inner()), (Ok(()), (1 << 11) - 1));
    }

    #[test]
    fn the_first_error_ends_it() {
        assert_eq!(run(vec![1, 2, 3], |job, _| if job == 3 { Err(job) } else { Ok(()) }), Err(3));
    }
}
