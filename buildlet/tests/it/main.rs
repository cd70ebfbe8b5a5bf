//! The real program over its socket, with real processes.

mod harness;
mod instances;
mod output;
mod processes;
mod restarts;
mod starting;
