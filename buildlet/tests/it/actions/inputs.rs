//! Inputs: what is missing, what they look like, and that no action can touch another's.

use super::*;
use motefarm_core::Digest as CoreDigest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi;
use prost::Message as _;

#[tokio::test]
async fn what_is_missing_is_asked_for_level_by_level() {
    let buildlet = Buildlet::start().await;
    let mut client = buildlet.client().await;
    let job = Job::sh("cat a/b/deep top").file("a/b/deep", "deep\n").file("top", "top\n");
    let (start, blobs) = job.finish();
    let came = run_with(&mut client, start.clone(), &blobs).await;
    assert_eq!(came.stdout(), "deep\ntop\n");
    assert_eq!(came.missing.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1, 1]);
    assert!(run_with(&mut client, start, &blobs).await.missing.is_empty(), "now it is there");

    let (start, mut blobs) = Job::sh("true").file("gone", "nobody has this").finish();
    let gone = CoreDigest::of(b"nobody has this");
    blobs.remove(&gone);
    let came = run_with(&mut client, start, &blobs).await;
    assert_eq!(came.status().code(), Code::FailedPrecondition);
    assert!(came.status().message().contains(&gone.to_string()), "{}", came.status());
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn files_links_modes_and_the_working_directory_are_as_the_tree_says() {
    on_both(async |client, _| {
        let mut job = Job::sh(
            "pwd | grep -o 'sub/dir$'; cat ../../plain; ../../tool; readlink ../up; cat ../up/plain; \
             stat -c '%a %n' ../../plain ../../tool empty; ls empty | wc -l; readlink ../../broken",
        )
        .file("plain", "plain\n")
        .program("tool", "#!/bin/sh\necho tool $0\n")
        .link("sub/up", "..")
        .link("broken", "/no/where")
        .dir("sub/dir/empty");
        job.command.working_directory = "sub/dir".into();
        let came = run_job(client, &job).await;
        let expected =
            "sub/dir\nplain\ntool ../../tool\n..\nplain\n644 ../../plain\n755 ../../tool\n755 empty\n0\n/no/where\n";
        assert_eq!(came.stdout(), expected, "{}", came.stderr());
        let mut elsewhere = Job::sh("true").file("plain", "");
        elsewhere.command.working_directory = "plain".into();
        let came = run_job(client, &elsewhere).await;
        assert_eq!(came.status().code(), Code::InvalidArgument);
        assert!(came.status().message().contains("command.working_directory"), "{}", came.status());
        // A program is named relative to the working directory, as the specification has it.
        let mut job = Job::new(&["./tool"]).program("sub/tool", "#!/bin/sh\nexit 5\n");
        job.command.working_directory = "sub".into();
        assert_eq!(run_job(client, &job).await.result().exit_code, 5);
    })
    .await;
}

#[tokio::test]
async fn modes_of_node_properties_are_set() {
    let buildlet = Buildlet::start().await;
    let mut client = buildlet.client().await;
    let content = b"x".to_vec();
    let mode = |value| {
        Some(reapi::NodeProperties { unix_mode: Some(reapi::protobuf::UInt32Value { value }), ..Default::default() })
    };
    let below = reapi::Directory { node_properties: mode(0o555), ..Default::default() }.encode_to_vec();
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "f".into(),
            digest: Some(to_reapi_digest(CoreDigest::of(&content))),
            // Bits beyond the permissions are never taken over.
            node_properties: mode(0o4640),
            ..Default::default()
        }],
        directories: vec![reapi::DirectoryNode {
            name: "d".into(),
            digest: Some(to_reapi_digest(CoreDigest::of(&below))),
        }],
        ..Default::default()
    }
    .encode_to_vec();
    let job = Job::sh("stat -c '%a' f d");
    let start = job.start_with(CoreDigest::of(&root));
    let blobs = [content, below, root].into_iter().map(|blob| (CoreDigest::of(&blob), blob)).collect();
    assert_eq!(run_with(&mut client, start, &blobs).await.stdout(), "640\n555\n");
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn an_action_that_changes_its_inputs_changes_nobody_elses() {
    on_both(async |client, _| {
        let big = "b".repeat(3 << 20);
        let job =
            |script: &str| Job::sh(script).file("small", "small").file("big", &big).program("tool", "#!/bin/sh\n");
        let spoil =
            job("for f in small big tool; do chmod u+w $f; echo spoiled > $f; done; rm small; mv big elsewhere");
        assert_eq!(run_job(client, &spoil).await.result().exit_code, 0);
        let look = job("cat small; wc -c < big; cat tool");
        let came = run_job(client, &look).await;
        assert_eq!(came.stdout(), format!("small{}\n#!/bin/sh\n", big.len()));
        assert!(came.missing.is_empty(), "the store is as it was");
    })
    .await;
}

#[tokio::test]
async fn poisoned_content_is_thrown_out_and_asked_for_again() {
    let mut buildlet = Buildlet::start().await;
    let mut client = buildlet.client().await;
    let large = "L".repeat(2 << 20);
    let (start, blobs) =
        Job::sh("cat dir/a; wc -c < large").file("dir/a", "the right content\n").file("large", &large).finish();
    assert_eq!(run_with(&mut client, start.clone(), &blobs).await.missing.len(), 3);
    // On the disk and behind everybody's back.
    let spoil = |path: std::path::PathBuf, from: &[u8], to: &[u8]| {
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(&path, bytes).unwrap();
    };
    let store = buildlet.data().join("cas");
    let pack = || {
        fs::read_dir(store.join("packs"))
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .find(|p| p.extension().unwrap() == "pack")
    };
    spoil(pack().unwrap(), b"the right content", b"THE WRONG");
    let directory = CoreDigest::of(b"the right content\n").hash_hex();
    let hash = CoreDigest::of(large.as_bytes()).hash_hex();
    spoil(store.join("large").join(&hash[..2]).join(&hash), b"LLLL", b"MMMM");
    let came = run_with(&mut client, start.clone(), &blobs).await;
    assert_eq!(came.stdout(), format!("the right content\n{}\n", large.len()));
    assert_eq!(came.missing.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1], "each when it was met");
    // And a directory, which is read before anything else.
    spoil(pack().unwrap(), directory.as_bytes(), b"0000");
    let came = run_with(&mut client, start.clone(), &blobs).await;
    assert_eq!(came.missing.len(), 1);
    assert_eq!(came.result().exit_code, 0);
    assert!(run_with(&mut client, start, &blobs).await.missing.is_empty());
    nothing_is_left(&buildlet).await;
    buildlet.instances.clear();
    buildlet.finish().await;
}
