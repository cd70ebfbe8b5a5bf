//! What is sent, counted: a cold build brings each content to the server once, and a cached one none.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::blob::Blob;
use crate::goma_client::wire::{Fields, Message};
use crate::harness::{Bridge, Project, apart, lists_files, noise};
use motefarm_bridge::backend::Stage;
use motefarm_core::Digest;
use std::collections::HashMap;

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
