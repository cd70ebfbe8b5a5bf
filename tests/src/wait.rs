//! Waiting for conditions, and saying things past the test runner's capture.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `look` finds something; panics with `what` after `within`.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, look: impl FnMut() -> Option<T>) -> T {
    match maybe(within, look) {
        Some(found) => found,
        None => panic!("waited {within:?} in vain until {what}"),
    }
}

/// The same, `None` if it does not come.
pub fn maybe<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begin.elapsed() > within {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `look` says yes.
#[track_caller]
pub fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) {
    until(what, within, || look().then_some(()));
}

/// Writes a line to stderr, past the test runner's capture of what a test prints.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Says loudly that something was not tested, and why.
pub fn skipped(what: &str, why: &str) {
    say(&format!("SKIPPED: {what}: {why}"));
}

/// A whole number from the environment.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether a switch of the environment is on.
pub fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}
