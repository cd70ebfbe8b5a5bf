//! The real program over its socket, with real processes.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod actions;
mod files;
mod fronts;
mod harness;
mod instances;
mod leased_by_use;
mod output;
mod processes;
mod restarts;
mod sessions;
mod starting;
mod trees;
