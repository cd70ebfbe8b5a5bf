//! Many idle machines and leases: what they cost, and how long a sweep takes. Used by the tests, with
//! few, and by the bench `scale`, with many.

use crate::farm::{TYPE, TestFarm};
use motefarm_coordinator::farm::allocate;
use motefarm_coordinator::farm::create::Wish;
use motefarm_coordinator::identity::{Identity, Role};
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_core::instance::InstanceState;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Memory that the buildlets and leases cost.
    pub(crate) grown_bytes: u64,
    /// The longest of the sweeps.
    pub(crate) longest_sweep: Duration,
    /// Their median.
    pub(crate) median_sweep: Duration,
    /// The longest that somebody else's write took while they went on: what a sweep makes others wait, for
    /// the database's one writer or for the runtime's thread.
    pub(crate) longest_pause: Duration,
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Brings `buildlets` into contact, leases ten instances on each, and sweeps.
pub(crate) async fn measure(buildlets: usize, sweeps: usize) -> Measured {
    const LEASES: usize = 10;
    let farm = TestFarm::new("[limits]\nqueue = 100000").await;
    let before = resident_bytes();
    let mut links = Vec::new();
    for n in 0..buildlets {
        let id = format!("b{n}");
        let link = FakeLink::new(&id, TYPE, LEASES as u64);
        farm.connect(&link, &id).await;
        links.push(link);
    }
    for n in 0..buildlets {
        // Ten a user, as people have them.
        let user = Identity { user: format!("user{n}").parse().unwrap(), role: Role::User };
        let wishes: Vec<Wish> = (0..LEASES).map(|k| TestFarm::wish((n * LEASES + k + 1) as u128)).collect();
        for wish in &wishes {
            farm.ask(&user, wish.clone()).await.unwrap();
        }
        allocate::pass(&farm.app).await.unwrap();
        for wish in wishes {
            farm.reached(wish.id, InstanceState::Ready).await;
        }
    }
    // One in a hundred runs something.
    for (link, n) in links.iter().zip(0..).filter(|(_, n)| n % 10 == 0) {
        link.change(|state| {
            let busy = state.instances.values_mut().next().unwrap();
            busy.insert(format!("exec{n}"));
        });
    }
    farm.sweep().await;
    let grown_bytes = resident_bytes().saturating_sub(before);
    let (app, stop) = (farm.app.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let others = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !stopped.is_cancelled() {
            let begun = Instant::now();
            app.store.buildlet_seen("b0", app.now()).await.unwrap();
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        longest
    });
    let mut times = Vec::new();
    for _ in 0..sweeps {
        farm.clock.advance(Duration::from_millis(500));
        let begun = Instant::now();
        farm.sweep().await;
        times.push(begun.elapsed());
    }
    stop.cancel();
    times.sort();
    Measured {
        grown_bytes,
        longest_sweep: times[times.len() - 1],
        median_sweep: times[times.len() / 2],
        longest_pause: others.await.unwrap(),
    }
}

#[tokio::test]
async fn a_sweep_over_idle_leases_costs_next_to_nothing() {
    let measured = measure(30, 20).await;
    // Generous: other tests run beside this one, unoptimized. The bench has the true bounds.
    assert!(measured.median_sweep < Duration::from_millis(250), "{measured:?}");
    assert!(measured.longest_sweep < Duration::from_secs(5), "{measured:?}");
    assert!(measured.longest_pause < Duration::from_secs(1), "{measured:?}");
    assert!(measured.grown_bytes < 200 << 20, "{measured:?}");
}
