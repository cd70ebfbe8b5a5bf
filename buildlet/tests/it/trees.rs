//! Blobs in, directories equal to trees.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use motefarm_proto::reapi;
use prost::Message as _;
use sha2::Digest as _;
use std::fs;
use tonic::Code;

fn digest(content: &[u8]) -> motefarm_core::Digest {
    motefarm_core::Digest::new(sha2::Sha256::digest(content).into(), content.len() as u64)
}

fn tree(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let file = |(name, content, is_executable): &(&str, &[u8], bool)| reapi::FileNode {
        name: (*name).into(),
        digest: Some(motefarm_proto::convert::to_reapi_digest(digest(content))),
        is_executable: *is_executable,
        ..Default::default()
    };
    reapi::Directory { files: files.iter().map(file).collect(), ..Default::default() }.encode_to_vec()
}

#[tokio::test]
async fn a_pushed_tree_becomes_a_directory() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let script = b"#!/bin/sh\ncat data\n";
    let root = tree(&[("data", b"content\n", false), ("run", script, true)]);
    let blobs: [&[u8]; 3] = [&root, b"content\n", script];
    let digests: Vec<Digest> = blobs.iter().map(|blob| digest(blob).into()).collect();
    let sync = BuildletSyncTreeRequest {
        instance_id: instance.clone(),
        sync: Some(TreeSync { dest: "src/app".into(), root: Some(digests[0].clone()), ..Default::default() }),
    };
    let first = client.sync_tree(sync.clone()).await.unwrap().into_inner();
    assert_eq!(first.missing, digests[..1], "the rest is not known before the root is there");
    let missing = client.find_missing(FindMissingRequest { digests: digests.clone() }).await.unwrap().into_inner();
    assert_eq!(missing.missing, digests);
    let wrong = BlobBatch { digests: digests[..1].to_vec(), data: vec![b'x'; root.len()].into(), ..Default::default() };
    let refused = client.upload_blobs(tokio_stream::once(wrong)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let batch = BlobBatch { digests: digests.clone(), data: blobs.concat().into(), ..Default::default() };
    let stored = client.upload_blobs(tokio_stream::once(batch)).await.unwrap().into_inner();
    assert_eq!(stored.stored, 3);
    let synced = client.sync_tree(sync.clone()).await.unwrap().into_inner();
    assert!(synced.missing.is_empty() && synced.files_written == 2, "{synced:?}");
    let ran = run(&mut client, &instance, &ExecSpec { program: "src/app/run".into(), ..Default::default() }).await;
    assert_eq!((ran.text().as_str(), ran.ending()), ("content\n", (Ending::Exited, 0)));
    fs::write(buildlet.instance_dir(&instance).join("work/src/app/stray"), "").unwrap();
    let again = client.sync_tree(sync.clone()).await.unwrap().into_inner();
    assert_eq!((again.files_written, again.entries_deleted), (0, 1));
    let outside = BuildletSyncTreeRequest {
        instance_id: instance.clone(),
        sync: Some(TreeSync { dest: "../x".into(), root: Some(digests[0].clone()), ..Default::default() }),
    };
    assert_eq!(client.sync_tree(outside).await.unwrap_err().code(), Code::InvalidArgument);
    // Content of the same size and time, put there behind the index's back, is seen by its change time.
    let data = buildlet.instance_dir(&instance).join("work/src/app/data");
    let modified = fs::metadata(&data).unwrap().modified().unwrap();
    let archive = {
        let mut header = tar::Header::new_gnu();
        header.set_size(8);
        header.set_mode(0o644);
        header.set_mtime(modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "data", &b"CONTENT\n"[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let tar = PutTarHeader { dir: "src/app".into() };
    let header = BuildletPutTarTarget { instance_id: instance.clone(), tar: Some(tar) };
    let put = BuildletPutTarRequest { header: Some(header), data: archive.into(), end: true };
    client.put_tar(tokio_stream::once(put)).await.unwrap();
    fs::File::open(&data).unwrap().set_modified(modified).unwrap();
    let healed = client.sync_tree(sync).await.unwrap().into_inner();
    assert_eq!((healed.files_written, fs::read(&data).unwrap()), (1, b"content\n".to_vec()));
    buildlet.finish().await;
}
