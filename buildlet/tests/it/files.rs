//! Files in and out of an instance, one by one and by the archive.

use crate::harness::*;
use motefarm_proto::mote::dir_entry::Kind;
use motefarm_proto::mote::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

fn put_header(instance: &str, path: &str, mode: u32) -> BuildletPutFileRequest {
    let file = PutFileHeader { path: path.into(), mode };
    let header = BuildletPutFileTarget { instance_id: instance.into(), file: Some(file) };
    BuildletPutFileRequest { header: Some(header), ..Default::default() }
}

fn put_data(data: &[u8]) -> BuildletPutFileRequest {
    BuildletPutFileRequest { data: data.to_vec().into(), ..Default::default() }
}

fn put_last() -> BuildletPutFileRequest {
    BuildletPutFileRequest { end: true, ..Default::default() }
}

async fn put(client: &mut Client, instance: &str, path: &str, content: &[u8]) -> Result<u64, Status> {
    let mut messages = vec![put_header(instance, path, 0o755)];
    messages.extend(content.chunks(100_000).map(put_data));
    messages.push(put_last());
    Ok(client.put_file(tokio_stream::iter(messages)).await?.into_inner().bytes_written)
}

async fn put_tar(client: &mut Client, instance: &str, dir: &str, archive: &[u8]) -> Result<PutTarResponse, Status> {
    let tar = PutTarHeader { dir: dir.into() };
    let header = BuildletPutTarTarget { instance_id: instance.into(), tar: Some(tar) };
    let mut messages = vec![BuildletPutTarRequest { header: Some(header), ..Default::default() }];
    let data = |data: &[u8]| BuildletPutTarRequest { data: data.to_vec().into(), ..Default::default() };
    messages.extend(archive.chunks(50_000).map(data));
    messages.push(BuildletPutTarRequest { end: true, ..Default::default() });
    Ok(client.put_tar(tokio_stream::iter(messages)).await?.into_inner())
}

async fn get(client: &mut Client, instance: &str, path: &str) -> Result<(u32, Vec<u8>), Status> {
    let request = BuildletGetFileRequest { instance_id: instance.into(), path: path.into() };
    let mut stream = client.get_file(request).await?.into_inner();
    let (mut mode, mut size, mut content) = (0, None, Vec::new());
    while let Some(chunk) = stream.message().await? {
        if size.is_none() {
            (mode, size) = (chunk.mode, Some(chunk.size_bytes));
        }
        assert!(chunk.data.len() <= 256 * 1024 && (!chunk.data.is_empty() || size == Some(0)));
        content.extend_from_slice(&chunk.data);
    }
    assert_eq!(size, Some(content.len() as u64));
    Ok((mode, content))
}

async fn ls(client: &mut Client, instance: &str, list: ListDirSpec) -> Result<Vec<DirEntry>, Status> {
    let request = BuildletListDirRequest { instance_id: instance.into(), list: Some(list) };
    let mut stream = client.list_dir(request).await?.into_inner();
    let mut entries = Vec::new();
    while let Some(page) = stream.message().await? {
        entries.extend(page.entries);
    }
    Ok(entries)
}

async fn rm(client: &mut Client, instance: &str, path: &str) -> Result<u64, Status> {
    let request = BuildletRemovePathsRequest { instance_id: instance.into(), paths: vec![path.into()] };
    Ok(client.remove_paths(request).await?.into_inner().removed)
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn what_is_put_can_be_run_listed_got_and_removed() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let script = b"#!/bin/sh\necho it runs\n";
    assert_eq!(put(&mut client, &instance, "bin/script", script).await.unwrap(), script.len() as u64);
    let ran = run(&mut client, &instance, &ExecSpec { program: "bin/script".into(), ..Default::default() }).await;
    assert_eq!(ran.text(), "it runs\n");
    let large: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    put(&mut client, &instance, "large", &large).await.unwrap();
    assert_eq!(get(&mut client, &instance, "large").await.unwrap(), (0o755, large));
    put(&mut client, &instance, "empty", b"").await.unwrap();
    assert_eq!(get(&mut client, &instance, "empty").await.unwrap(), (0o755, Vec::new()));
    let list = ListDirSpec { recursive: true, hash: 1, ..Default::default() };
    let listed = ls(&mut client, &instance, list).await.unwrap();
    let paths: Vec<&[u8]> = listed.iter().map(|entry| &entry.path[..]).collect();
    assert_eq!(paths, [&b"bin"[..], b"bin/script", b"empty", b"large"]);
    assert_eq!((listed[0].kind(), listed[1].size_bytes, listed[2].hash.len()), (Kind::Directory, 23, 20));
    assert_eq!(rm(&mut client, &instance, "bin").await.unwrap(), 2);
    assert_eq!(rm(&mut client, &instance, ".").await.unwrap(), 2);
    assert!(ls(&mut client, &instance, ListDirSpec::default()).await.unwrap().is_empty());
    let missing = [
        get(&mut client, &instance, "nothing").await.unwrap_err().code(),
        ls(&mut client, &instance, ListDirSpec { dir: "nothing".into(), ..Default::default() })
            .await
            .unwrap_err()
            .code(),
        rm(&mut client, &uuid::Uuid::new_v4().to_string(), "x").await.unwrap_err().code(),
    ];
    assert_eq!(missing, [Code::NotFound; 3]);
    buildlet.finish().await;
}

#[tokio::test]
async fn links_that_commands_made_lead_nowhere() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let outside = buildlet.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, buildlet.instance_dir(&instance).join("work/way")).unwrap();
    let refused = [
        put(&mut client, &instance, "way/secret", b"x").await.unwrap_err(),
        put_tar(&mut client, &instance, "way", &tar_of(&[("secret", b"x")])).await.unwrap_err(),
        put_tar(&mut client, &instance, "", &tar_of(&[("way/secret", b"x")])).await.unwrap_err(),
        get(&mut client, &instance, "way/secret").await.unwrap_err(),
        ls(&mut client, &instance, ListDirSpec { dir: "way/x".into(), ..Default::default() }).await.unwrap_err(),
        rm(&mut client, &instance, "way/secret").await.unwrap_err(),
        client
            .get_tar(BuildletGetTarRequest { instance_id: instance.clone(), dir: "way".into(), compression: 0 })
            .await
            .unwrap_err(),
        put(&mut client, &instance, "../secret", b"x").await.unwrap_err(),
    ];
    for status in &refused {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert!(refused[..7].iter().all(|status| status.message().contains("way")), "{refused:?}");
    assert_eq!(rm(&mut client, &instance, "way").await.unwrap(), 1);
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    buildlet.finish().await;
}

#[tokio::test]
async fn archives_go_in_as_they_come_out() {
    let mut buildlet = Buildlet::start_with(&["--unpack-limit-entries", "10"]).await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let noise: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let plain = tar_of(&[("src/run", b"#!/bin/sh\ncat src/data | wc -c\n"), ("src/data", &noise)]);
    let done = put_tar(&mut client, &instance, "app", &zstd::encode_all(&plain[..], 1).unwrap()).await.unwrap();
    assert_eq!((done.files_written, done.dirs_made), (2, 1));
    let spec = ExecSpec { program: "src/run".into(), dir: "app".into(), ..Default::default() };
    let ran = run(&mut client, &instance, &ExecSpec { program: "app/src/run".into(), ..spec }).await;
    assert_eq!(ran.text().trim(), "300000", "{:?}", ran.error);
    let request = BuildletGetTarRequest { instance_id: instance.clone(), dir: "app".into(), compression: 2 };
    let mut stream = client.get_tar(request).await.unwrap().into_inner();
    let mut packed = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        packed.extend_from_slice(&chunk.data);
    }
    put_tar(&mut client, &instance, "copy", &packed).await.unwrap();
    assert_eq!(get(&mut client, &instance, "copy/src/data").await.unwrap(), (0o755, noise));
    let evil = put_tar(&mut client, &instance, "", &tar_of(&[("fine", b"x"), ("fine", b"y")])).await.unwrap_err();
    assert!(evil.code() == Code::InvalidArgument && evil.message().contains("\"fine\""), "{evil}");
    assert_eq!(get(&mut client, &instance, "fine").await.unwrap().1, b"x");
    let names: Vec<String> = (0..11).map(|n| format!("n{n}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let bound = put_tar(&mut client, &instance, "", &tar_of(&many)).await.unwrap_err();
    assert_eq!(bound.code(), Code::ResourceExhausted, "{bound}");
    buildlet.finish().await;
}

#[tokio::test]
async fn a_put_that_is_dropped_or_cut_leaves_the_old_file_and_nothing_else() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    put(&mut client, &instance, "f", b"old").await.unwrap();
    let staging = buildlet.instance_dir(&instance).join("staging");
    let half_there = || fs::read_dir(&staging).unwrap().flatten().any(|e| e.metadata().is_ok_and(|m| m.len() > 0));
    let begin = |mut client: Client| {
        let (messages, receiver) = mpsc::channel(4);
        let put = tokio::spawn(async move { client.put_file(ReceiverStream::new(receiver)).await });
        (messages, put)
    };
    let (messages, put_task) = begin(client.clone());
    messages.send(put_header(&instance, "f", 0)).await.unwrap();
    messages.send(put_data(&[b'x'; 200_000])).await.unwrap();
    eventually("half of it is staged", half_there).await;
    put_task.abort();
    eventually("what was staged is gone", || fs::read_dir(&staging).unwrap().count() == 0).await;
    assert_eq!(get(&mut client, &instance, "f").await.unwrap().1, b"old");
    // The same with a buildlet that dies.
    let (messages, _put_task) = begin(client.clone());
    messages.send(put_header(&instance, "f", 0)).await.unwrap();
    messages.send(put_data(&[b'x'; 200_000])).await.unwrap();
    eventually("half of it is staged", half_there).await;
    buildlet.kill();
    buildlet.run().await;
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    let mut client = buildlet.client().await;
    assert_eq!(get(&mut client, &instance, "f").await.unwrap().1, b"old");
    // And with an instance that ends while somebody puts: it does not wait for him.
    let (messages, put_task) = begin(client.clone());
    messages.send(put_header(&instance, "f", 0)).await.unwrap();
    messages.send(put_data(b"x")).await.unwrap();
    eventually("it is staged", half_there).await;
    buildlet.end(&instance).await;
    let ended = tokio::time::timeout(PATIENCE, put_task).await.expect("the put hangs").unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition, "{ended}");
    drop(messages);
    buildlet.finish().await;
}

#[tokio::test]
async fn headers_are_checked() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let code = async |messages: Vec<BuildletPutFileRequest>| {
        client.clone().put_file(tokio_stream::iter(messages)).await.unwrap_err().code()
    };
    assert_eq!(code(vec![]).await, Code::InvalidArgument);
    let cut = vec![put_header(&instance, "f", 0), put_data(b"half")];
    assert_eq!(code(cut).await, Code::Cancelled, "an end without the last message is a cut");
    assert_eq!(code(vec![put_data(b"x")]).await, Code::InvalidArgument);
    assert_eq!(code(vec![put_header(&instance, "f", 0o1777), put_last()]).await, Code::InvalidArgument);
    assert_eq!(code(vec![put_header(&instance, "", 0), put_last()]).await, Code::InvalidArgument);
    let twice = vec![put_header(&instance, "f", 0), put_header(&instance, "g", 0)];
    assert_eq!(code(twice).await, Code::InvalidArgument);
    let large = vec![put_header(&instance, "f", 0), put_data(&[0; 256 * 1024 + 1]), put_last()];
    assert_eq!(code(large).await, Code::InvalidArgument);
    assert!(ls(&mut client, &instance, ListDirSpec::default()).await.unwrap().is_empty());
    let data = buildlet.instance_dir(&instance);
    assert_eq!(fs::metadata(data.join("staging")).unwrap().permissions().mode() & 0o777, 0o700);
    buildlet.finish().await;
}
