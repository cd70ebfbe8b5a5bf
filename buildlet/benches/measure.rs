//! Numbers, not verdicts: `cargo bench -p motefarm-buildlet`.
//!
//! Drives the real program over its socket: the time of a small command, many at once, memory, and
//! the rate of output. `MOTE_BUILDLET_UNDER_TEST` names another binary to measure.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a measurement that fails has no number to print")]

#[path = "../tests/it/harness.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod harness;

use harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::fs;
use std::time::Instant;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}

async fn measure() {
    idle_cost().await;
    let mut buildlet = Buildlet::start().await;
    let made = Instant::now();
    let instance = buildlet.instance().await;
    eprintln!("an instance: {:?}", made.elapsed());
    let mut client = buildlet.client().await;
    let begun = Instant::now();
    for _ in 0..300 {
        client.describe(DescribeRequest {}).await.unwrap();
    }
    eprintln!("an empty call: {:?}", begun.elapsed() / 300);
    let spec = ExecSpec { program: "/bin/true".into(), ..Default::default() };
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        assert_eq!(run(&mut client, &instance, &spec).await.ending(), (Ending::Exited, 0));
        times.push(begun.elapsed());
    }
    times.sort();
    eprintln!("/bin/true: min {:?}, median {:?}, p99 {:?}", times[0], times[150], times[297]);

    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let (mut client, instance, spec) = (client.clone(), instance.clone(), spec.clone());
        tasks.push(tokio::spawn(async move { run(&mut client, &instance, &spec).await.ending() }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), (Ending::Exited, 0));
    }
    eprintln!("100 at once: {:?}", begun.elapsed());

    let (_, mut stream) = begin(&mut client, &instance, &sh("echo up; exec sleep 1000")).await;
    read_until(&mut stream, "up").await;
    let command = processes(&format!("MOTE_INSTANCE={instance}"))[0];
    let field = |pid: i32, file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    let supervisor: i32 = field(command, "status", "PPid:").parse().unwrap();
    let keeper: i32 = field(supervisor, "status", "PPid:").parse().unwrap();
    for (who, pid) in [("supervisor", supervisor), ("keeper", keeper)] {
        eprintln!(
            "{who}: rss {}, private dirty {}, pss {}",
            field(pid, "status", "VmRSS:"),
            field(pid, "smaps_rollup", "Private_Dirty:"),
            field(pid, "smaps_rollup", "Pss:")
        );
    }
    // Other buildlets may run on this machine.
    let ours = buildlet.data().display().to_string();
    let buildlet_pid = processes(&ours).into_iter().find(|pid| field(*pid, "status", "Name:") == "mote-buildlet");
    if let Some(pid) = buildlet_pid {
        eprintln!("buildlet: rss {}", field(pid, "status", "VmRSS:"));
    }

    for (what, script, bytes) in [
        ("1 GiB by head", "head -c 1073741824 /dev/zero", 1_u64 << 30),
        ("300,000 lines by seq -f", "seq -f %099.0f 300000", 30_000_000),
    ] {
        let spec = ExecSpec { merge_output: true, spool_limit_bytes: 4 << 30, ..sh(script) };
        let begun = Instant::now();
        let (_, mut stream) = begin(&mut client, &instance, &spec).await;
        let mut got = 0;
        while let Some(event) = stream.message().await.unwrap() {
            if let Some(exec_event::Event::Output(chunk)) = event.event {
                got += chunk.data.len() as u64;
            }
        }
        assert_eq!(got, bytes);
        eprintln!("{what}: {:?}, {:.0} MB/s", begun.elapsed(), got as f64 / begun.elapsed().as_secs_f64() / 1e6);
    }
    buildlet.finish().await;
}

/// What instances that do nothing cost: their keepers, and what the buildlet grows by.
async fn idle_cost() {
    const INSTANCES: usize = 50;
    let kib = |pid: i32, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let fields = text.lines().filter_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
        fields.filter_map(|kib| kib.parse::<u64>().ok()).sum::<u64>()
    };
    // Of a whole instance: its keeper and, with a sandbox, what started it and stays.
    let of = |pids: &[i32], name: &str| pids.iter().map(|pid| kib(*pid, name)).sum::<u64>();
    let private = |pids: &[i32]| of(pids, "Private_Clean:") + of(pids, "Private_Dirty:");
    let mut buildlet = Buildlet::start().await;
    // The first instance pays for what all share.
    buildlet.instance().await;
    let data = buildlet.data().display().to_string();
    let is_buildlet =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "mote-buildlet");
    let serving: Vec<i32> = processes(&data).into_iter().filter(is_buildlet).collect();
    let before = (of(&serving, "Pss:"), private(&serving));
    let mut keepers = Vec::new();
    for _ in 0..INSTANCES {
        let instance = buildlet.instance().await;
        let socket =
            motefarm_net::unix::connect_blocking(&buildlet.instance_dir(&instance).join("keeper.sock")).unwrap();
        let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", peer.pid())).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        keepers.push(peer.pid());
        let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
        if name.trim() == "bwrap" {
            keepers.push(parent);
        }
    }
    let after = (of(&serving, "Pss:"), private(&serving));
    let n = INSTANCES as u64;
    let mean = |pids: &[i32]| (of(pids, "Rss:") / n, of(pids, "Pss:") / n, private(pids) / n);
    let (rss, pss, own) = mean(&keepers);
    eprintln!(
        "an idle instance, of {n}: {} processes, rss {rss} KiB, pss {pss} KiB, private {own} KiB;",
        keepers.len()
    );
    eprintln!(
        "  the buildlet grew by pss {} KiB, private {} KiB an instance",
        after.0.saturating_sub(before.0) / n,
        after.1.saturating_sub(before.1) / n
    );
    eprintln!("  which then had pss {} KiB, private {} KiB", after.0, after.1);
    buildlet.finish().await;
}
