//! Actions and trees that mean no good.

use super::*;
use motefarm_core::Digest as CoreDigest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{Directory, DirectoryNode, FileNode, Tree};
use prost::Message as _;
use std::collections::HashMap;

#[tokio::test]
async fn links_among_the_outputs_lead_nowhere() {
    on_both(async |client, buildlet| {
        let secret = buildlet.dir.path().join("secret");
        fs::create_dir_all(&secret).unwrap();
        fs::write(secret.join("key"), "secret").unwrap();
        let secret = secret.display();
        // As an output itself a link stays a link, wherever it points.
        let script =
            format!("ln -s {secret}/key direct; mkdir d; ln -s {secret} d/dir; ln -s ../../../../etc/passwd d/up");
        let came = run_job(client, &Job::sh(&script).outputs(&["direct", "d"])).await;
        assert_eq!(came.result().output_symlinks[0].target, format!("{secret}/key"));
        assert!(came.result().output_files.is_empty());
        let tree = Tree::decode(&came.blob(came.result().output_directories[0].tree_digest.as_ref())[..]).unwrap();
        assert_eq!(tree.root.unwrap().symlinks.len(), 2);
        assert!(tree.children.is_empty());
        // As the directory of one it is refused, and said.
        for script in
            [format!("rmdir o; ln -s {secret} o"), "mkdir real; rmdir o; ln -s real o; : > real/key".to_owned()]
        {
            let came = run_job(client, &Job::sh(&script).outputs(&["o/key"])).await;
            assert!(!came.failed().retry);
            assert!(came.failed().message.contains("o/key") && came.failed().message.contains("link"));
        }
        // Where a file is in the way, there is no output.
        let came = run_job(client, &Job::sh("rmdir o; : > o").outputs(&["o/key"])).await;
        assert!(came.result().output_files.is_empty());
        // An input's link is not followed either when directories for outputs are made.
        let job = Job::sh("true").link("o", &secret.to_string()).outputs(&["o/sub/key"]);
        let came = run_job(client, &job).await;
        assert_eq!(came.status().code(), Code::InvalidArgument, "{}", came.status());
    })
    .await;
}

#[tokio::test]
async fn special_files_are_named_and_outputs_are_bounded() {
    on_both(async |client, _| {
        let came = run_job(client, &Job::sh("mkfifo d/pipe").outputs(&["d/pipe"])).await;
        assert!(came.failed().message.contains("d/pipe") && came.failed().message.contains("a pipe"));
        let came = run_job(client, &Job::sh("mkfifo d/e/pipe").outputs(&["d", "d/e/x"])).await;
        assert!(came.failed().message.contains("d/e/pipe"), "{}", came.failed().message);
        let mut job = Job::sh("mkdir d; for n in 1 2 3 4 5; do echo $n > d/$n; done").outputs(&["d"]);
        job.start.max_output_files = 5;
        let came = run_job(client, &job).await;
        assert!(came.failed().message.contains("more than 5 files"), "{}", came.failed().message);
        job.start.max_output_files = 6;
        job.start.max_output_bytes = 9;
        let came = run_job(client, &job).await;
        assert!(came.failed().message.contains("more than 9 bytes"), "{}", came.failed().message);
        job.start.max_output_bytes = 10;
        assert_eq!(run_job(client, &job).await.result().exit_code, 0);
        // While it runs: one file, and stdout. A sparse file has its size before it has its blocks.
        let mut job = Job::sh("head -c 2000000 /dev/zero > f").outputs(&["f"]);
        job.start.max_output_bytes = 1_000_000;
        let came = run_job(client, &job).await;
        assert!(came.failed.is_some() || came.result().exit_code != 0);
        let mut job = Job::new(&["/usr/bin/yes"]);
        job.start.max_output_bytes = 1_000_000;
        let came = run_job(client, &job).await;
        assert!(came.failed().message.contains("stdout"), "{}", came.failed().message);
        // Too deep to walk.
        let script = "d=x; for n in $(seq 300); do mkdir $d && cd $d; done";
        let came = run_job(client, &Job::sh(script).outputs(&["x"])).await;
        assert!(came.failed().message.contains("deep"), "{}", came.failed().message);
    })
    .await;
}

#[tokio::test]
async fn modes_keep_nobody_from_an_output() {
    on_both(async |client, _| {
        let script = "mkdir d; echo 1 > d/f; echo 2 > g; chmod 000 d/f g; chmod 000 d";
        let came = run_job(client, &Job::sh(script).outputs(&["d", "g"])).await;
        assert_eq!(came.file("g"), ("2\n".into(), false));
        assert_eq!(came.result().output_directories.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_time() {
    // Without a sandbox its number is not bounded, and it would be this machine's.
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    let mark = format!("75319.{}", std::process::id());
    let script = format!("bomb() {{ sleep {mark} & bomb & bomb; }}; bomb");
    let came = run_job(&mut client, &Job::sh(&script).timeout_ms(400)).await;
    assert!(came.timed_out || came.result().exit_code != 0);
    assert_eq!(processes(&mark), [] as [i32; 0]);
    assert_eq!(run_job(&mut client, &Job::new(&["/bin/true"])).await.result().exit_code, 0);
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn a_hundred_thousand_outputs_come_back() {
    // In memory where there is some: this is not about a disk, on which removing them may take minutes.
    let memory = std::path::Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let buildlet = Buildlet::start_in(place.unwrap(), &[]).await;
    let mut client = buildlet.client().await;
    let script = "mkdir d; cd d; seq 100000 | split -l 1 -a 4 - x";
    let came = run_job(&mut client, &Job::sh(script).outputs(&["d"]).timeout_ms(120_000)).await;
    assert_eq!(came.result().exit_code, 0, "{}", came.stderr());
    assert_eq!(came.offered, 100_001);
    let tree = Tree::decode(&came.blob(came.result().output_directories[0].tree_digest.as_ref())[..]).unwrap();
    assert_eq!(tree.root.unwrap().files.len(), 100_000);
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn malformed_trees_are_refused_with_the_place() {
    let buildlet = Buildlet::start().await;
    let mut client = buildlet.client().await;
    let empty = Some(to_reapi_digest(CoreDigest::EMPTY));
    let file = |name: &str| FileNode { name: name.into(), digest: empty.clone(), ..Default::default() };
    let files =
        |names: &[&str]| Directory { files: names.iter().map(|name| file(name)).collect(), ..Default::default() };
    let mut below_bad = HashMap::new();
    let bad = files(&["fine", "../x"]).encode_to_vec();
    let bad_digest = CoreDigest::of(&bad);
    below_bad.insert(bad_digest, bad);
    let nested = Directory {
        directories: vec![DirectoryNode { name: "sub".into(), digest: Some(to_reapi_digest(bad_digest)) }],
        ..Default::default()
    };
    for (what, root) in [
        ("\"a/b\"", files(&["a/b"])),
        ("\"..\"", files(&[".."])),
        ("\"\"", files(&[""])),
        ("twice", files(&["x", "x"])),
        ("sub", nested),
        (
            "digest",
            Directory { files: vec![FileNode { name: "x".into(), ..Default::default() }], ..Default::default() },
        ),
    ] {
        let root = root.encode_to_vec();
        let digest = CoreDigest::of(&root);
        let mut blobs = below_bad.clone();
        blobs.insert(digest, root);
        let came = run_with(&mut client, Job::new(&["/bin/true"]).start_with(digest), &blobs).await;
        assert_eq!(came.status().code(), Code::InvalidArgument, "{what}");
        let message = came.status().message();
        assert!(message.contains("action.input_root_digest") && message.contains(what), "{what}: {message}");
    }
    // As deep as a tree may be, and beyond; small, but of a thousand million files.
    let mut blobs = HashMap::new();
    let mut below = CoreDigest::EMPTY;
    blobs.insert(below, Vec::new());
    for _ in 0..300 {
        let node = |name: &str| DirectoryNode { name: name.into(), digest: Some(to_reapi_digest(below)) };
        let bytes = Directory { directories: vec![node("d")], ..Default::default() }.encode_to_vec();
        below = CoreDigest::of(&bytes);
        blobs.insert(below, bytes);
    }
    upload(&mut client, blobs.clone()).await;
    let came = run_with(&mut client, Job::new(&["/bin/true"]).start_with(below), &blobs).await;
    assert_eq!(came.status().code(), Code::InvalidArgument);
    let mut wide = CoreDigest::EMPTY;
    for level in 0..30 {
        let node = |name: String| DirectoryNode { name, digest: Some(to_reapi_digest(wide)) };
        let directories = vec![node(format!("a{level}")), node(format!("b{level}"))];
        let bytes = Directory { directories, ..Default::default() }.encode_to_vec();
        wide = CoreDigest::of(&bytes);
        blobs.insert(wide, bytes);
    }
    upload(&mut client, blobs.clone()).await;
    let came = run_with(&mut client, Job::new(&["/bin/true"]).start_with(wide), &blobs).await;
    assert_eq!(came.status().code(), Code::InvalidArgument, "{}", came.status());
    // And actions that are none.
    let mut start = Job::new(&["/bin/true"]).finish().0;
    start.command = b"something else"[..].into();
    let came = run_with(&mut client, start, &blobs).await;
    assert_eq!(came.status().code(), Code::InvalidArgument);
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}
