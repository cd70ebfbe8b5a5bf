//! The end-to-end suites: the real programs over real sockets, each test on a farm of its own.
//!
//! `MOTE_TEST_KEEP=1` keeps a farm's directory, `MOTE_TEST_LOG=debug` makes its programs talk,
//! `MOTE_TEST_SEED` plays a random round again; `MOTE_TEST_KILLS`, `MOTE_TEST_FILES`,
//! `MOTE_TEST_BIG=1` and `MOTE_TEST_LONG=1` say how much is done. What can not be tested on a
//! machine says SKIPPED and why.

mod bad_input;
mod certificates;
mod deploy;
mod direct;
mod exec;
mod go_agent;
mod goma;
mod goma_client;
mod gomote;
mod identity;
mod kill;
mod lease;
mod link;
mod oidc;
mod page;
mod push;
mod reapi;
mod reapi_commands;
mod reapi_page;
mod reapi_probes;
mod sandbox;
mod secrets;
mod security;
mod ssh;
mod tidy;

use motefarm_tests::farm::Builder;
use motefarm_tests::{Programs, TestFarm};
use std::path::PathBuf;
use std::time::Duration;

/// A farm to be shaped, of the programs that Cargo has just built.
fn farm() -> Builder {
    TestFarm::builder(Programs {
        coordinator: PathBuf::from(env!("CARGO_BIN_EXE_mote-coordinator-e2e")),
        buildlet: PathBuf::from(env!("CARGO_BIN_EXE_mote-buildlet-e2e")),
        mote: PathBuf::from(env!("CARGO_BIN_EXE_mote-e2e")),
        bridge: PathBuf::from(env!("CARGO_BIN_EXE_mote-bridge-e2e")),
    })
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
