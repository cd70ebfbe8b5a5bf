//! 1,000 idle buildlets in contact with 10,000 leases: memory and sweeps, held against the goals of
//! `docs/performance.md`. `cargo bench -p motefarm-coordinator --bench scale [-- BUILDLETS]`.
//!
//! The buildlets are faked in this very process, so their side is counted too: the truth is below what is
//! printed. What a real connection costs is not here.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

#[path = "../tests/it/farm.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod farm;
#[path = "../tests/it/scale.rs"]
mod scale;

use std::process::ExitCode;
use std::time::Duration;

const MOST_BYTES: u64 = 200 << 20;
const MOST_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let buildlets = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1000);
    // One thread, so that whatever does not give way shows as a pause.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measured = runtime.block_on(scale::measure(buildlets, 60));
    println!("{buildlets} buildlets, {} leases", buildlets * 10);
    println!("memory: {:.1} MiB (goal: under {})", measured.grown_bytes as f64 / 1048576.0, MOST_BYTES >> 20);
    println!("sweep: median {:?}, longest {:?}", measured.median_sweep, measured.longest_sweep);
    println!("longest pause for others: {:?} (goal: under {MOST_PAUSE:?})", measured.longest_pause);
    let within = measured.grown_bytes < MOST_BYTES && measured.longest_pause < MOST_PAUSE;
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
