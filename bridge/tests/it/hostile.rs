//! Requests that mean no good, and servers that are no use: each is answered as a client takes it best, in words
//! that say what to do, and nothing wrong is kept.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::blob::Blob;
use crate::goma_client::http::HttpError;
use crate::goma_client::wire::{Fields, Message};
use crate::goma_client::{Client, Compiled, Failure, Task};
use crate::harness::{Bridge, Project, apart, lists_files, noise};
use motefarm_bridge::backend::Backend;
use motefarm_net::dial::{Bearer, Target, lazy_channel};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

/// `error` of an `ExecResp`.
const BAD_REQUEST: i64 = -1;

async fn start(rules: Rules, text: &str) -> (tempfile::TempDir, FakeReapi, Bridge) {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(rules, lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, text).await;
    (dir, fake, bridge)
}

async fn compile(mut client: Client, task: &Task) -> Result<Compiled, Failure> {
    let task = task.clone();
    apart(move || client.compile(&task)).await
}

/// The reasons of a compile that was given up after all attempts.
fn reasons(failed: Result<Compiled, Failure>) -> String {
    match failed {
        Err(Failure::Exhausted(why)) => why.join("\n"),
        other => panic!("{other:?}"),
    }
}

/// Sends a whole `ExecReq` of these parts; its answer.
async fn exec(mut client: Client, cwd: &str, inputs: &[(&str, &Blob)], outputs: &[&str]) -> Fields {
    let tool = Message::default().bytes(1, "/t/cc").bytes(2, "00".repeat(32)).number(3, 1).number(4, 1);
    let mut request = Message::default().bytes(1, b"").all(2, ["cc", "-c", "a.c"]).bytes(4, cwd);
    for (name, blob) in inputs {
        request = request.group(10, Message::default().bytes(11, name).bytes(12, blob.key()).bytes(13, blob.encode()));
    }
    let requester = Message::default().bytes(3, "test").number(4, 2).bytes(10, "os:linux");
    let request = request.bytes(30, requester.0).all(35, outputs).number(37, 1).bytes(38, tool.0);
    apart(move || Fields::read(&client.http.call("/e", &request.0).unwrap()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_leaves_nothing_behind() {
    let (_dir, fake, bridge) = start(Rules::nativelink(), "").await;
    let head = "POST /cxx-compiler-service/e HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n";
    for half in [&head.as_bytes()[..30], head.as_bytes(), &[head.as_bytes(), &[7; 100_000]].concat()] {
        let mut stream = TcpStream::connect(bridge.address).await.unwrap();
        stream.write_all(half).await.unwrap();
        // The last of them was begun to be read.
        while half.len() > head.len() && bridge.edge.packed.in_use() == 0 {
            tokio::task::yield_now().await;
        }
        drop(stream);
    }
    while bridge.edge.packed.in_use() + bridge.edge.unpacked.in_use() > 0 {
        tokio::task::yield_now().await;
    }
    let project = Project::new(&[("a.c", b"int a;")]);
    assert_eq!(compile(bridge.client(), &project.task(&["a.c"], &["a.o"])).await.unwrap().exit_status, 0);
    assert_eq!(fake.state().ran.len(), 1);
}

/// Small when it is sent, within the bound when it is unpacked, and gigabytes if it were decoded.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_would_grow_in_memory_are_refused() {
    let (_dir, fake, bridge) = start(Rules::nativelink(), "").await;
    for (path, field) in
        [("/e", &[0x53, 0x5a, 0, 0x62, 0, 0x54][..]), ("/e", &[0xb2, 2, 0]), ("/s", &[0x0a, 0]), ("/l", &[0x0a, 0])]
    {
        let (mut client, body) = (bridge.client(), field.repeat((40 << 20) / field.len()));
        let answer = apart(move || client.http.call(path, &body)).await;
        assert!(matches!(&answer, Err(HttpError::Status(400, said)) if said.contains("fields")), "{path}: {answer:?}");
    }
    assert_eq!((bridge.edge.packed.in_use(), bridge.edge.unpacked.in_use()), (0, 0));
    assert!(fake.state().calls.is_empty());
}

/// Whoever never sends what is asked for is told the same again and costs the server nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_brings_content_is_asked_for_it_every_time() {
    let (_dir, fake, bridge) = start(Rules::buildbarn(), "").await;
    let mut request = Message::default().all(2, ["cc", "-c", "a.c"]).bytes(4, "/w");
    for n in 0..2000 {
        let key = Blob::of_file(format!("{n}").as_bytes()).0.key();
        request = request.group(10, Message::default().bytes(11, format!("h{n}.h")).bytes(12, key));
    }
    let tool = Message::default().bytes(1, "/t/cc").bytes(2, "00".repeat(32)).number(3, 1).number(4, 1);
    let requester = Message::default().bytes(3, "test").number(4, 2).bytes(10, "os:linux");
    let request = request.bytes(30, requester.0).all(35, ["a.o"]).number(37, 1).bytes(38, tool.0).0;
    let mut client = bridge.client();
    let lacking = apart(move || {
        let ask = |_| Fields::read(&client.http.call("/e", &request).unwrap()).unwrap();
        (0..20)
            .map(ask)
            .map(|answer| (answer.texts(11).len(), answer.texts(15).len(), answer.number(2)))
            .collect::<Vec<_>>()
    })
    .await;
    assert_eq!(lacking, vec![(2000, 2000, None); 20], "all of them, each with a reason, and no error");
    let state = fake.state();
    assert!(
        state.ran.is_empty() && state.written.is_empty() && state.calls.keys().all(|kind| *kind == "capabilities"),
        "{:?}",
        state.calls
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn places_outside_are_refused_once_by_their_names() {
    let (_dir, fake, bridge) = start(Rules::buildbarn(), "").await;
    let blob = Blob::of_file(b"int a;").0;
    let deep = "d/".repeat(1000) + "x.h";
    let long = "/w".to_owned() + &"/d".repeat(3000);
    for (cwd, input, output, expected) in [
        ("/w", "../../x.h", "a.o", "input \"../../x.h\" climbs above the root"),
        ("/w", "/../etc/passwd", "a.o", "input \"/../etc/passwd\" climbs above the root"),
        ("/w", deep.as_str(), "a.o", "too deep"),
        ("/w", "a\0b", "a.o", "NUL"),
        ("/w", "a.c", "../../a.o", "output \"../../a.o\" climbs above the root"),
        ("/w", "a.c", "/", "output \"/\" names no file"),
        ("w", "a.c", "a.o", "the working directory \"w\" is not absolute"),
        (long.as_str(), "a.c", "a.o", "too long"),
        // One place that is a file and a directory.
        ("/w", "/t/cc/x.h", "a.o", "the inputs contradict each other: t/cc is a file"),
    ] {
        let answer = exec(bridge.client(), cwd, &[(input, &blob)], &[output]).await;
        let words = answer.texts(12).join("\n");
        assert_eq!(answer.number(2), Some(BAD_REQUEST), "{input} {output}: {words}");
        assert!(words.contains(expected), "{words}");
    }
    assert!(fake.state().ran.is_empty() && fake.state().results.is_empty());

    // Where the worker has but one directory, an output may not lie beside it.
    let (_dir, fake, bridge) = start(Rules::buildbarn(), "[inputs]\nroot = \"common\"\n").await;
    let answer = exec(bridge.client(), "/w", &[("a.c", &blob)], &["/elsewhere/a.o"]).await;
    assert_eq!(answer.number(2), Some(BAD_REQUEST), "{:?}", answer.texts(12));
    assert!(fake.state().ran.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_named_and_used_again_once_it_is_up() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (dir, project) = (tempfile::tempdir().unwrap(), Project::new(&[("a.c", b"int a;")]));
    let channel = lazy_channel(Target::Clear(port.to_string())).unwrap();
    let bridge = Bridge::start_on(dir.path(), Backend::new(channel, Bearer::none(), ""), vec![], "").await;
    let mut client = bridge.client();
    let ping = apart(move || client.ping().unwrap()).await;
    assert!(ping.starts_with("ok ") && ping.contains("backend=") && !ping.contains("backend=ok"), "{ping}");
    let task = project.task(&["a.c"], &["a.o"]);
    let why = reasons(compile(bridge.client(), &task).await);
    assert!(why.contains("Unavailable") && why.contains("refused"), "{why}");

    let fake = FakeReapi::start_on(TcpListener::bind(port).await.unwrap(), Rules::nativelink(), lists_files());
    assert_eq!(compile(bridge.client(), &task).await.unwrap().exit_status, 0);
    assert_eq!(fake.state().ran.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_is_told_as_that_and_its_lack_is_not_remembered_as_a_gain() {
    let (_dir, fake, bridge) = start(Rules::buildbarn(), "").await;
    fake.fail("batch_update", &[Code::ResourceExhausted; 1000]);
    fake.fail("write", &[Code::ResourceExhausted; 1000]);
    let project = Project::new(&[("a.c", b"int a;"), ("b.h", &noise(1, 3000))]);
    let task = project.task(&["a.c", "b.h"], &["a.o"]);
    let why = reasons(compile(bridge.client(), &task).await);
    assert!(why.contains("ingest: ResourceExhausted: as the test wants it"), "{why}");
    assert_eq!(bridge.edge.compiler.content().known(), 0, "what was not taken is not known");
    assert!(fake.state().ran.is_empty());
    fake.state().failures.clear();
    assert_eq!(compile(bridge.client(), &task).await.unwrap().exit_status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_api_is_told_by_its_version() {
    let (_dir, fake, bridge) = start(Rules { major: 3, versions: (0, 1), ..Rules::nativelink() }, "").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let why = reasons(compile(bridge.client(), &project.task(&["a.c"], &["a.o"])).await);
    assert!(why.contains("the server speaks REAPI 3.0 to 3.1, and this bridge 2"), "{why}");
    assert!(fake.state().ran.is_empty());
}

/// Stdout and stderr are content like others.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_words_of_a_compiler_are_not_passed_on() {
    let (_dir, fake, bridge) = start(Rules::buildbarn(), "").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let task = project.task(&["a.c"], &["a.o"]);
    fake.state().lies.insert(motefarm_core::Digest::of(b"a warning"));
    let why = reasons(compile(bridge.client(), &task).await);
    assert!(why.contains("outputs: DataLoss"), "{why}");
    fake.state().lies.clear();
    assert_eq!(compile(bridge.client(), &task).await.unwrap().complaints(), "a warning");
}
