//! The agent on a machine of the farm: instances' directories and sandboxes, the processes in them,
//! and what they write. One program in several roles: the buildlet, the keeper of an instance, the
//! supervisor of an execution (forked by the keeper), the runner of actions, and small servers inside an
//! instance.
//! ARCHITECTURE.md says who outlives whom.
//!
//! **Absent on purpose:** users, who owns a lease, why an instance exists.

mod action;
mod agent;
mod applet;
mod archive;
mod claim;
mod cli;
mod daemon;
mod environment;
mod error;
mod exec_dir;
mod exec_events;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod identity;
mod instance;
mod keeper;
mod keeper_client;
mod layout;
mod proc_tree;
mod program;
mod runner;
mod runner_client;
mod sandbox;
mod session;
mod spool;
mod staging;
mod supervisor;
mod supervisor_client;
mod trees;
mod unpack;
mod wakeups;
mod wipe;
mod wire;

use clap::Parser as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The whole program.
pub fn main_impl() -> ExitCode {
    close_inherited();
    let mut arguments = std::env::args();
    // Before anything else: the keeper forks, so it must stay small and have one thread.
    let first = arguments.nth(1).unwrap_or_default();
    if first == keeper::ROLE {
        return keeper::main(arguments);
    }
    if first == runner::ROLE {
        return runner::main();
    }
    if let Some(code) = applet::run(&first, arguments) {
        return code;
    }
    let cli = cli::Cli::parse();
    let filter = EnvFilter::try_from_env("MOTE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let ran = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from).and_then(
        |runtime| {
            let ran = runtime.block_on(daemon::run(cli));
            // Threads that wait for a disk or a reader must not keep a stopped buildlet.
            runtime.shutdown_background();
            ran
        },
    );
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the buildlet stops");
            ExitCode::FAILURE
        }
    }
}

/// Closes whatever the starter left open beyond standard input, output and error. Keepers live for
/// weeks: neither they nor commands are to hold somebody's pipe or file.
fn close_inherited() {
    #[expect(unsafe_code, reason = "descriptors nobody owns have no safe way to be closed")]
    // SAFETY: this is the first thing the program does: nothing of its own is open yet. A kernel
    // without the call (before 5.9) refuses it, and all stays as it was.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}
