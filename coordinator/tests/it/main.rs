//! The coordinator's use cases in process: real SQLite, a clock that is set, a buildlet that is faked.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod actions;
mod bootstrap;
mod farm;
mod fetch;
mod files;
mod go_agent;
mod groups;
mod id_tokens;
mod info;
mod join;
mod leases;
mod notify;
mod queue;
mod scale;
mod sharing;
mod sign_in;
mod snapshots;
