//! Numbers, not verdicts: `cargo bench -p motefarm-buildlet --bench actions`.
//!
//! What an action costs besides its command: many of `/bin/true` on two slots, with a sandbox and without,
//! and one with a few hundred inputs. `MOTE_BUILDLET_UNDER_TEST` names another binary to measure.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a measurement that fails has no number to print")]

#[path = "../tests/it/actions/caller.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod caller;
#[path = "../tests/it/harness.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod harness;

use caller::*;
use harness::*;
use std::time::{Duration, Instant};

const ACTIONS: usize = 1000;
const SLOTS: usize = 2;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        // In place of this: the command alone.
        let begun = Instant::now();
        for _ in 0..ACTIONS {
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
        }
        eprintln!("/bin/true alone, one after the other: {:?} each", begun.elapsed() / ACTIONS as u32);
        for args in [&["--action-slots", "2"][..], &["--action-slots", "2", "--no-sandbox"]] {
            measure(args).await;
        }
    });
}

async fn measure(args: &[&str]) {
    eprintln!("{}", args.join(" "));
    let buildlet = Buildlet::start_with(args).await;
    let few = Job::new(&["/bin/true"]);
    rate("  no inputs", &buildlet, &few, 1).await;
    rate("  no inputs", &buildlet, &few, SLOTS).await;
    let mut many = Job::new(&["/bin/true"]).outputs(&["out/a"]);
    for n in 0..300 {
        many = many.file(&format!("src/d{}/f{n}.h", n % 20), &format!("{n}").repeat(2000));
    }
    rate("  300 inputs of 6 KB", &buildlet, &many, SLOTS).await;
    buildlet.finish().await;
}

async fn rate(what: &str, buildlet: &Buildlet, job: &Job, at_once: usize) {
    let (start, blobs) = job.finish();
    let mut client = buildlet.client().await;
    run_with(&mut client, start.clone(), &blobs).await;
    let begun = Instant::now();
    let mut lanes = Vec::new();
    for _ in 0..at_once {
        let (mut client, start) = (buildlet.client().await, start.clone());
        lanes.push(tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..ACTIONS / at_once {
                let begun = Instant::now();
                let came = run_with(&mut client, start.clone(), &Default::default()).await;
                assert_eq!(came.result().exit_code, 0);
                times.push(begun.elapsed());
            }
            times
        }));
    }
    let mut times: Vec<Duration> = Vec::new();
    for lane in lanes {
        times.extend(lane.await.unwrap());
    }
    let all = begun.elapsed();
    times.sort();
    let middle = times[times.len() / 2];
    eprintln!(
        "{what}, {at_once} at a time: median {middle:?}, p99 {:?}; {:?} each over all",
        times[times.len() * 99 / 100],
        all / times.len() as u32
    );
}
