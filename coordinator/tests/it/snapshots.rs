//! Snapshots: from an archive to a tree that is kept, and from the tree to new instances.

use crate::farm::{MINUTE, TestFarm};
use futures_util::StreamExt as _;
use motefarm_cas::snapshot::stored_tree;
use motefarm_cas::store::{BlobSource as _, Store as Cas};
use motefarm_cas::sync::{SyncPlan, sync_tree};
use motefarm_coordinator::farm::create::{self, Wish};
use motefarm_coordinator::farm::{FarmError, allocate, destroy, snapshots};
use motefarm_coordinator::identity::Role;
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::{Digest, WorkPath};
use motefarm_proto::{convert, mote};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// An archive of some files, as a buildlet makes it, and the directory itself.
fn archive(marker: &str) -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("src/cmd")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("src/cmd/main.go"), marker).unwrap();
    fs::write(root.join("src/all.bash"), "#!/bin/bash\n").unwrap();
    fs::set_permissions(root.join("src/all.bash"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(root.join("large"), vec![3; 2 << 20]).unwrap();
    symlink("src/cmd", root.join("link")).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all("", root).unwrap();
    (dir, builder.into_inner().unwrap())
}

/// Everything below a directory: path, mode and content or target.
fn listing(root: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.file_type() {
                kind if kind.is_dir() => {
                    dirs.push(path.clone());
                    Vec::new()
                }
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            let mode = if meta.is_symlink() { 0 } else { meta.permissions().mode() & 0o777 };
            all.push((path.strip_prefix(root).unwrap().display().to_string(), mode, content));
        }
    }
    all.sort();
    all
}

/// Does with a recorded request what a buildlet does.
fn bring(cas: &Cas, sync: &mote::TreeSync, work: &Path) {
    let root = fs::File::open(work).unwrap();
    let root_digest = convert::digest(sync.root.as_ref().unwrap()).unwrap();
    let plan = SyncPlan { root: root_digest, ignore_files: Vec::new(), keep: Vec::new(), dry_run: false };
    let dest = WorkPath::parse(&sync.dest).unwrap();
    let result = sync_tree(root.as_fd(), &dest, &plan, cas, &work.with_extension("index")).unwrap();
    assert!(result.missing.is_empty(), "{result:?}");
}

fn ask(instance: &str, name: &str) -> mote::CreateSnapshotRequest {
    mote::CreateSnapshotRequest { instance: instance.to_owned(), dir: "go/".to_owned(), name: name.to_owned() }
}

fn from(n: u128, name: &str) -> Wish {
    Wish { from_snapshot: Some(name.parse().unwrap()), ..TestFarm::wish(n) }
}

fn root_of(info: &mote::SnapshotInfo) -> Digest {
    convert::digest(info.root.as_ref().unwrap()).unwrap()
}

/// A farm with a snapshot `base` of alice's, the instance it was taken of, and its directory.
async fn with_snapshot() -> (TestFarm, FakeLink, mote::SnapshotInfo, tempfile::TempDir) {
    let (farm, buildlet) = TestFarm::with_buildlet("").await;
    let (dir, tar) = archive("one");
    buildlet.change(|state| state.archive = tar);
    let row = farm.lease(1).await;
    let info = snapshots::create(&farm.app, &TestFarm::alice(), ask(&row.name, "base")).await.unwrap();
    (farm, buildlet, info, dir)
}

#[tokio::test]
async fn an_instance_made_from_a_snapshot_begins_with_its_tree() {
    let (farm, buildlet, info, dir) = with_snapshot().await;
    assert_eq!((info.name.as_str(), info.owner.as_str(), info.dir.as_str()), ("base", "alice", "go"));
    assert_eq!((info.files, info.bytes), (3, 3 + 12 + (2 << 20)));
    assert_eq!(snapshots::list(&farm.app, &TestFarm::alice()).await.unwrap(), std::slice::from_ref(&info));
    let wish = from(2, "base");
    let id = wish.id;
    farm.ask(&TestFarm::alice(), wish.clone()).await.unwrap();
    allocate::pass(&farm.app).await.unwrap();
    farm.reached(id, InstanceState::Ready).await;
    let synced = buildlet.state().synced;
    let [(of, sync)] = &synced[..] else { panic!("{synced:?}") };
    assert_eq!((*of, sync.dest.as_str()), (id, "go"));
    let work = tempfile::tempdir().unwrap();
    bring(&farm.app.cas, sync, work.path());
    assert_eq!(listing(&work.path().join("go")), listing(dir.path()));
    // A repeat finds it; the same id for something else does not.
    farm.ask(&TestFarm::alice(), wish).await.unwrap();
    let error = farm.ask(&TestFarm::alice(), TestFarm::wish(2)).await.unwrap_err();
    assert!(matches!(error, FarmError::Conflict(_)), "{error}");
}

#[tokio::test]
async fn a_name_is_taken_by_other_content_and_not_by_the_same() {
    let (farm, buildlet, info, _dir) = with_snapshot().await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let instance = "alice-fake-type-0";
    assert_eq!(snapshots::create(app, &alice, ask(instance, "base")).await.unwrap(), info);
    let (_other, tar) = archive("two");
    buildlet.change(|state| state.archive = tar);
    let error = snapshots::create(app, &alice, ask(instance, "base")).await.unwrap_err();
    assert!(matches!(error, FarmError::Conflict(_)), "{error}");
    for bad in ["", "-a", "a/b"] {
        let error = snapshots::create(app, &alice, ask(instance, bad)).await.unwrap_err();
        assert!(matches!(error, FarmError::Invalid(_)), "{error}");
    }
    // What was not kept is not pinned either.
    let kept = stored_tree(root_of(&info), &app.cas).unwrap();
    assert_eq!(app.cas.stats().pinned, kept.digests.len() as u64);
}

#[tokio::test]
async fn other_peoples_snapshots_and_none_answer_alike() {
    let (farm, _buildlet, _, _dir) = with_snapshot().await;
    let (app, bob) = (&farm.app, TestFarm::bob());
    assert!(snapshots::list(app, &bob).await.unwrap().is_empty());
    for name in ["base", "none"] {
        let expected = format!("there is no snapshot {name:?}");
        assert_eq!(snapshots::remove(app, &bob, name).await.unwrap_err().to_string(), expected);
        assert_eq!(farm.ask(&bob, from(9, name)).await.unwrap_err().to_string(), expected);
    }
    assert!(app.store.wait_queue().await.unwrap().ahead_of(from(9, "none").id).is_none());
    let error = snapshots::create(app, &bob, ask("alice-fake-type-0", "mine")).await.unwrap_err();
    assert!(matches!(error, FarmError::NotFound { what: "instance", .. }), "{error}");
}

#[tokio::test]
async fn content_is_pinned_as_long_as_it_is_needed_and_after_a_restart() {
    let (farm, buildlet, info, _dir) = with_snapshot().await;
    let kept = stored_tree(root_of(&info), &farm.app.cas).unwrap().digests.len() as u64;
    // Three directories that are not empty, three contents.
    assert_eq!(kept, 6);
    assert_eq!(farm.app.cas.stats().pinned, kept);
    let farm = farm.restart().await;
    assert_eq!(farm.app.cas.stats().pinned, kept);
    // What is still to be made from it keeps it, also when the snapshot itself is removed.
    let wish = from(2, "base");
    let id = wish.id;
    farm.ask(&TestFarm::alice(), wish).await.unwrap();
    snapshots::remove(&farm.app, &TestFarm::alice(), "base").await.unwrap();
    assert_eq!(farm.app.cas.stats().pinned, kept);
    let farm = farm.restart().await;
    assert_eq!(farm.app.cas.stats().pinned, kept);
    farm.connect(&buildlet, "b1").await;
    allocate::pass(&farm.app).await.unwrap();
    farm.reached(id, InstanceState::Ready).await;
    farm.app.tasks.close();
    while farm.app.cas.stats().pinned > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn removing_a_user_lets_go_of_their_snapshots() {
    let (farm, _buildlet, _, _dir) = with_snapshot().await;
    let alice = TestFarm::alice();
    farm.app.store.add_user(&alice.user, Role::User, farm.app.now()).await.unwrap();
    motefarm_coordinator::farm::admin::remove_user(&farm.app, &TestFarm::bob(), &alice.user).await.unwrap();
    assert!(snapshots::list(&farm.app, &alice).await.unwrap().is_empty());
    assert_eq!(farm.app.cas.stats().pinned, 0);
}

#[tokio::test]
async fn a_coordinator_that_dies_in_the_middle_brings_the_tree_after() {
    let (farm, buildlet, _, _dir) = with_snapshot().await;
    buildlet.change(|state| state.hold_sync = true);
    let wish = from(2, "base");
    let id = wish.id;
    farm.ask(&TestFarm::alice(), wish).await.unwrap();
    allocate::pass(&farm.app).await.unwrap();
    while buildlet.state().synced.is_empty() {
        tokio::task::yield_now().await;
    }
    farm.reached(id, InstanceState::Starting).await;
    let farm = farm.restart().await;
    buildlet.change(|state| state.hold_sync = false);
    farm.connect(&buildlet, "b1").await;
    farm.reached(id, InstanceState::Ready).await;
    let synced = buildlet.state().synced;
    assert!(synced.len() == 2 && synced.iter().all(|(of, _)| *of == id), "{synced:?}");
}

/// Waits for the last word of a request.
async fn last_word(farm: &TestFarm, wish: Wish) -> FarmError {
    let mut stream = create::create_from(&farm.app, &TestFarm::alice(), wish).await.unwrap();
    loop {
        match stream.next().await.unwrap() {
            Ok(event) => assert_ne!(event.instance.unwrap().state, "ready"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_tree_that_can_not_be_brought_ends_the_request_and_says_why() {
    let (farm, buildlet, info, _dir) = with_snapshot().await;
    buildlet.change(|state| state.refuse_sync = Some("no room on its disk".to_owned()));
    let wish = from(2, "base");
    farm.ask(&TestFarm::alice(), wish.clone()).await.unwrap();
    allocate::pass(&farm.app).await.unwrap();
    let error = last_word(&farm, wish.clone()).await;
    assert!(matches!(error, FarmError::Ended { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("snapshot base") && text.contains("no room on its disk"), "{text}");
    farm.sweep().await;
    let row = farm.reached(wish.id, InstanceState::Gone).await;
    assert_eq!(row.end_reason, Some(EndReason::SnapshotFailed));
    assert!(!buildlet.state().instances.contains_key(&wish.id));

    // Content that is gone is the snapshot's end too.
    buildlet.change(|state| {
        state.refuse_sync = None;
        state.lacks = vec![root_of(&info)];
    });
    let wish = from(3, "base");
    farm.ask(&TestFarm::alice(), wish.clone()).await.unwrap();
    allocate::pass(&farm.app).await.unwrap();
    let text = last_word(&farm, wish).await.to_string();
    assert!(text.contains("missing"), "{text}");
    let error = farm.ask(&TestFarm::alice(), from(4, "base")).await.unwrap_err();
    assert!(matches!(error, FarmError::NotReady(_)), "{error}");
    // Taken again, it is whole again.
    buildlet.change(|state| state.lacks.clear());
    snapshots::create(&farm.app, &TestFarm::alice(), ask("alice-fake-type-0", "base")).await.unwrap();
    farm.ask(&TestFarm::alice(), from(4, "base")).await.unwrap();
}

#[tokio::test]
async fn a_start_that_finds_content_missing_marks_the_snapshot() {
    let (farm, _buildlet, info, _dir) = with_snapshot().await;
    let row = farm.app.store.snapshots(&TestFarm::alice().user).await.unwrap().remove(0);
    assert!(!row.damaged && row.root == root_of(&info));
    // The large file is one of its own.
    let large = Digest::of(&vec![3; 2 << 20]);
    assert!(farm.app.cas.contains(&large));
    let hex = large.hash_hex();
    let path = farm.dir().join("cas/large").join(&hex[..2]).join(&hex);
    fs::remove_file(path).unwrap();
    let farm = farm.restart().await;
    assert!(farm.app.store.snapshots(&TestFarm::alice().user).await.unwrap()[0].damaged);
    let error = farm.ask(&TestFarm::alice(), from(2, "base")).await.unwrap_err();
    assert!(matches!(error, FarmError::NotReady(_)), "{error}");
}

#[tokio::test]
async fn what_is_pinned_outlives_eviction_and_goes_when_it_is_not() {
    let (farm, buildlet) = TestFarm::with_buildlet("[cas]\nmax_bytes = 8000000").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let (_dir, tar) = archive("one");
    buildlet.change(|state| state.archive = tar);
    let row = farm.lease(1).await;
    let info = snapshots::create(app, &alice, ask(&row.name, "base")).await.unwrap();
    let fill = |from: u8| {
        for n in from..from + 40 {
            let content = bytes::Bytes::from(vec![n; 500_000]);
            app.cas.put_batch(&[(Digest::of(&content), content)]).unwrap();
        }
    };
    fill(0);
    assert!(!app.cas.contains(&Digest::of(&vec![0; 500_000])), "nothing was evicted");
    assert_eq!(stored_tree(root_of(&info), &app.cas).unwrap().missing, []);
    snapshots::remove(app, &alice, "base").await.unwrap();
    fill(100);
    assert!(!stored_tree(root_of(&info), &app.cas).unwrap().missing.is_empty());
}

#[tokio::test]
async fn an_archive_that_is_none_or_too_large_makes_no_snapshot() {
    let (farm, buildlet) = TestFarm::with_buildlet("[cas]\nmax_bytes = 3000000").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let row = farm.lease(1).await;
    let (_dir, tar) = archive("x");
    buildlet.change(|state| state.archive = tar);
    // Snapshots may take half of the store.
    let large = snapshots::create(app, &alice, ask(&row.name, "s")).await.unwrap_err();
    assert!(matches!(large, FarmError::Exhausted(_)), "{large}");
    assert_eq!(app.cas.stats().pinned, 0);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5000);
    builder.append_data(&mut header, "small", &[1; 5000][..]).unwrap();
    buildlet.change(|state| state.archive = builder.into_inner().unwrap()[..3000].to_vec());
    let torn = snapshots::create(app, &alice, ask(&row.name, "torn")).await.unwrap_err();
    assert!(matches!(torn, FarmError::Unavailable(_)), "{torn}");
    destroy::destroy(app, &alice, &row.name).await.unwrap();
    farm.clock.advance(MINUTE);
    let ended = snapshots::create(app, &alice, ask(&row.id.to_string(), "s")).await.unwrap_err();
    assert!(matches!(ended, FarmError::Ended { .. }), "{ended}");
}
