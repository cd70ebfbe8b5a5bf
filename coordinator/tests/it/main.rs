//! The coordinator's use cases in process: real SQLite, a clock that is set, a buildlet that is faked.

mod farm;
mod leases;
mod queue;
