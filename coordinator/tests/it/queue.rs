//! The queue: order, position, bounds, restarts.

use crate::farm::{MINUTE, TestFarm};
use motefarm_coordinator::farm::{FarmError, allocate, destroy};
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_core::instance::{EndReason, InstanceState};

#[tokio::test]
async fn slots_go_to_those_who_wait_in_their_order() {
    let farm = TestFarm::new("").await;
    let buildlet = FakeLink::new("b1", "fake-type", 1);
    farm.connect(&buildlet, "b1").await;
    let first = farm.lease(1).await;
    let (second, third) = (farm.request(2).await.unwrap(), farm.request(3).await.unwrap());
    allocate::pass(&farm.app).await.unwrap();
    let queue = farm.app.store.wait_queue().await.unwrap();
    assert_eq!((queue.ahead_of(second), queue.ahead_of(third)), (Some(0), Some(1)));
    destroy::destroy(&farm.app, &TestFarm::alice(), &first.name).await.unwrap();
    farm.sweep().await;
    farm.reached(first.id, InstanceState::Gone).await;
    allocate::pass(&farm.app).await.unwrap();
    farm.reached(second, InstanceState::Ready).await;
    farm.reached(third, InstanceState::Queued).await;
}

#[tokio::test]
async fn a_repeated_request_is_one_and_a_full_queue_says_so() {
    let farm = TestFarm::new("[limits]\nqueue = 2").await;
    let one = farm.request(1).await.unwrap();
    assert_eq!(farm.request(1).await.unwrap(), one);
    farm.request(2).await.unwrap();
    let error = farm.request(3).await.unwrap_err();
    assert!(matches!(error, FarmError::Exhausted(_)), "{error}");
    // A repeat of one that waits is still welcome.
    farm.request(1).await.unwrap();
}

#[tokio::test]
async fn a_request_nobody_waits_for_is_given_up() {
    let farm = TestFarm::new("").await;
    let id = farm.request(1).await.unwrap();
    farm.clock.advance(MINUTE / 2);
    farm.sweep().await;
    farm.reached(id, InstanceState::Queued).await;
    farm.clock.advance(MINUTE / 2);
    farm.sweep().await;
    assert_eq!(farm.reached(id, InstanceState::Gone).await.end_reason, Some(EndReason::CreateCancelled));
}

#[tokio::test]
async fn a_request_survives_a_restart_in_its_place() {
    let farm = TestFarm::new("").await;
    let (one, two) = (farm.request(1).await.unwrap(), farm.request(2).await.unwrap());
    let farm = farm.restart().await;
    let queue = farm.app.store.wait_queue().await.unwrap();
    assert_eq!((queue.ahead_of(one), queue.ahead_of(two)), (Some(0), Some(1)));
    let buildlet = FakeLink::new("b1", "fake-type", 2);
    farm.connect(&buildlet, "b1").await;
    allocate::pass(&farm.app).await.unwrap();
    farm.reached(one, InstanceState::Ready).await;
    farm.reached(two, InstanceState::Ready).await;
    assert_eq!(buildlet.state().creates, 2);
}

#[tokio::test]
async fn an_unknown_host_type_is_answered_with_those_there_are() {
    let farm = TestFarm::new("").await;
    let id = motefarm_core::InstanceId::from_uuid(uuid::Uuid::from_u128(9));
    let asked = motefarm_coordinator::farm::create::create(
        &farm.app,
        &TestFarm::alice(),
        id,
        "plan9-arm".parse().unwrap(),
        None,
    )
    .await;
    let Err(error) = asked else { panic!("accepted") };
    assert!(error.to_string().contains("fake-type"), "{error}");
}
