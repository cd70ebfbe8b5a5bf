//! Instances of clients that address the buildlet directly: it keeps their leases itself.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::fs;
use std::time::{Duration, Instant};
use tonic::Code;

fn request(id: &str, idle_timeout_ms: u64, max_lifetime_ms: u64) -> BuildletCreateInstanceRequest {
    BuildletCreateInstanceRequest {
        instance_id: id.into(),
        name: "direct".into(),
        terms: Some(LeaseTerms { idle_timeout_ms, max_lifetime_ms, unwatched_limit_ms: 0 }),
        leased_by_use: true,
        ..Default::default()
    }
}

async fn make(buildlet: &mut Buildlet, idle_timeout_ms: u64, max_lifetime_ms: u64) -> String {
    let id = uuid::Uuid::new_v4().to_string();
    buildlet.client().await.create_instance(request(&id, idle_timeout_ms, max_lifetime_ms)).await.unwrap();
    buildlet.instances.push(id.clone());
    id
}

#[tokio::test]
async fn use_renews_idleness_ends_and_a_new_one_may_take_the_id() {
    let mut buildlet = Buildlet::start().await;
    let idle = make(&mut buildlet, 1500, 0).await;
    let used = make(&mut buildlet, 1500, 0).await;
    let busy = make(&mut buildlet, 1500, 0).await;
    let usual = make(&mut buildlet, 0, 0).await;
    let mut client = buildlet.client().await;
    // News of a coordinator there can not be.
    let leases = vec![LeaseEnd { instance_id: idle.clone(), expires_at_ms: i64::MAX / 2 }];
    client.set_leases(SetLeasesRequest { leases }).await.unwrap();
    fs::write(buildlet.instance_dir(&idle).join("work/f"), "old").unwrap();
    let (_, mut stream) = begin(&mut client, &busy, &sh("echo on; exec sleep 1000")).await;
    read_until(&mut stream, "on").await;
    let dir = buildlet.instance_dir(&idle);
    let until = Instant::now() + PATIENCE;
    while dir.exists() {
        assert!(Instant::now() < until, "an idle instance stays");
        let remove = BuildletRemovePathsRequest { instance_id: used.clone(), paths: vec!["nothing".into()] };
        client.remove_paths(remove).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for id in [&used, &busy, &usual] {
        assert!(buildlet.instance_dir(id).exists());
    }
    // A repeat finds the one that lives and makes the one that was ended anew.
    fs::write(buildlet.instance_dir(&used).join("work/f"), "kept").unwrap();
    client.create_instance(request(&used, 1500, 0)).await.unwrap();
    assert!(buildlet.instance_dir(&used).join("work/f").exists());
    client.create_instance(request(&idle, 60_000, 0)).await.unwrap();
    assert!(dir.exists() && !dir.join("work/f").exists());
    assert_eq!(run(&mut client, &idle, &sh("echo anew")).await.text(), "anew\n");
    buildlet.finish().await;
}

#[tokio::test]
async fn the_longest_life_ends_it_whatever_runs() {
    let mut buildlet = Buildlet::start().await;
    let short = make(&mut buildlet, 60_000, 1500).await;
    let mut client = buildlet.client().await;
    let (_, mut stream) = begin(&mut client, &short, &sh("echo on; exec sleep 1000")).await;
    read_until(&mut stream, "on").await;
    let dir = buildlet.instance_dir(&short);
    eventually("its life is over", || !dir.exists()).await;
    let cut = collect(stream, 3).await;
    assert_eq!(cut.code(), Some(Code::FailedPrecondition), "{cut:?}");
    // Over before the sweep has come by: no call revives it, and a repeat makes a new one.
    client.create_instance(request(&short, 60_000, 1)).await.unwrap();
    let late = run_status(&mut client, &short).await;
    assert!(matches!(late, Some(Code::FailedPrecondition | Code::NotFound)), "{late:?}");
    client.create_instance(request(&short, 60_000, 0)).await.unwrap();
    assert_eq!(run(&mut client, &short, &sh("true")).await.ending(), (Ending::Exited, 0));
    buildlet.finish().await;
}

async fn run_status(client: &mut Client, instance: &str) -> Option<Code> {
    let list = BuildletListDirRequest { instance_id: instance.into(), list: None };
    client.list_dir(list).await.err().map(|status| status.code())
}

#[tokio::test]
async fn leases_by_use_survive_the_buildlet_and_end_without_patience() {
    let mut buildlet = Buildlet::start().await;
    let idle = make(&mut buildlet, 1500, 0).await;
    let busy = make(&mut buildlet, 1500, 0).await;
    let long = make(&mut buildlet, 600_000, 0).await;
    let mut client = buildlet.client().await;
    let (exec, mut stream) = begin(&mut client, &busy, &sh("echo on; exec sleep 1000")).await;
    read_until(&mut stream, "on").await;
    buildlet.kill();
    buildlet.run().await;
    let dir = buildlet.instance_dir(&idle);
    eventually("the idle one ends", || !dir.exists()).await;
    assert!(buildlet.instance_dir(&long).exists());
    let mut client = buildlet.client().await;
    let info = client.list_execs(BuildletListExecsRequest { instance_id: busy.clone(), ..Default::default() }).await;
    let execs = info.unwrap().into_inner().execs;
    assert!(execs.len() == 1 && execs[0].exec_id == exec && execs[0].outcome.is_none(), "{execs:?}");
    buildlet.finish().await;
}
