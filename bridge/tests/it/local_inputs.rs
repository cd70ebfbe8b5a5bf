//! Inputs that the bridge reads itself: for its own user, if they are what the client had, and else as ever.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::blob::Blob;
use crate::goma_client::http::Connection;
use crate::goma_client::{Client, Failure};
use crate::harness::{Bridge, Project, apart, lists_files, noise};
use motefarm_core::Digest;
use std::collections::HashMap;

struct Bench {
    _dir: tempfile::TempDir,
    fake: FakeReapi,
    bridge: Bridge,
}

impl Bench {
    async fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
        // The usual, which the harness turns off.
        let text =
            if text.contains("read_local") { text.to_owned() } else { format!("inputs.read_local = true\n{text}") };
        let bridge = Bridge::start(dir.path(), &fake, &text).await;
        Self { _dir: dir, fake, bridge }
    }

    /// A client whose files are old: it sends their keys, and content only of the smallest.
    fn client(&self) -> Client {
        let mut client = self.bridge.client();
        client.files_are_new = false;
        client
    }
}

/// Many headers, one of them behind a link and one of several chunks.
fn project() -> (Project, Vec<String>) {
    let project = Project::new(&[("a.c", b"int a;")]);
    let mut names = vec!["a.c".to_owned()];
    for n in 0..60 {
        let name = format!("include/{n}.h");
        project.write(&name, &noise(n, 4000 + n as usize));
        names.push(name);
    }
    project.write("big.h", &noise(1000, (5 << 20) + 3));
    std::os::unix::fs::symlink("include/1.h", project.cwd().join("link.h")).unwrap();
    names.extend(["big.h", "link.h", "include/../include/2.h"].map(str::to_owned));
    (project, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_compile_takes_one_request() {
    let bench = Bench::new("").await;
    let (project, names) = project();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let task = project.task(&names, &["a.o"]);
    let mut client = bench.client();
    let (compiled, sent) = apart({
        let task = task.clone();
        move || (client.compile(&task).unwrap(), client.http.sent())
    })
    .await;
    assert_eq!((compiled.attempts, compiled.exit_status), (1, 0));
    assert!(sent < 20_000, "{sent} bytes were sent for it");
    // Of all but the smallest, which came with the request, and of what is there twice once.
    let record = bench.bridge.edge.records.find("test@host:8088/1/1").remove(0);
    assert_eq!((record.local, record.missing), (61, 0));
    // The compiler saw what the client had, and all was written once.
    let object = String::from_utf8(compiled.output("a.o").to_vec()).unwrap();
    for name in ["big.h", "include/7.h"] {
        let digest = Digest::of(&std::fs::read(project.cwd().join(name)).unwrap());
        assert!(object.contains(&digest.to_string()), "{name} in {object}");
        assert_eq!(bench.fake.state().written.get(&digest), Some(&1), "{name}");
    }
    // The long file is known as the client would have stored it: whole, and by its chunks.
    let (meta, chunks) = Blob::of_file(&std::fs::read(project.cwd().join("big.h")).unwrap());
    let keys: Vec<String> = chunks.iter().map(Blob::key).collect();
    assert_eq!(meta.keys, keys);
    let mut client = bench.bridge.client();
    let found = apart(move || client.look_up(&keys).unwrap()).await;
    let found: Vec<u8> = found.into_iter().flat_map(|chunk| chunk.content.unwrap()).collect();
    assert!(found == noise(1000, (5 << 20) + 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cold_compiles_at_once_send_each_content_once() {
    let bench = Bench::new("").await;
    let (project, names) = project();
    let compiles: Vec<_> = (0..12)
        .map(|n| {
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            let source = format!("{n}.c");
            project.write(&source, source.as_bytes());
            names[0] = &source;
            let (mut client, task) = (bench.client(), project.task(&names, &["a.o"]));
            tokio::task::spawn_blocking(move || client.compile(&task).unwrap().attempts)
        })
        .collect();
    for compile in compiles {
        assert_eq!(compile.await.unwrap(), 1);
    }
    let written = bench.fake.state().written.clone();
    let twice: HashMap<_, _> = written.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_lost_is_brought_again() {
    let bench = Bench::new("").await;
    let (project, names) = project();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let task = project.task(&names, &["a.o"]);
    let mut client = bench.client();
    let first = apart({
        let task = task.clone();
        move || (client.compile(&task).unwrap(), client)
    });
    let (first, mut client) = first.await;
    {
        let mut state = bench.fake.state();
        state.blobs.clear();
        state.results.clear();
    }
    let again = apart(move || client.compile(&task).unwrap()).await;
    assert_eq!((again.attempts, again.cache_hit), (1, 0));
    assert_eq!(again.output("a.o"), first.output("a.o"));
}

/// The client hashed it, then it was changed, then the bridge reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_meanwhile_is_asked_for_and_never_stored_under_the_old_key() {
    for size in [3000, (3 << 20) + 1] {
        let (warm, cold) = (Bench::new("").await, Bench::new("").await);
        let project = Project::new(&[("a.c", b"int a;")]);
        // A client sends the key of what it was given, and does not read it again.
        project.write("seed.h", &noise(7, size));
        let make = project.task(&["a.c", "seed.h"], &["gen.h"]);
        let mut client = warm.client();
        let client = apart(move || {
            client.build(&make).unwrap();
            client
        });
        let mut client = client.await;
        let path = project.cwd().join("gen.h");
        let (old, made) = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().modified().unwrap());
        // Of the same size and time: the client sees no difference.
        let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
        project.write("gen.h", &new);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(made).unwrap();
        client.http = Connection::new(&cold.bridge.address.to_string());
        let task = project.task(&["a.c", "gen.h"], &["a.o"]);
        let compiled = apart(move || client.compile(&task).unwrap()).await;
        assert_eq!(compiled.attempts, 2);
        let object = String::from_utf8(compiled.output("a.o").to_vec()).unwrap();
        assert!(object.contains(&Digest::of(&new).to_string()), "{object}");
        let mut other = cold.bridge.client();
        let key = Blob::of_file(&old).0.key();
        let found = apart(move || other.look_up(&[key])).await;
        assert_eq!(found, Err(Failure::Lost));
        assert!(!cold.fake.state().blobs.contains_key(&Digest::of(&old)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_bridge_s_own_user_s_files_are_read() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("tokens");
    motefarm_net::private_file::write(&path, b"alice s3cret\n").unwrap();
    let with_tokens = format!("[auth]\ntoken_file = {:?}\n", path.display().to_string());
    let (project, names) = project();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (text, token, expected) in [
        ("", None, 1),
        (&with_tokens[..], None, 1),
        // Whoever is known by a token may be elsewhere, behind something of this user's.
        (&with_tokens, Some("Bearer s3cret"), 2),
        ("auth.anonymous = \"anyone\"\n", None, 2),
        ("inputs.read_local = false\n", None, 2),
    ] {
        let bench = Bench::new(text).await;
        let (mut client, task) = (bench.client(), project.task(&names, &["a.o"]));
        client.http.authorization = token.map(str::to_owned);
        let attempts = apart(move || client.compile(&task).unwrap().attempts).await;
        assert_eq!(attempts.min(2), expected, "{text} {token:?}");
    }
}
