//! The real program over its socket, with real processes.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod fronts;
mod harness;
mod instances;
mod output;
mod processes;
mod restarts;
mod starting;
mod trees;
