//! The Goma client of these suites does what the real one does, as far as a server can see it.

mod server;

use motefarm_tests::goma_client::blob::{Blob, CHUNK};
use motefarm_tests::goma_client::health::Health;
use motefarm_tests::goma_client::http::HttpError;
use motefarm_tests::goma_client::inputs::ToolSpec;
use motefarm_tests::goma_client::wire::Message;
use motefarm_tests::goma_client::{Client, Failure, Task};
use server::{Server, done, last, ok, raw, status};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files to compile, removed with this.
struct Tree(PathBuf);

impl Tree {
    fn new(files: &[(&str, usize)]) -> Self {
        let dir = std::env::temp_dir().join(format!("mote-goma-{:016x}", rand::random::<u64>()));
        let tree = Self(dir);
        fs::create_dir(&tree.0).expect("a directory");
        files.iter().for_each(|(name, size)| tree.write(name, *size, *size as u8));
        tree
    }

    fn write(&self, name: &str, size: usize, seed: u8) {
        let content: Vec<u8> = (0..size).map(|n| (n / 7) as u8 ^ seed).collect();
        fs::write(self.0.join(name), content).expect("a file");
    }

    /// Makes it look as though it was written long ago.
    fn age(&self, name: &str) {
        let file = File::options().write(true).open(self.0.join(name)).expect("it is there");
        let now = file.metadata().and_then(|meta| meta.modified()).expect("it has a time");
        file.set_modified(now - Duration::from_secs(310)).expect("it is ours");
    }

    fn task(&self, inputs: &[&str]) -> Task {
        let tool = ToolSpec { path: "cc".to_owned(), kind: Err(("ab".repeat(32), 7, true)) };
        Task {
            cwd: self.0.clone(),
            args: ["cc", "-c", "a.c"].map(str::to_owned).to_vec(),
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            toolchain: vec![tool],
            ..Task::default()
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn result(fields: Message) -> Message {
    Message::default().bytes(1, Message(fields.number(1, 0).0).0)
}

fn output(name: &str, blob: &Blob, executable: bool) -> Message {
    let output = Message::default().bytes(11, name).bytes(12, blob.encode()).number(13, i64::from(executable));
    Message::default().group(10, output)
}

fn missing(names: &[&str]) -> Message {
    Message::default().all(11, names)
}

fn compile(server: &Server, task: &Task) -> Result<i64, Failure> {
    Client::new(&server.address).compile(task).map(|compiled| compiled.attempts)
}

#[test]
fn content_goes_along_when_it_is_new_tiny_changed_or_arguments() {
    let tree = Tree::new(&[("tiny.h", 511), ("old.h", 512), ("new.h", 512), ("list.rsp", 2000)]);
    ["tiny.h", "old.h", "list.rsp"].iter().for_each(|name| tree.age(name));
    let task = tree.task(&["new.h", "old.h", "tiny.h", "list.rsp"]);
    let server = Server::compiling(|_, _| ok(done()));
    let mut client = Client::new(&server.address);
    let mut brought = || {
        client.compile(&task).expect("it is answered");
        server.asked("/e").pop().expect("it was asked").brought()
    };
    assert_eq!(brought(), ["list.rsp", "new.h", "tiny.h"]);
    assert_eq!(brought(), Vec::<String>::new(), "what was looked at is known by path, time and size");
    tree.write("old.h", 600, 1);
    tree.age("old.h");
    assert_eq!(brought(), ["old.h"]);
    let mut other = Client::new(&server.address);
    other.files_are_new = false;
    other.compile(&task).expect("it is answered");
    assert_eq!(server.asked("/e").pop().expect("it was asked").brought(), ["list.rsp", "tiny.h"]);
}

#[test]
fn a_request_brings_a_mebibyte_and_what_is_left_out_comes_when_it_is_missed() {
    const SIZE: usize = 100_000;
    let names: Vec<String> = (0..30).map(|n| format!("h{n:02}.h")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tree = Tree::new(&names.iter().zip(1..).map(|(name, n)| (*name, SIZE + n)).collect::<Vec<_>>());
    let late: Vec<String> = names[..3].iter().map(|name| (*name).to_owned()).collect();
    let server = Server::compiling(move |n, _| match n {
        0 => ok(Message::default().all(11, &late).bytes(12, "not looked at beside missing inputs")),
        _ => ok(done()),
    });
    assert_eq!(compile(&server, &tree.task(&names)), Ok(2));
    let asked = server.asked("/e");
    let first = asked[0].brought().len() * SIZE;
    assert!((1 << 20..(1 << 20) + 2 * SIZE).contains(&first), "{first}");
    assert!(asked.iter().all(|request| request.inputs().is_sorted()), "by name");
    assert_eq!(asked[1].brought(), names[..3]);
}

#[test]
fn everything_goes_along_once_more_than_half_is_missing() {
    let names = ["a.h", "b.h", "c.h", "d.h"];
    let tree = Tree::new(&names.map(|name| (name, 1000)));
    names.iter().for_each(|name| tree.age(name));
    for (lacking, expected) in [(&names[..2], 2), (&names[..3], 4)] {
        let lacks: Vec<String> = lacking.iter().map(|name| (*name).to_owned()).collect();
        let server =
            Server::compiling(move |n, _| if n == 0 { ok(Message::default().all(11, &lacks)) } else { ok(done()) });
        let mut client = Client::new(&server.address);
        client.compile(&tree.task(&names)).expect("it is answered");
        client.compile(&tree.task(&names)).expect("it is answered");
        let brought: Vec<usize> = server.asked("/e").iter().map(|request| request.brought().len()).collect();
        assert_eq!(brought, [0, expected, 0], "until a request succeeds");
    }
}

#[test]
fn there_are_five_attempts_whatever_they_are_for() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let message = || Message::default().bytes(12, "for your information");
    for (answer, expected) in [
        (missing(&["a.c"]), 5),
        (Message([done().0, message().0].concat()), 5),
        (message().number(2, -1), 1),
        (done(), 1),
    ] {
        let server = Server::compiling(move |_, _| ok(answer.clone()));
        let outcome = compile(&server, &tree.task(&["a.c"]));
        let retries = server.asked("/e").into_iter();
        let retries: Vec<Option<i64>> = retries
            .map(|request| {
                request
                    .fields()
                    .bytes(30)
                    .and_then(|info| motefarm_tests::goma_client::wire::Fields::read(info).ok()?.number(7))
            })
            .collect();
        assert_eq!(retries, (0..expected).map(Some).collect::<Vec<_>>(), "{outcome:?}");
    }
}

#[test]
fn a_large_file_is_stored_in_chunks_and_named_by_a_list() {
    let tree = Tree::new(&[("large.a", 5 * CHUNK + 1)]);
    let content = fs::read(tree.0.join("large.a")).expect("it is there");
    let (list, chunks) = Blob::of_file(&content);
    let keys: Vec<String> = chunks.iter().map(Blob::key).collect();
    let mut stored = keys.chunks(5).map(<[String]>::to_vec).collect::<Vec<_>>().into_iter();
    let mut first = true;
    let server = Server::start(move |request| match request.path.as_str() {
        "/s" => ok(Message::default().all(1, stored.next().expect("two stores"))),
        _ if std::mem::take(&mut first) => ok(missing(&["large.a"])),
        _ => ok(done()),
    });
    assert_eq!(compile(&server, &tree.task(&["large.a"])), Ok(2));
    let stores: Vec<usize> = server.asked("/s").iter().map(|request| request.fields().all(1).len()).collect();
    assert_eq!(stores, [5, 1]);
    let asked = server.asked("/e");
    assert_eq!(asked[0].brought(), Vec::<String>::new());
    let fields = asked[1].fields();
    assert_eq!(fields.groups(10)[0].bytes(13), Some(&list.encode()[..]));
}

#[test]
fn a_large_output_is_looked_up_and_a_lost_one_is_made_again() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let content: Vec<u8> = (0..6 * CHUNK + 3).map(|n| (n / 100) as u8).collect();
    let (list, chunks) = Blob::of_file(&content);
    let lost = Blob::of_file(b"lost").0;
    let refers = Blob { kind: 5, offset: None, content: None, size: lost.size, keys: vec![lost.key()] };
    let mut count = 0;
    let server = Server::start(move |request| {
        if request.path == "/e" {
            count += 1;
            return ok(result(output("a.o", if count == 1 { &refers } else { &list }, false)));
        }
        let blob = |key: String| match chunks.iter().find(|chunk| chunk.key() == key) {
            Some(chunk) => chunk.encode(),
            None => Message::default().number(1, 0).0,
        };
        ok(Message::default().all(2, request.fields().texts(1).into_iter().map(blob)))
    });
    let compiled = Client::new(&server.address).compile(&tree.task(&["a.c"])).expect("the second time");
    assert!(compiled.output("a.o") == content && compiled.attempts == 2);
    let lookups: Vec<usize> = server.asked("/l").iter().map(|request| request.fields().all(1).len()).collect();
    assert_eq!(lookups, [1, 5, 2]);
    let policies: Vec<Option<i64>> = server.asked("/e").iter().map(|request| request.fields().number(31)).collect();
    assert_eq!(policies, [None, Some(3)], "STORE_ONLY");
}

#[test]
fn outputs_go_where_the_server_says_and_are_named_by_their_keys_afterwards() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let elsewhere = tree.0.join("else/where.o").display().to_string();
    let blob = Blob::of_file(b"made").0;
    let made = [output("sub/a.o", &blob, true), output(&elsewhere, &blob, false)].map(|message| message.0).concat();
    let server = Server::compiling(move |_, _| ok(result(Message(made.clone()))));
    let mut client = Client::new(&server.address);
    client.build(&tree.task(&["a.c"])).expect("it is answered");
    let mode = |path: &Path| fs::metadata(path).expect("it was written").permissions().mode() & 0o111;
    assert_eq!((mode(&tree.0.join("sub/a.o")) != 0, mode(Path::new(&elsewhere))), (true, 0));
    client.build(&tree.task(&["sub/a.o", &elsewhere])).expect("it is answered");
    let asked = server.asked("/e").pop().expect("it was asked");
    assert_eq!((asked.inputs().len(), asked.brought()), (2, vec![]));
    assert_eq!(asked.fields().groups(10)[1].texts(12), [blob.key()]);
}

#[test]
fn a_compiler_that_is_answered_must_be_the_one_that_was_asked_for() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let task = tree.task(&["a.c"]);
    let spec = |compiler: [String; 4]| {
        let spec = (1..).zip(compiler).fold(Message::default(), |spec, (n, field)| spec.bytes(n, field));
        result(Message::default().bytes(4, spec.0))
    };
    let same = spec(task.compiler());
    let server = Server::compiling(move |_, _| ok(same.clone()));
    assert_eq!(compile(&server, &task), Ok(1));
    let other = spec([task.compiler()[0].clone(), "11".into(), task.compiler()[2].clone(), task.compiler()[3].clone()]);
    let server = Server::compiling(move |_, _| ok(other.clone()));
    let mut client = Client::new(&server.address);
    assert!(matches!(client.compile(&task), Err(Failure::Mismatch(_))));
    assert_eq!(client.compile(&task).map(|_| ()), Err(Failure::CompilerDisabled));
    assert_eq!(server.asked("/e").len(), 1);
}

#[test]
fn a_place_that_does_not_matter_is_not_told() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let server = Server::compiling(|_, _| ok(done()));
    let cwd = tree.0.display().to_string();
    let mut task = Task { env: vec![format!("PWD={cwd}")], ..tree.task(&["a.c"]) };
    compile(&server, &task).expect("it is answered");
    task.args.extend(["-fdebug-compilation-dir", "."].map(str::to_owned));
    compile(&server, &task).expect("it is answered");
    let told: Vec<_> =
        server.asked("/e").iter().map(|r| [4, 5, 3].map(|field| r.fields().texts(field).concat())).collect();
    let normal = "/this/path/is/set/by/goma".to_owned();
    assert_eq!(told[0], [cwd.clone(), String::new(), format!("PWD={cwd}")]);
    assert_eq!(told[1], [normal.clone(), cwd, format!("PWD={normal}")]);
}

#[test]
fn requests_are_packed_only_while_the_server_says_so() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let bare = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", done().0.len());
    let bare = [bare.as_bytes(), &done().0].concat();
    let server = Server::compiling(move |n, _| match n {
        0 => raw(&bare),
        2 => status(400),
        _ => ok(done()),
    });
    let mut client = Client::new(&server.address);
    let task = tree.task(&["a.c"]);
    let outcomes: Vec<bool> = (0..3).map(|_| client.compile(&task).is_ok()).collect();
    assert_eq!(outcomes, [true, true, false], "400 is final");
    assert_eq!(client.http.packing(), None, "and switches packing off");
    let packed = server.asked("/e").into_iter();
    let packed: Vec<bool> =
        packed.map(|r| r.head.contains("\r\nContent-Encoding: gzip") && r.head.contains("\r\nAccept-Enc")).collect();
    assert_eq!(packed, [true, false, true]);
}

#[test]
fn a_lone_error_is_final_and_one_among_many_answers_is_not() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let task = tree.task(&["a.c"]);
    let lone = Server::compiling(|_, _| status(500));
    assert!(matches!(compile(&lone, &task), Err(Failure::Ill(_))));
    assert_eq!(lone.asked("/e").len(), 1);
    let cut = || last(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf");
    for (trouble, expected) in [(status as fn(u16) -> server::Reply, 2), (|_| last(b""), 1), (|_| status(429), 1)] {
        let server = Server::compiling(move |n, _| if n == 10 { trouble(503) } else { ok(done()) });
        let mut client = Client::new(&server.address);
        client.http.has_token_source = true;
        (0..10).for_each(|_| drop(client.compile(&task).expect("it is answered")));
        assert_eq!(client.compile(&task).is_ok(), expected == 2);
        assert_eq!(server.asked("/e").len(), 10 + expected);
    }
    let server = Server::compiling(move |n, _| if n == 10 { cut() } else { ok(done()) });
    let mut client = Client::new(&server.address);
    client.http.has_token_source = true;
    let last = (0..11).map(|_| client.compile(&task)).last().expect("eleven");
    assert_eq!(last.map(|compiled| compiled.attempts), Ok(2), "an end within an answer");
}

#[test]
fn who_was_sent_away_does_not_ask_again() {
    let tree = Tree::new(&[("a.c", 1000)]);
    for code in [302, 401, 403] {
        let server = Server::compiling(move |_, _| status(code));
        let mut client = Client::new(&server.address);
        let mut outcome = || client.compile(&tree.task(&["a.c"])).map(|_| ());
        assert_eq!(outcome(), Err(Failure::Http(HttpError::Status(code, "why".to_owned()))));
        assert_eq!(outcome(), Err(Failure::Http(HttpError::Disabled(code))));
        assert_eq!(server.asked("/e").len(), 1);
    }
}

#[test]
fn a_refused_connection_is_a_trap_without_a_source_of_tokens() {
    let tree = Tree::new(&[("a.c", 1000)]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let mut client = Client::new(&address);
    let refused = |client: &mut Client| client.compile(&tree.task(&["a.c"])).map(|_| ());
    assert_eq!(refused(&mut client), Err(Failure::Http(HttpError::Trapped)));
    client.http.ping_window = Duration::ZERO;
    assert!(matches!(client.ping(), Err(HttpError::Refused(_))));
    let mut patient = Client::new(&address);
    patient.http.has_token_source = true;
    assert!(matches!(refused(&mut patient), Err(Failure::Http(HttpError::Refused(_)))));
}

#[test]
fn the_rest_of_a_bad_second_is_a_trap_without_a_source_of_tokens() {
    let server = Server::start(|_| status(404));
    // A second may end between the two.
    let trapped = (0..5).any(|_| {
        let mut client = Client::new(&server.address);
        assert!(matches!(client.http.call("/e", b"x"), Err(HttpError::Status(404, _))));
        client.http.call("/e", b"x") == Err(HttpError::Trapped)
    });
    assert!(trapped);
}

#[test]
fn answers_are_read_as_narrowly_as_the_real_client_reads_them() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let until_the_end = b"HTTP/1.1 200 OK\r\n\r\nabcde";
    for (reply, expected) in [
        (raw(chunked), Ok(b"abcde".to_vec())),
        (last(until_the_end), Ok(b"abcde".to_vec())),
        (last(b"HTTP/1.1 204 No\r\n\r\n"), Ok(Vec::new())),
        (last(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Err(HttpError::Status(100, String::new()))),
        (last(b"HTTP/2 200\r\n\r\n"), Err(HttpError::Garbled("status line \"HTTP/2 200\"".to_owned()))),
        (last(b""), Err(HttpError::Silent("ended before an answer".to_owned()))),
    ] {
        let mut reply = Some(reply);
        let server = Server::start(move |_| reply.take().expect("one request"));
        assert_eq!(Client::new(&server.address).http.call("/e", b"x"), expected);
    }
}

#[test]
fn connections_are_used_again_while_they_are_fresh() {
    let server = Server::start(|request| match request.path.as_str() {
        "/sl" => raw(b"HTTP/1.1 200 OK\r\nAccept-Encoding: gzip\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        _ => ok(Message::default()),
    });
    let mut client = Client::new(&server.address);
    for (path, expected) in [("/e", 1), ("/l", 1), ("/sl", 1), ("/e", 2), ("/e", 2)] {
        client.http.call(path, b"x").expect("an answer");
        assert_eq!(client.http.connections(), expected, "{path}");
    }
    client.http.idle = Duration::ZERO;
    client.http.call("/e", b"x").expect("an answer");
    assert_eq!(client.http.connections(), 3, "older than five seconds, as it were");
}

#[test]
fn health_is_what_the_last_seconds_say() {
    let at = |millis: u64| Duration::from_millis(millis);
    let mut health = Health::default();
    (0..7).for_each(|_| health.good(at(1000)));
    (0..3).for_each(|_| health.bad(at(1100), Some(500), 0.5));
    assert!(health.is_well(at(1200)), "three of ten");
    health.bad(at(1300), None, 0.5);
    assert!(!health.is_well(at(1400)) && health.is_well(at(4500)), "four of eleven; nothing after three seconds");
    // The rest of that second is a trap.
    assert!(health.begin(at(1900)).is_some() && health.begin(at(2000)).is_none());
    assert!((0..700).all(|_| health.begin(at(5000)).is_none()) && health.begin(at(5999)).is_some(), "too many");
    (0..20).for_each(|_| health.bad(at(6000), None, 0.5));
    assert_eq!(health.back_off(), Duration::from_secs(5));
    // Sent away: for ten minutes at least, and then more and more is asked.
    health.bad(at(7000), Some(403), 0.0);
    assert_eq!((health.admit(at(606_000), 0.0), health.admit(at(608_000), 1.0)), (Err(403), Ok(())));
    health.good(at(608_000));
    assert_eq!((health.admit(at(908_000), 0.4), health.admit(at(908_000), 0.6)), (Ok(()), Err(403)));
    health.good(at(1_300_000));
    assert_eq!(health.admit(at(1_300_000), 1.0), Ok(()));
}
