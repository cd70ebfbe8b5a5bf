//! The operator's toolchain: looked at when asked for, kept, synced to `go1.4`.

use crate::farm::{TYPE, TestFarm};
use motefarm_cas::store::BlobSource as _;
use motefarm_coordinator::farm::{FarmError, bootstrap};
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_core::Digest;
use motefarm_proto::convert;
use std::path::Path;

async fn farm_with(dir: &Path) -> (TestFarm, FakeLink) {
    // TestFarm appends the section of its host type, so this key belongs to another one.
    let farm = TestFarm::new(&format!("[host_types.{TYPE}-go]\nbootstrap = {dir:?}\n")).await;
    let buildlet = FakeLink::new("b1", &format!("{TYPE}-go"), 4);
    farm.connect(&buildlet, "b1").await;
    (farm, buildlet)
}

async fn leased(farm: &TestFarm) -> String {
    let mut wish = TestFarm::wish(1);
    wish.host_type = format!("{TYPE}-go").parse().unwrap();
    let id = wish.id;
    farm.ask(&TestFarm::alice(), wish).await.unwrap();
    motefarm_coordinator::farm::allocate::pass(&farm.app).await.unwrap();
    farm.reached(id, motefarm_core::instance::InstanceState::Ready).await.name
}

fn last_root(buildlet: &FakeLink) -> Digest {
    let (_, sync) = buildlet.state().synced.last().cloned().unwrap();
    assert_eq!(sync.dest, "go1.4");
    convert::digest(&sync.root.unwrap()).unwrap()
}

#[tokio::test]
async fn none_configured_is_said_and_nothing_done() {
    let (farm, buildlet) = TestFarm::with_buildlet("").await;
    let row = farm.lease(1).await;
    let answer = bootstrap::install(&farm.app, &TestFarm::alice(), &row.name).await.unwrap();
    assert!(!answer.configured && answer.result.is_none());
    assert!(buildlet.state().synced.is_empty());
    let error = bootstrap::install(&farm.app, &TestFarm::bob(), &row.name).await.unwrap_err();
    assert!(matches!(error, FarmError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn the_toolchain_is_stored_pinned_and_followed_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::write(dir.path().join("bin/go"), "go").unwrap();
    // Its ignore files are no matter here.
    std::fs::write(dir.path().join(".gitignore"), "bin\n").unwrap();
    let (farm, buildlet) = farm_with(dir.path()).await;
    let name = leased(&farm).await;
    assert!(bootstrap::install(&farm.app, &TestFarm::bob(), &name).await.is_err());
    let alice = TestFarm::alice();
    let answer = bootstrap::install(&farm.app, &alice, &name).await.unwrap();
    assert!(answer.configured && answer.result.is_some());
    let first = last_root(&buildlet);
    for digest in [first, Digest::of(b"go"), Digest::of(b"bin\n")] {
        assert!(farm.app.cas.contains(&digest), "{digest}");
    }
    // Two directories and two files.
    assert_eq!(farm.app.cas.stats().pinned, 4);
    bootstrap::install(&farm.app, &alice, &name).await.unwrap();
    assert_eq!((last_root(&buildlet), farm.app.cas.stats().pinned), (first, 4));
    std::fs::write(dir.path().join("bin/gofmt"), "gofmt").unwrap();
    bootstrap::install(&farm.app, &alice, &name).await.unwrap();
    assert_ne!(last_root(&buildlet), first);
    assert!(farm.app.cas.contains(&Digest::of(b"gofmt")));
    assert_eq!(farm.app.cas.stats().pinned, 5);
}

#[tokio::test]
async fn one_that_can_not_be_read_is_the_operators_fault_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (farm, buildlet) = farm_with(&dir.path().join("missing")).await;
    let name = leased(&farm).await;
    let error = bootstrap::install(&farm.app, &TestFarm::alice(), &name).await.unwrap_err();
    assert!(matches!(error, FarmError::NotReady(_)), "{error}");
    assert!(error.to_string().contains("host_types.fake-type-go.bootstrap"), "{error}");
    assert!(buildlet.state().synced.is_empty());
}
