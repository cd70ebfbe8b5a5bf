//! Programs of others that speak the Remote Execution API, against a farm of the real programs, and Goma clients
//! through the bridge against servers of others.
//!
//! `make interop` gets the peers and runs this; elsewhere, and for a peer that could not be had, a test says
//! SKIPPED. Nothing but loopback is used once the peers are there.

mod bazel;
mod bgd;
mod buildbox;
mod buildgrid;
mod goma;
mod goma_binaries;
mod moon;
mod peers;
mod place;
mod project;

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
