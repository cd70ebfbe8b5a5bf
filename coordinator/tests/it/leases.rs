//! Leases: idle expiry, renewal by use and by what runs, restarts.

use crate::farm::{MINUTE, TestFarm};
use motefarm_coordinator::farm::{FarmError, access, destroy, info, renew};
use motefarm_coordinator::identity::{Identity, Role};
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::{Clock as _, Timestamp};
use std::time::Duration;

#[tokio::test]
async fn an_idle_lease_ends_after_thirty_minutes_and_its_instance_is_taken_down() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let row = farm.lease(1).await;
    assert_eq!(row.name, "alice-fake-type-0");

    farm.clock.advance(MINUTE * 29);
    farm.sweep().await;
    farm.reached(row.id, InstanceState::Ready).await;
    // Looking is no use; using is.
    info::list_instances(&farm.app, &TestFarm::alice(), false).await.unwrap();
    renew::renew(&farm.app, &row).await.unwrap();
    farm.clock.advance(MINUTE * 29);
    farm.sweep().await;
    farm.reached(row.id, InstanceState::Ready).await;

    farm.clock.advance(MINUTE);
    farm.sweep().await;
    let gone = farm.reached(row.id, InstanceState::Gone).await;
    assert_eq!(gone.end_reason, Some(EndReason::IdleExpired));
    assert!(buildlet.state().instances.is_empty());
    let error = access::usable_instance(&farm.app, &TestFarm::alice(), &row.id.to_string()).await.unwrap_err();
    assert!(matches!(error, FarmError::Ended { .. }), "{error}");
}

#[tokio::test]
async fn what_runs_keeps_the_lease_and_its_end_counts_as_use() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let row = farm.lease(1).await;
    let running = |on: bool| {
        buildlet.change(|state| {
            let execs = state.instances.get_mut(&row.id).unwrap();
            if on {
                execs.insert("exec".to_owned())
            } else {
                execs.remove("exec")
            };
        });
    };
    running(true);
    let session = farm.app.registry.get("b1").unwrap();
    while session.running_in(row.id) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        farm.clock.advance(MINUTE * 20);
        farm.sweep().await;
    }
    farm.reached(row.id, InstanceState::Ready).await;
    farm.clock.advance(MINUTE * 20);
    running(false);
    let end = farm.app.now() + MINUTE * 30;
    while farm.app.store.instance(row.id).await.unwrap().unwrap().lease.unwrap().expires_at != end {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_execution_nobody_watches_renews_only_so_long() {
    let farm = TestFarm::new("[leases]\nunwatched_limit = '1h'").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let row = farm.lease(1).await;
    buildlet.change(|state| assert!(state.instances.get_mut(&row.id).unwrap().insert("exec".to_owned())));
    let session = farm.app.registry.get("b1").unwrap();
    while session.running_in(row.id) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        farm.clock.advance(MINUTE * 20);
        farm.sweep().await;
    }
    farm.reached(row.id, InstanceState::Gone).await;
}

#[tokio::test]
async fn after_a_start_no_lease_is_judged_before_its_buildlet_or_a_minute() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let (kept, other) = (farm.lease(1).await, farm.lease(2).await);
    let farm = farm.restart().await;
    assert_eq!(farm.reached(kept.id, InstanceState::Lost).await.name, kept.name);
    // Down for 40 minutes, says the clock.
    farm.clock.advance(MINUTE * 40);
    let farm = farm.restart().await;
    farm.sweep().await;
    farm.reached(kept.id, InstanceState::Lost).await;
    // It reports, and nothing ran: over.
    buildlet.connect(true);
    farm.connect(&buildlet, "b1").await;
    farm.sweep().await;
    farm.reached(kept.id, InstanceState::Gone).await;
    farm.reached(other.id, InstanceState::Gone).await;

    // One whose buildlet never reports is judged after a minute.
    let silent = farm.lease(3).await;
    farm.clock.advance(MINUTE * 40);
    let farm = farm.restart().await;
    farm.clock.advance(Duration::from_secs(59));
    farm.sweep().await;
    farm.reached(silent.id, InstanceState::Lost).await;
    farm.clock.advance(Duration::from_secs(1));
    farm.sweep().await;
    farm.reached(silent.id, InstanceState::Ending).await;
    // It is taken down when the buildlet comes back.
    farm.connect(&buildlet, "b1").await;
    farm.sweep().await;
    farm.reached(silent.id, InstanceState::Gone).await;
    assert!(buildlet.state().instances.is_empty());
}

#[tokio::test]
async fn what_ran_on_while_nobody_could_renew_kept_the_lease() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let (busy, idle) = (farm.lease(1).await, farm.lease(2).await);
    farm.begin_execution(&busy).await;
    buildlet.change(|state| assert!(state.instances.get_mut(&busy.id).unwrap().insert("exec".to_owned())));
    // The coordinator is away for an hour; then the contact is, for another.
    let farm = farm.restart().await;
    farm.clock.advance(MINUTE * 60);
    let farm = farm.restart().await;
    farm.connect(&buildlet, "b1").await;
    farm.sweep().await;
    farm.reached(idle.id, InstanceState::Gone).await;
    let end = farm.reached(busy.id, InstanceState::Ready).await.lease.unwrap().expires_at;
    assert_eq!(end, farm.app.now() + MINUTE * 30);
    buildlet.connect(false);
    farm.reached(busy.id, InstanceState::Lost).await;
    farm.clock.advance(MINUTE * 60);
    farm.sweep().await;
    farm.reached(busy.id, InstanceState::Lost).await;
    buildlet.connect(true);
    farm.connect(&buildlet, "b1").await;
    farm.sweep().await;
    farm.reached(busy.id, InstanceState::Ready).await;
}

#[tokio::test]
async fn a_clock_set_back_ends_nothing_early_and_renews_still() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let row = farm.lease(1).await;
    let was = farm.clock.now();
    farm.clock.set(was - MINUTE * 600);
    farm.sweep().await;
    renew::renew(&farm.app, &row).await.unwrap();
    let lease = farm.reached(row.id, InstanceState::Ready).await.lease.unwrap();
    assert!(lease.expires_at >= was + MINUTE * 30 - MINUTE, "{lease:?}");
    farm.clock.set(was + MINUTE * 10);
    renew::renew(&farm.app, &row).await.unwrap();
    let lease = farm.reached(row.id, InstanceState::Ready).await.lease.unwrap();
    assert_eq!(lease.expires_at, was + MINUTE * 40);
}

#[tokio::test]
async fn a_lost_buildlet_makes_its_instances_lost_and_found_again() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let row = farm.lease(1).await;
    buildlet.connect(false);
    farm.reached(row.id, InstanceState::Lost).await;
    buildlet.connect(true);
    farm.connect(&buildlet, "b1").await;
    farm.reached(row.id, InstanceState::Ready).await;
    // One that forgot what it had ends it.
    buildlet.connect(false);
    farm.reached(row.id, InstanceState::Lost).await;
    buildlet.change(|state| state.instances.clear());
    buildlet.connect(true);
    farm.connect(&buildlet, "b1").await;
    farm.sweep().await;
    let gone = farm.reached(row.id, InstanceState::Gone).await;
    assert_eq!(gone.end_reason, Some(EndReason::BuildletForgot));
}

#[tokio::test]
async fn anothers_instance_reads_as_unknown_but_an_admin_may() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 4);
    farm.connect(&buildlet, "b1").await;
    let row = farm.lease(1).await;
    let mallory = Identity { user: "mallory".parse().unwrap(), role: Role::User };
    for name in [row.name.clone(), row.id.to_string()] {
        let theirs = destroy::destroy(&farm.app, &mallory, &name).await.unwrap_err().to_string();
        let nobodys = destroy::destroy(&farm.app, &mallory, "mallory-x-0").await.unwrap_err().to_string();
        assert_eq!(theirs.replace(&name, ""), nobodys.replace("mallory-x-0", ""));
    }
    let before = farm.app.store.instance(row.id).await.unwrap().unwrap().lease.unwrap().expires_at;
    assert_ne!(before, Timestamp::EPOCH);
    let admin = Identity { user: "root".parse().unwrap(), role: Role::Admin };
    destroy::destroy(&farm.app, &admin, &row.name).await.unwrap();
    farm.sweep().await;
    assert_eq!(farm.reached(row.id, InstanceState::Gone).await.end_reason, Some(EndReason::Destroyed));
}
