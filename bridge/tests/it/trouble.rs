//! A backend that is down, slow, forgetful or lying: what the client is told, and that nothing wrong is kept.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::blob::Blob;
use crate::goma_client::wire::{Fields, Message};
use crate::goma_client::{Client, Failure};
use crate::harness::{Bridge, Project, apart, lists_files, noise};
use motefarm_core::Digest;
use tonic::Code;

struct Bench {
    _dir: tempfile::TempDir,
    fake: FakeReapi,
    bridge: Bridge,
    project: Project,
}

impl Bench {
    async fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
        let bridge = Bridge::start(dir.path(), &fake, text).await;
        let project = Project::new(&[("a.c", b"int a;"), ("b.h", &noise(1, 3000))]);
        Self { _dir: dir, fake, bridge, project }
    }

    async fn compile(&self) -> Result<crate::goma_client::Compiled, Failure> {
        let (mut client, task) = (self.bridge.client(), self.project.task(&["a.c", "b.h"], &["a.o"]));
        apart(move || client.compile(&task)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_of_trouble_is_not_noticed() {
    let bench = Bench::new("").await;
    for kind in ["capabilities", "find_missing", "batch_update", "get_action_result", "execute", "batch_read"] {
        bench.fake.fail(kind, &[Code::Unavailable, Code::Unavailable]);
    }
    let compiled = bench.compile().await.unwrap();
    assert_eq!((compiled.attempts, compiled.exit_status), (1, 0));
}

/// Not one error of HTTP: the client would make all its other compiles of that second fail.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_stays_is_told_in_words_by_which_it_is_found() {
    let bench = Bench::new("").await;
    bench.fake.fail("execute", &[Code::PermissionDenied; 100]);
    let why = match bench.compile().await {
        Err(Failure::Exhausted(why)) => why[0].clone(),
        other => panic!("{other:?}"),
    };
    assert!(why.contains("execute: PermissionDenied: as the test wants it"), "{why}");
    let id = why.split(['[', ']']).nth(1).unwrap();
    let record = bench.bridge.edge.records.find(id).remove(0);
    assert_eq!((record.stage, record.code.as_deref(), record.attempt), (Some("execute"), Some("PermissionDenied"), 4));
    assert!(record.stages.iter().any(|(stage, _)| *stage == "ingest"));
    // Its content was taken all the same.
    bench.fake.state().failures.clear();
    let (mut client, task) = (bench.bridge.client(), bench.project.task(&["a.c", "b.h"], &["a.o"]));
    client.files_are_new = false;
    assert_eq!(apart(move || client.compile(&task).unwrap().attempts).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_taken_up_and_an_operation_that_is_gone_begun_again() {
    let bench = Bench::new("").await;
    bench.fake.state().breaks = 3;
    assert_eq!(bench.compile().await.unwrap().attempts, 1);
    assert_eq!((bench.fake.calls("execute"), bench.fake.calls("wait_execution")), (1, 3));
    assert_eq!(bench.fake.state().ran.len(), 1);

    let bench = Bench::new("").await;
    {
        let mut state = bench.fake.state();
        (state.breaks, state.forgets) = (1, true);
    }
    assert_eq!(bench.compile().await.unwrap().attempts, 1);
    assert_eq!((bench.fake.calls("execute"), bench.fake.calls("wait_execution")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_output_is_never_passed_on() {
    let bench = Bench::new("").await;
    let object = bench.compile().await.unwrap().output("a.o").to_vec();
    bench.fake.state().lies.insert(Digest::of(&object));
    // The cached result is of no use, and running it again makes the same object.
    match bench.compile().await {
        Err(Failure::Exhausted(why)) => assert!(why[0].contains("outputs: DataLoss"), "{why:?}"),
        other => panic!("{other:?}"),
    }
    bench.fake.state().lies.clear();
    assert_eq!(bench.compile().await.unwrap().output("a.o"), object);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_result_whose_object_is_gone_is_made_again() {
    let bench = Bench::new("").await;
    let object = bench.compile().await.unwrap().output("a.o").to_vec();
    bench.fake.state().blobs.remove(&Digest::of(&object));
    let again = bench.compile().await.unwrap();
    assert_eq!((again.attempts, again.cache_hit, again.output("a.o")), (1, 0, &object[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_that_takes_too_long_is_answered_in_time_and_goes_on() {
    let bench = Bench::new("limits.deadline = \"1s\"\n").await;
    bench.fake.open(false);
    let (mut client, task) = (bench.bridge.client(), bench.project.task(&["a.c", "b.h"], &["a.o"]));
    let waiting = tokio::task::spawn_blocking(move || client.compile(&task));
    while bench.bridge.edge.records.latest_failures(1).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.bridge.edge.records.latest_failures(1)[0].code.as_deref(), Some("DeadlineExceeded"));
    bench.fake.open(true);
    let compiled = waiting.await.unwrap().unwrap();
    assert!(compiled.attempts >= 2);
    assert_eq!(bench.fake.state().ran.len(), 1, "the first run went on, and its result was used");
}

/// Else whoever can reach the bridge could put any content under the key of somebody else's header.
#[tokio::test(flavor = "multi_thread")]
async fn content_is_never_known_by_a_key_that_is_not_its_own() {
    let bench = Bench::new("").await;
    let (good, evil) = (Blob::of_file(b"good").0, Blob::of_file(b"evil").0);
    let mut client = bench.bridge.client();
    let input = Message::default().bytes(11, "a.c").bytes(12, good.key()).bytes(13, evil.encode());
    let request = Message::default().bytes(1, b"").bytes(4, "/w").group(10, input);
    let (answer, found) = apart(move || {
        let answer = client.http.call("/e", &request.0).unwrap();
        (answer, client.look_up(&[good.key()]))
    })
    .await;
    assert!(Fields::read(&answer).unwrap().number(2) == Some(-1), "it names no toolchain");
    assert!(matches!(found, Err(Failure::Lost)));
    assert!(!bench.fake.state().blobs.contains_key(&Digest::of(b"good")));
    assert!(!bench.fake.state().blobs.contains_key(&Digest::of(b"evil")));
}

/// A server that believes whatever is written may have anything: what it gives is checked, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_came_back_damaged_is_not_answered() {
    let bench = Bench::new("").await;
    let chunk = Blob { kind: 3, offset: Some(0), content: Some(noise(3, 1000)), size: 1000, keys: vec![] };
    let key = chunk.key();
    let mut client = bench.bridge.client();
    let stored = apart(move || {
        let answer = client.http.call("/s", &Message::default().bytes(1, chunk.encode()).0).unwrap();
        Fields::read(&answer).unwrap().texts(1)
    })
    .await;
    assert_eq!(stored, std::slice::from_ref(&key));
    let look_up = |mut client: Client, key: String| apart(move || client.look_up(&[key]));
    assert!(look_up(bench.bridge.client(), key.clone()).await.is_ok());
    bench.fake.state().lies.insert(Digest::of(&noise(3, 1000)));
    assert!(look_up(bench.bridge.client(), key.clone()).await.is_err());
    bench.fake.state().blobs.clear();
    assert!(look_up(bench.bridge.client(), key).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_can_not_be_stored_has_an_empty_key_in_its_place() {
    let bench = Bench::new("").await;
    let good = Blob::of_file(b"good").0;
    let bad = Blob { size: 99, ..Blob::of_file(b"bad").0 };
    let orphan = Blob { kind: 2, offset: None, content: None, size: (2 << 20) + 1, keys: vec![good.key(), good.key()] };
    let request = Message::default().all(1, [&good, &bad, &orphan, &good].map(Blob::encode)).0;
    let mut client = bench.bridge.client();
    let answer = apart(move || client.http.call("/s", &request).unwrap()).await;
    let keys = Fields::read(&answer).unwrap().texts(1);
    assert_eq!(keys, [good.key(), String::new(), String::new(), good.key()]);
}
