//! The coordinator's use cases in process: real SQLite, a clock that is set, a buildlet that is faked.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod farm;
mod join;
mod leases;
mod queue;
