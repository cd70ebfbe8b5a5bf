#![cfg(unix)]

use super::*;
use crate::tree::{self, EntryKind};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn take(root: &Path) -> Snapshot {
    snapshot(root, &SnapshotOptions::default(), &mut StatCache::default()).unwrap()
}

/// Paths in the tree; directories end in a slash, links tell their target.
fn paths(snapshot: &Snapshot) -> Vec<String> {
    fn walk(directories: &HashMap<Digest, Bytes>, digest: Digest, prefix: &str, all: &mut Vec<String>) {
        for entry in tree::decode(directories.get(&digest).unwrap_or(&Bytes::new())).unwrap().entries {
            let path = format!("{prefix}{}", String::from_utf8(entry.name).unwrap());
            match entry.kind {
                EntryKind::File { .. } => all.push(path),
                EntryKind::Symlink { target } => all.push(format!("{path} -> {}", String::from_utf8(target).unwrap())),
                EntryKind::Directory { digest } => {
                    all.push(format!("{path}/"));
                    walk(directories, digest, &format!("{path}/"), all);
                }
            }
        }
    }
    let mut all = Vec::new();
    walk(&snapshot.directories.iter().cloned().collect(), snapshot.root, "", &mut all);
    all
}

fn git(root: &Path, args: &[&str]) -> bool {
    let run = Command::new("git").arg("-C").arg(root).args(args).output();
    run.is_ok_and(|output| output.status.success())
}

#[test]
fn links_modes_and_empty_directories_are_kept_and_pipes_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "a/b.txt", "b");
    fs::create_dir(root.join("empty")).unwrap();
    symlink("a", root.join("link")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    let before = take(root);
    assert_eq!(paths(&before), ["a/", "a/b.txt", "empty/", "link -> a", "loop -> loop"]);
    assert!(before.warnings.len() == 1 && before.warnings[0].contains("pipe"), "{:?}", before.warnings);
    assert_eq!((before.total_files, before.total_bytes, before.hashed_files), (1, 1, 1));
    fs::set_permissions(root.join("a/b.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    let after = take(root);
    assert_ne!(after.root, before.root);
    assert_eq!(after.files, before.files);
}

#[test]
fn ignore_files_are_followed_with_or_without_git() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, ".gitignore", "*.o\nbuild/\n");
    write(root, "lib/.gitignore", "!keep.o\nlocal\n");
    for path in ["x.o", "x.c", "build/out", "lib/keep.o", "lib/y.o", "lib/local", "local", "sub/build/x"] {
        write(root, path, path);
    }
    let expected = [".gitignore", "lib/", "lib/.gitignore", "lib/keep.o", "local", "sub/", "x.c"];
    let snapshot = take(root);
    assert_eq!(paths(&snapshot), expected);
    let dirs: Vec<&str> =
        snapshot.ignore_files.iter().map(|(dir, _)| dir.as_str()).filter(|dir| !dir.is_empty()).collect();
    assert_eq!(dirs, ["lib"]);
    let all = SnapshotOptions { use_gitignore: false, ..SnapshotOptions::default() };
    assert_eq!(super::snapshot(root, &all, &mut StatCache::default()).unwrap().total_files, 10);
}

#[test]
fn what_git_tracks_is_included_although_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, ".gitignore", "*.o\nout/\n");
    for path in ["a.o", "b.o", "out/tracked/x", "out/tracked/y", "out/z"] {
        write(root, path, path);
    }
    if !git(root, &["init", "-q"]) {
        return; // No git here; the warning is tested below.
    }
    write(root, ".git/info/exclude", "excluded\n");
    write(root, "excluded", "");
    assert!(git(root, &["add", "-f", "a.o", "out/tracked/x", ".gitignore"]));
    let snapshot = take(root);
    assert_eq!(paths(&snapshot), [".gitignore", "a.o", "out/", "out/tracked/", "out/tracked/x"]);
    assert_eq!(snapshot.warnings, Vec::<String>::new());
    let options = SnapshotOptions { extra_skip: vec!["/a.o".into()], ..SnapshotOptions::default() };
    let skipped = super::snapshot(root, &options, &mut StatCache::default()).unwrap();
    assert_eq!(paths(&skipped), [".gitignore", "out/", "out/tracked/", "out/tracked/x"]);
    assert_eq!(skipped.ignore_files.last().unwrap().1, b"/a.o");
}

#[test]
fn an_index_that_can_not_be_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".git/HEAD", "rubbish");
    write(dir.path(), "a", "");
    let snapshot = take(dir.path());
    assert_eq!(paths(&snapshot), ["a"]);
    assert!(snapshot.warnings[0].contains("git"), "{:?}", snapshot.warnings);
}

#[test]
fn only_what_changed_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    for n in 0..50 {
        write(&root, &format!("d{}/f{n}", n % 5), &n.to_string());
    }
    std::thread::sleep(std::time::Duration::from_millis(40));
    let file = dir.path().join("cache");
    let mut cache = StatCache::default();
    let take = |cache: &mut StatCache| snapshot(&root, &SnapshotOptions::default(), cache).unwrap();
    let first = take(&mut cache);
    assert_eq!((first.hashed_files, first.files.len()), (50, 50));
    cache.save(&file).unwrap();
    let mut cache = StatCache::load(&file);
    let second = take(&mut cache);
    assert_eq!((second.hashed_files, second.root), (0, first.root));
    write(&root, "d1/f1", "x");
    fs::remove_file(root.join("d2/f2")).unwrap();
    let third = take(&mut cache);
    assert_eq!((third.hashed_files, third.total_files), (1, 49));
    assert_ne!(third.root, first.root);
    // Of the same size within a tick: hashed again, because it was too young to be remembered.
    for text in ["y", "z", "y", "z"] {
        write(&root, "d1/f1", text);
        let next = take(&mut cache);
        assert!(next.files.iter().any(|(digest, _)| *digest == Digest::of(text.as_bytes())));
    }
}

#[test]
fn files_that_come_and_go_disturb_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for n in 0..200 {
        write(root, &format!("{}/stays{n}", n % 7), "x");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                write(root, "3/comes/and", "goes");
                fs::remove_dir_all(root.join("3/comes")).unwrap();
            }
        });
        for _ in 0..50 {
            let taken = snapshot(root, &SnapshotOptions::default(), &mut StatCache::default());
            // A file seen half written may be "changing"; it must not be anything else.
            match taken {
                Ok(taken) => assert!((200..=201).contains(&taken.total_files)),
                Err(error) => assert!(matches!(error, SnapshotError::Changing(_)), "{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_go_tree_gets_a_version_and_leaves_products_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let options = SnapshotOptions { go_tree: true, ..SnapshotOptions::default() };
    let take = || super::snapshot(root, &options, &mut StatCache::default());
    write(root, "src/a.go", "package a");
    assert!(matches!(take(), Err(SnapshotError::Io { path, .. }) if path.ends_with("goversion.go")));
    write(root, "src/internal/goversion/goversion.go", "package goversion\n\nconst Version = 27\n");
    for path in ["bin/go", "pkg/x", "src/a.go~", "src/go/build/zcgo.go", "VERSION.cache", "src/pkg/y"] {
        write(root, path, "");
    }
    let snapshot = take().unwrap();
    let found = paths(&snapshot);
    assert_eq!(
        found.iter().filter(|path| !path.ends_with('/')).collect::<Vec<_>>(),
        ["VERSION", "src/a.go", "src/internal/goversion/goversion.go", "src/pkg/y",]
    );
    assert_eq!(snapshot.made_up[0].1, "go1.27-devel_gomote");
    assert!(["pkg", "bin", "VERSION.cache"].iter().all(|path| snapshot.keep.iter().any(|kept| kept == path)));
    write(root, "VERSION", "go1.99");
    assert!(take().unwrap().made_up.is_empty());
}

#[test]
fn blobs_name_every_content_once() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["a", "b", "c/d"] {
        write(dir.path(), path, "same");
    }
    write(dir.path(), "empty", "");
    let snapshot = take(dir.path());
    let digests: Vec<Digest> = snapshot.digests().collect();
    let contents: BTreeMap<Digest, ()> = digests.iter().map(|digest| (*digest, ())).collect();
    assert_eq!((digests.len(), contents.len()), (3, 3));
    let wanted = HashSet::from([Digest::of(b"same"), snapshot.root]);
    assert_eq!(snapshot.blobs(&wanted).len(), 2);
    assert!(!take(dir.path()).digests().any(|digest| digest == Digest::EMPTY));
}
