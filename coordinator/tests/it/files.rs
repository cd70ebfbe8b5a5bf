//! Content in and out: checked, passed on whole or not at all, and a use of the lease all the while.

use crate::farm::{MINUTE, TestFarm};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use motefarm_coordinator::farm::usage::Incoming;
use motefarm_coordinator::farm::{FarmError, files, renew};
use motefarm_coordinator::identity::Identity;
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_coordinator::store::InstanceRow;
use motefarm_core::Timestamp;
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

fn content(pieces: &[&'static [u8]]) -> Incoming {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
    stream::iter(pieces).boxed()
}

fn file(instance: &str, path: &str) -> mote::PutFileTarget {
    let file = mote::PutFileHeader { path: path.to_owned(), mode: 0o644 };
    mote::PutFileTarget { instance: instance.to_owned(), file: Some(file) }
}

async fn end_of_lease(farm: &TestFarm, row: &InstanceRow) -> Timestamp {
    farm.app.store.instance(row.id).await.unwrap().unwrap().lease.unwrap().expires_at
}

async fn leased() -> (TestFarm, FakeLink, InstanceRow) {
    let (farm, buildlet) = TestFarm::with_buildlet("").await;
    let row = farm.lease(1).await;
    (farm, buildlet, row)
}

#[tokio::test]
async fn what_is_put_can_be_got_listed_and_removed() {
    let (farm, buildlet, row) = leased().await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let put = files::put_file(app, &alice, file(&row.name, "d/f"), content(&[b"one ", b"two"])).await.unwrap();
    assert_eq!(put.bytes_written, 7);
    let tar = mote::PutTarHeader { dir: "d".to_owned() };
    let target = mote::PutTarTarget { instance: row.id.to_string(), tar: Some(tar) };
    files::put_tar(app, &alice, target, content(&[b"archive"])).await.unwrap();
    assert_eq!(buildlet.state().archives[&(row.id, "d".to_owned())], b"archive");
    let request = mote::GetFileRequest { instance: row.name.clone(), path: "d/f".to_owned() };
    let chunks: Vec<_> = files::get_file(app, &alice, request).await.unwrap().collect().await;
    let got: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().data).collect();
    assert_eq!(got, b"one two");
    let request = mote::ListDirRequest { instance: row.name.clone(), list: None };
    let listings: Vec<_> = files::list_dir(app, &alice, request).await.unwrap().collect().await;
    assert_eq!(listings[0].as_ref().unwrap().entries[0].path, "d/f");
    let request = mote::RemovePathsRequest { instance: row.name.clone(), paths: vec!["d/f".to_owned()] };
    assert_eq!(files::remove_paths(app, &alice, request).await.unwrap(), 1);
    assert!(buildlet.state().files.is_empty());
}

#[tokio::test]
async fn what_a_field_may_not_hold_is_refused_before_anything() {
    let (farm, buildlet, row) = leased().await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    for path in ["", ".", "../x", "/etc/passwd", "d/"] {
        let error = files::put_file(app, &alice, file(&row.name, path), content(&[b"x"])).await.unwrap_err();
        assert!(matches!(error, FarmError::Invalid(_)), "{path:?}: {error}");
    }
    let mut setuid = file(&row.name, "f");
    setuid.file.as_mut().unwrap().mode = 0o4755;
    assert!(matches!(files::put_file(app, &alice, setuid, content(&[])).await, Err(FarmError::Invalid(_))));
    for paths in [vec![], vec!["x".to_owned(); 10_001], vec!["../x".to_owned()]] {
        let request = mote::RemovePathsRequest { instance: row.name.clone(), paths };
        assert!(matches!(files::remove_paths(app, &alice, request).await, Err(FarmError::Invalid(_))));
    }
    for list in [
        mote::ListDirSpec { dir: "..".to_owned(), ..Default::default() },
        mote::ListDirSpec { skip: vec!["x".to_owned(); 1001], ..Default::default() },
        mote::ListDirSpec { skip: vec!["/".to_owned()], ..Default::default() },
    ] {
        let request = mote::ListDirRequest { instance: row.name.clone(), list: Some(list) };
        assert!(matches!(files::list_dir(app, &alice, request).await, Err(FarmError::Invalid(_))));
    }
    let target =
        mote::PutTarTarget { instance: row.name.clone(), tar: Some(mote::PutTarHeader { dir: "/tmp".to_owned() }) };
    assert!(matches!(files::put_tar(app, &alice, target, content(&[])).await, Err(FarmError::Invalid(_))));
    let state = buildlet.state();
    assert!(state.files.is_empty() && state.archives.is_empty());
}

#[tokio::test]
async fn another_users_instance_is_not_there() {
    let (farm, buildlet, row) = leased().await;
    let (app, bob) = (&farm.app, TestFarm::bob());
    let unknown = |error: FarmError| assert!(matches!(error, FarmError::NotFound { what: "instance", .. }), "{error}");
    let name = || row.name.clone();
    unknown(files::put_file(app, &bob, file(&row.name, "f"), content(&[])).await.unwrap_err());
    let target = mote::PutTarTarget { instance: name(), tar: None };
    unknown(files::put_tar(app, &bob, target, content(&[])).await.unwrap_err());
    let request = mote::GetFileRequest { instance: name(), path: "f".to_owned() };
    unknown(files::get_file(app, &bob, request).await.err().unwrap());
    unknown(files::list_dir(app, &bob, mote::ListDirRequest { instance: name(), list: None }).await.err().unwrap());
    let request = mote::GetTarRequest { instance: name(), ..Default::default() };
    unknown(files::get_tar(app, &bob, request).await.err().unwrap());
    let request = mote::RemovePathsRequest { instance: name(), paths: vec![".".to_owned()] };
    unknown(files::remove_paths(app, &bob, request).await.unwrap_err());
    unknown(renew::renew_by_name(app, &bob, &row.name).await.unwrap_err());
    assert!(buildlet.state().files.is_empty());
}

#[tokio::test]
async fn content_that_breaks_off_is_never_taken_for_whole() {
    let (farm, buildlet, row) = leased().await;
    let broken = stream::iter([Ok(Bytes::from_static(b"half")), Err(FarmError::TimedOut("silent".to_owned()))]);
    let error = files::put_file(&farm.app, &TestFarm::alice(), file(&row.name, "f"), broken.boxed()).await.unwrap_err();
    assert!(matches!(error, FarmError::TimedOut(_)), "{error}");
    assert!(buildlet.state().files.is_empty());
}

#[tokio::test]
async fn a_buildlet_lost_in_the_middle_ends_the_put() {
    let (farm, buildlet, row) = leased().await;
    let (pieces, incoming) = mpsc::channel(1);
    pieces.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
    let app = farm.app.clone();
    let target = file(&row.name, "f");
    let put = tokio::spawn(async move {
        files::put_file(&app, &TestFarm::alice(), target, ReceiverStream::new(incoming).boxed()).await
    });
    // Room for another: the first was taken.
    drop(pieces.reserve().await.unwrap());
    buildlet.connect(false);
    assert!(matches!(put.await.unwrap(), Err(FarmError::Unavailable(_))));
}

/// Feeds a put for as long as the test likes.
struct Slow {
    pieces: mpsc::Sender<Result<Bytes, FarmError>>,
    put: tokio::task::JoinHandle<Result<mote::PutFileResponse, FarmError>>,
}

impl Slow {
    fn begin(farm: &TestFarm, caller: Identity, row: &InstanceRow) -> Self {
        let (pieces, incoming) = mpsc::channel(1);
        let (app, target) = (farm.app.clone(), file(&row.name, "f"));
        let put =
            tokio::spawn(
                async move { files::put_file(&app, &caller, target, ReceiverStream::new(incoming).boxed()).await },
            );
        Self { pieces, put }
    }

    /// Sends a piece and waits until it was taken.
    async fn send(&self) {
        let _ = self.pieces.send(Ok(Bytes::from_static(b"piece"))).await;
        let _ = self.pieces.reserve().await;
    }
}

#[tokio::test]
async fn a_put_that_moves_keeps_the_lease() {
    let (farm, _buildlet, row) = leased().await;
    let slow = Slow::begin(&farm, TestFarm::alice(), &row);
    slow.send().await;
    for _ in 0..5 {
        farm.clock.advance(MINUTE * 20);
        slow.send().await;
        let end = farm.app.now() + MINUTE * 30;
        while end_of_lease(&farm, &row).await != end {
            tokio::task::yield_now().await;
        }
        farm.sweep().await;
    }
    drop(slow.pieces);
    slow.put.await.unwrap().unwrap();
    farm.reached(row.id, InstanceState::Ready).await;
}

#[tokio::test]
async fn a_put_that_stands_still_does_not_and_ends_with_it() {
    let (farm, buildlet, row) = leased().await;
    let slow = Slow::begin(&farm, TestFarm::alice(), &row);
    slow.send().await;
    farm.clock.advance(MINUTE * 31);
    farm.sweep().await;
    farm.reached(row.id, InstanceState::Gone).await;
    slow.send().await;
    let error = slow.put.await.unwrap().unwrap_err();
    assert!(matches!(error, FarmError::Ended { .. }), "{error}");
    assert!(buildlet.state().files.is_empty());
}

#[tokio::test]
async fn what_comes_out_renews_too_and_so_does_asking_for_it() {
    let (farm, buildlet, row) = leased().await;
    buildlet.change(|state| state.archive = vec![1; 5000]);
    let request = mote::GetTarRequest { instance: row.name.clone(), ..Default::default() };
    let mut chunks = files::get_tar(&farm.app, &TestFarm::alice(), request).await.unwrap();
    for _ in 0..5 {
        farm.clock.advance(MINUTE * 20);
        chunks.next().await.unwrap().unwrap();
        assert_eq!(end_of_lease(&farm, &row).await, farm.app.now() + MINUTE * 30);
    }
    assert!(chunks.next().await.is_none());
    farm.clock.advance(MINUTE * 10);
    let info = renew::renew_by_name(&farm.app, &TestFarm::alice(), &row.name).await.unwrap();
    assert_eq!(info.expires_at_ms, (farm.app.now() + MINUTE * 30).as_millis());
}
