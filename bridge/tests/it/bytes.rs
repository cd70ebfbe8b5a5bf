//! What is sent, counted: a cold build brings each content to the server once, and a cached one none.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::blob::Blob;
use crate::goma_client::wire::{Fields, Message};
use crate::harness::{Bridge, Project, apart, lists_files, noise};
use flate2::read::{DeflateDecoder, GzDecoder};
use motefarm_bridge::backend::Stage;
use motefarm_core::Digest;
use std::collections::HashMap;
use std::io::Read as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const UNITS: u64 = 8;
const HEADERS: u64 = 24;

/// Many clients at once, each with a source of its own and the same headers, which all of them send.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_build_sends_each_content_once() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let headers: Vec<(String, Vec<u8>)> = (0..HEADERS).map(|n| (format!("h{n}.h"), noise(n, 3000))).collect();
    let sources: Vec<(String, Vec<u8>)> = (0..UNITS).map(|n| (format!("u{n}.c"), noise(100 + n, 5000))).collect();
    let files: Vec<(&str, &[u8])> =
        headers.iter().chain(&sources).map(|(name, content)| (name.as_str(), &content[..])).collect();
    let project = Project::new(&files);
    let tasks: Vec<_> = sources
        .iter()
        .map(|(source, _)| {
            let inputs: Vec<&str> =
                std::iter::once(source).chain(headers.iter().map(|(name, _)| name)).map(String::as_str).collect();
            project.task(&inputs, &[&format!("{source}.o")])
        })
        .collect();
    let build = async || {
        let compiles: Vec<_> = tasks
            .iter()
            .map(|task| {
                let (mut client, task) = (bridge.client(), task.clone());
                tokio::task::spawn_blocking(move || client.compile(&task).unwrap().cache_hit)
            })
            .collect();
        let mut hits = 0;
        for compile in compiles {
            hits += i64::from(compile.await.unwrap() != 0);
        }
        hits
    };
    assert_eq!(build().await, 0);
    let tool = std::fs::read(project.cwd().join("../tools/cc")).unwrap();
    let contents: HashMap<Digest, usize> = files
        .iter()
        .map(|(_, content)| *content)
        .chain([&tool[..]])
        .map(|content| (Digest::of(content), content.len()))
        .collect();
    let sent = bridge.edge.compiler.content().backend().sent_bytes(Stage::Ingest);
    assert_eq!(sent, contents.values().sum::<usize>() as u64, "bytes of content");
    let messages = bridge.edge.compiler.content().backend().sent_bytes(Stage::Upload);
    {
        let state = fake.state();
        assert!(contents.keys().all(|digest| state.written.get(digest) == Some(&1)));
        let often: Vec<_> = state.written.iter().filter(|(_, times)| **times != 1).collect();
        assert!(often.is_empty(), "messages, too: {often:?}");
        let all: u64 = state.written.keys().map(|digest| digest.size_bytes()).sum();
        assert_eq!(all, sent + messages);
    }

    let asked = fake.calls("find_missing");
    assert_eq!(build().await, UNITS as i64);
    let backend = bridge.edge.compiler.content().backend();
    assert_eq!((backend.sent_bytes(Stage::Ingest), backend.sent_bytes(Stage::Upload)), (sent, messages));
    // Clients of their own bring their files again, which the server is asked about and not sent; for the
    // compile itself nothing is asked but the action cache.
    assert!(fake.calls("find_missing") <= asked + UNITS as usize);
}

/// Stored by itself and embedded, by one client after the other and by two at once: one content.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_sent_once_whichever_way_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let blob = Blob::of_file(&noise(1, 300_000)).0;
    let stores: Vec<_> = (0..6)
        .map(|_| {
            let (mut client, blob) = (bridge.client(), blob.clone());
            tokio::task::spawn_blocking(move || {
                let request = Message::default().all(1, [blob.encode(), blob.encode()]).0;
                let answer = client.http.call("/s", &request).unwrap();
                assert_eq!(Fields::read(&answer).unwrap().texts(1), [blob.key(), blob.key()]);
            })
        })
        .collect();
    for store in stores {
        store.await.unwrap();
    }
    let project = Project::new(&[("a.c", &noise(1, 300_000))]);
    let task = project.task(&["a.c"], &["a.o"]);
    let mut client = bridge.client();
    assert_eq!(apart(move || client.compile(&task).unwrap().exit_status).await, 0);
    assert_eq!(fake.state().written[&Digest::of(&noise(1, 300_000))], 1);
}

/// On the bridge's own machine packing costs time on both sides and saves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_packed_for_whoever_shows_a_token_and_not_for_the_own_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    motefarm_net::private_file::write(&path, b"alice s3cret\n").unwrap();
    let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
    let text = format!("[auth]\ntoken_file = {:?}\n", path.display().to_string());
    let bridge = Bridge::start(dir.path(), &fake, &text).await;
    let blob = Blob::of_file(b"content").0;
    let body = Message::default().bytes(1, blob.encode()).0;
    for (token, accepted, expected) in [
        ("", "gzip, deflate", None),
        ("Authorization: Bearer s3cret\r\n", "gzip, deflate", Some("gzip")),
        ("Authorization: Bearer s3cret\r\n", "deflate", Some("deflate")),
        ("Authorization: Bearer s3cret\r\n", "lzma2", None),
    ] {
        let mut stream = TcpStream::connect(bridge.address).await.unwrap();
        let head = format!(
            "POST /cxx-compiler-service/s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\
             Accept-Encoding: {accepted}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let (head, body) = (String::from_utf8_lossy(&answer[..end]).into_owned(), &answer[end + 4..]);
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("accept-encoding: gzip, deflate"), "{head}");
        assert_eq!(head.lines().find_map(|line| line.strip_prefix("content-encoding: ")), expected);
        let mut plain = Vec::new();
        match expected {
            Some("gzip") => GzDecoder::new(body).read_to_end(&mut plain).unwrap(),
            Some(_) => DeflateDecoder::new(body).read_to_end(&mut plain).unwrap(),
            None => {
                plain.extend_from_slice(body);
                body.len()
            }
        };
        assert_eq!(Fields::read(&plain).unwrap().texts(1), [blob.key()]);
    }
}
