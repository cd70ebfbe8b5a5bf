//! Compiles that succeed, and what they cost.

use crate::fake_reapi::worker::{Done, Job, Work};
use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::blob::Blob;
use crate::goma_client::{Client, Failure, Task};
use crate::harness::{Bridge, Project, apart, fails, leaves, lists_files, noise};
use motefarm_bridge::caller::Caller;
use motefarm_bridge::seed;
use motefarm_core::Digest;
use std::sync::Arc;

/// `cache_hit` of the wire.
const NO_CACHE: i64 = 0;
const MEM_CACHE: i64 = 1;

fn old_files(mut client: Client) -> Client {
    client.files_are_new = false;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_asked_for_once_and_what_is_known_not_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let headers: Vec<(String, Vec<u8>)> = (0..30).map(|n| (format!("h{n}.h"), noise(n, 2000))).collect();
    let files: Vec<(&str, &[u8])> = headers.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    let project = Project::new(&files);
    project.write("a.c", b"int a;");
    let names: Vec<&str> = std::iter::once("a.c").chain(headers.iter().map(|(name, _)| name.as_str())).collect();
    let task = project.task(&names, &["obj/a.o", "obj/a.d"]);

    let (mut client, cold) = (old_files(bridge.client()), task.clone());
    let (first, second) = apart(move || (client.compile(&cold).unwrap(), client.compile(&cold).unwrap())).await;
    assert_eq!((first.attempts, first.cache_hit, first.exit_status), (2, NO_CACHE, 0));
    assert_eq!((second.attempts, second.cache_hit), (1, MEM_CACHE));
    assert_eq!(first.outputs, second.outputs);
    assert_eq!(first.names(), ["obj/a.d", "obj/a.o"]);
    assert_eq!(first.complaints(), "a warning");
    let listing = String::from_utf8(first.output("obj/a.o").to_vec()).unwrap();
    assert!(listing.contains("[\"../tools/cc\", \"-c\", \"a.c\", \"-o\", \"obj/a.o\"]"), "{listing}");
    assert!(listing.contains(&format!("/src/h7.h false {}", Digest::of(&noise(7, 2000)))), "{listing}");
    assert!(listing.contains("/tools/cc true "), "{listing}");
    let state = fake.state();
    assert!(state.written.values().all(|times| *times == 1), "each content is sent once");
    assert_eq!(state.ran.len(), 1);
    assert_eq!(first.cache_key.len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_was_killed_knows_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
    let project = Project::new(&[("a.c", b"int a;"), ("big.h", &noise(1, 3000))]);
    let task = project.task(&["a.c", "big.h"], &["a.o"]);
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let (mut client, cold) = (bridge.client(), task.clone());
    assert_eq!(apart(move || client.compile(&cold).unwrap().attempts).await, 1, "new files go along");
    bridge.kill().await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let mut client = old_files(bridge.client());
    let again = apart(move || client.compile(&task).unwrap()).await;
    assert_eq!((again.attempts, again.cache_hit), (1, MEM_CACHE));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_server_lost_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a;"), ("big.h", &noise(1, 3000)), ("b.h", &noise(2, 3000))]);
    let task = project.task(&["a.c", "big.h", "b.h"], &["a.o"]);
    let (mut client, cold) = (bridge.client(), task.clone());
    let mut client = apart(move || {
        client.compile(&cold).unwrap();
        client
    })
    .await;
    // Forgotten before anybody looked, with its result, and then once more just before it is run.
    fake.state().blobs.remove(&Digest::of(&noise(1, 3000)));
    fake.state().results.clear();
    let again = task.clone();
    let (again, mut client) = apart(move || (client.compile(&again).unwrap(), client)).await;
    assert_eq!((again.attempts, again.cache_hit), (2, NO_CACHE));
    fake.state().loses.push(Digest::of(&noise(2, 3000)));
    fake.state().results.clear();
    let lost = apart(move || client.compile(&task).unwrap()).await;
    assert_eq!((lost.attempts, lost.cache_hit), (2, NO_CACHE));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_files_go_both_ways_in_chunks_and_come_back_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let long = noise(5, (5 << 20) + 3);
    let fake = FakeReapi::start(Rules::nativelink(), leaves(&[("a.o", long.clone())])).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let input = noise(6, (4 << 20) + 1);
    let project = Project::new(&[("a.c", b"int a;"), ("embedded.bin", &input)]);
    let task = project.task(&["a.c", "embedded.bin"], &["a.o"]);
    let mut client = bridge.client();
    let (compiled, mut client) = apart(move || (client.build(&task).unwrap(), client)).await;
    assert_eq!(compiled.output("a.o"), long);
    assert_eq!(compiled.attempts, 2);
    let ran = fake.state().ran[0].clone();
    assert!(ran.files.iter().any(|file| file.ends_with("src/embedded.bin")));
    assert!(fake.state().blobs.contains_key(&Digest::of(&input)), "as one blob");

    // The output is an input now, known by the key of its list alone.
    let next = project.task(&["a.c", "a.o"], &["a.o"]);
    let compiled = apart(move || client.compile(&next).unwrap()).await;
    assert_eq!(compiled.attempts, 1);
    assert!(fake.state().ran[1].files.iter().any(|file| file.ends_with("src/a.o")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_not_larger_than_it_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let outputs: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("o{n}"), noise(n, 300_000 + n as usize))).collect();
    let given: Vec<(&str, Vec<u8>)> = outputs.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
    let fake = FakeReapi::start(Rules::buildbarn(), leaves(&given)).await;
    let bridge = Bridge::start(dir.path(), &fake, "limits.response_bytes = 700000\n").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let names: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
    let task = project.task(&["a.c"], &names);
    let mut client = bridge.client();
    let (compiled, mut client) = apart(move || (client.build(&task).unwrap(), client)).await;
    assert_eq!(compiled.outputs.len(), 6);
    for (name, content) in &outputs {
        assert_eq!(compiled.output(name), content);
    }
    // What was only referred to is known by both of its keys.
    let content = &outputs[5].1;
    let file = Blob::of_file(content).0;
    let reference = Blob { kind: 5, offset: None, content: None, size: content.len() as i64, keys: vec![file.key()] };
    let found = apart(move || client.look_up(&[reference.key(), file.key()]).unwrap()).await;
    assert!(found.iter().all(|blob| blob.content.as_ref() == Some(content)));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_directories_come_as_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let work = Work::Function(Arc::new(|_: &Job| {
        let files = [("A.class".to_owned(), b"A".to_vec()), ("B.class".to_owned(), b"B".to_vec())];
        Done { directories: [("classes".to_owned(), files.into())].into(), ..Done::default() }
    }));
    let fake = FakeReapi::start(Rules::buildbarn(), work).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("A.java", b"class A {}")]);
    let mut task = project.task(&["A.java"], &["unused"]);
    task.args = vec!["javac".to_owned(), "A.java".to_owned()];
    task.outputs = vec![];
    task.output_dirs = vec!["classes".to_owned()];
    let mut client = bridge.client();
    let compiled = apart(move || client.compile(&task).unwrap()).await;
    assert_eq!(compiled.names(), ["classes/A.class", "classes/B.class"]);
}

/// The compiler's error is the result, and nobody's failure; nor is it kept where it must not be.
#[tokio::test(flavor = "multi_thread")]
async fn a_compile_error_is_a_result_that_policies_decide_about() {
    const LOOKUP_ONLY: i64 = 2;
    const STORE_ONLY: i64 = 3;
    const SUCCESS: i64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::old(), fails()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a")]);
    let task = project.task(&["a.c"], &["a.o"]);
    let mut client = bridge.client();
    let run = move |policy: Option<i64>, client: &mut Client| {
        let task = Task { cache_policy: policy, ..task.clone() };
        let compiled = client.compile(&task).unwrap();
        assert_eq!((compiled.exit_status, compiled.outputs.len()), (1, 0));
        (compiled.cache_hit, compiled.complaints())
    };
    let error = |n: usize| format!("a.c:1: error {n}");
    let seen = apart(move || {
        [Some(SUCCESS), Some(LOOKUP_ONLY), None, None, Some(STORE_ONLY), Some(LOOKUP_ONLY)]
            .map(|policy| run(policy, &mut client))
    })
    .await;
    assert_eq!(
        seen,
        [
            (NO_CACHE, error(0)),
            (NO_CACHE, error(1)),
            (NO_CACHE, error(2)),
            // This server keeps failures, as casd does.
            (MEM_CACHE, error(2)),
            (NO_CACHE, error(3)),
            (MEM_CACHE, error(3)),
        ]
    );
    let uncached: Vec<bool> = fake.state().ran.iter().map(|ran| ran.do_not_cache).collect();
    assert_eq!(uncached, [true, true, false, false]);
    let skipping: Vec<bool> = fake.state().ran.iter().map(|ran| ran.skip_cache_lookup).collect();
    assert_eq!(skipping, [false, false, false, true], "only where a cached result is not wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_under_the_policy_of_successes_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let mut task = project.task(&["a.c"], &["a.o"]);
    task.cache_policy = Some(4);
    let mut client = bridge.client();
    let hits = apart(move || [client.compile(&task), client.compile(&task)].map(|ran| ran.unwrap().cache_hit)).await;
    assert_eq!(hits, [NO_CACHE, MEM_CACHE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_compiles_at_once_run_once_and_send_once() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a;"), ("big.h", &noise(1, 200_000))]);
    let task = project.task(&["a.c", "big.h"], &["a.o"]);
    fake.open(false);
    let compiles: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, task) = (bridge.client(), task.clone());
            tokio::task::spawn_blocking(move || client.compile(&task).unwrap())
        })
        .collect();
    // From here on each of them waits for a run.
    let uploaded = "mote_bridge_stage_seconds_count{stage=\"upload\"} 8";
    while !bridge.edge.records.metrics().render(&[]).contains(uploaded) {
        tokio::task::yield_now().await;
    }
    fake.open(true);
    for compile in compiles {
        assert_eq!(compile.await.unwrap().exit_status, 0);
    }
    assert!(fake.state().written.values().all(|times| *times == 1));
    assert_eq!(fake.calls("execute"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_served_is_refused_once_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let good = project.task(&["a.c"], &["a.o"]);
    let mut without_toolchain = good.clone();
    without_toolchain.toolchain.clear();
    let mut for_windows = good.clone();
    for_windows.dimensions = vec!["os:win".to_owned()];
    let mut nothing_to_make = good.clone();
    nothing_to_make.outputs.clear();
    nothing_to_make.args = vec!["cc".to_owned()];
    for (task, expected) in [
        (without_toolchain, "GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true"),
        (for_windows, "os:win"),
        (nothing_to_make, "no output"),
    ] {
        let mut client = bridge.client();
        match apart(move || client.compile(&task)).await {
            Err(Failure::BadRequest(why)) => assert!(why[0].contains(expected), "{why:?}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let refused = bridge.edge.records.latest_failures(10);
    assert_eq!(refused.len(), 3);
    assert!(bridge.edge.records.find(&refused[0].id)[0].message.as_ref().unwrap().contains("no output"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeded_project_compiles_at_the_first_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[
        ("a.c", b"int a;"),
        ("deep/er/b.h", &noise(1, 3000)),
        ("two.bin", &noise(2, 2 << 20)),
        ("three.bin", &noise(3, (4 << 20) + 1)),
        ("four.bin", &noise(4, 4 << 20)),
        ("empty.h", b""),
    ]);
    let caller = Caller::connect(&bridge.address.to_string(), None).await.unwrap();
    let seeded = seed::seed(caller, project.dir.path()).await.unwrap();
    assert_eq!((seeded.files, seeded.left_out), (7, vec![]));
    let task = project.task(&["a.c", "deep/er/b.h", "two.bin", "three.bin", "four.bin", "empty.h"], &["a.o"]);
    let mut client = old_files(bridge.client());
    assert_eq!(apart(move || client.compile(&task).unwrap().attempts).await, 1);
}
