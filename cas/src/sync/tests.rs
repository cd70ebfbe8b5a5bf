//! A local tree is pushed as a client does it: snapshot, blobs into a store, sync.

use super::*;
use crate::batch::Content;
use crate::snapshot::{SnapshotOptions, StatCache, snapshot};
use crate::store::{Store, StoreLimits};
use crate::tree::{self, Entry, EntryKind};
use bytes::Bytes;
use motefarm_core::Digest;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    options: SnapshotOptions,
    keep: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["local", "work", "outside"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let store = Store::open(&dir.path().join("cas"), StoreLimits::default()).unwrap();
        Self { dir, store, options: SnapshotOptions::default(), keep: Vec::new() }
    }

    fn local(&self, path: &str) -> PathBuf {
        self.dir.path().join("local").join(path)
    }

    fn remote(&self, path: &str) -> PathBuf {
        self.dir.path().join("work/go").join(path)
    }

    fn plan(&self) -> SyncPlan {
        let snapshot = snapshot(&self.local(""), &self.options, &mut StatCache::default()).unwrap();
        for blob in snapshot.blobs(&snapshot.digests().collect::<HashSet<_>>()) {
            let content = match blob.content {
                Content::Bytes(bytes) => bytes,
                Content::File(path) => Bytes::from(fs::read(path).unwrap()),
                Content::Stored(_) => unreachable!(),
            };
            self.store.put_batch(&[(blob.digest, content)]).unwrap();
        }
        let keep = self.keep.iter().cloned().chain(snapshot.keep).collect();
        SyncPlan { root: snapshot.root, ignore_files: snapshot.ignore_files, keep, dry_run: false }
    }

    fn sync(&self, plan: &SyncPlan) -> Result<TreeSyncResult, SyncError> {
        let work = fs::File::open(self.dir.path().join("work")).unwrap();
        let dest = WorkPath::parse("go").unwrap();
        sync_tree(work.as_fd(), &dest, plan, &self.store, &self.dir.path().join("index"))
    }

    /// Pushes and checks that nothing is left to do.
    fn push(&self) -> TreeSyncResult {
        let plan = self.plan();
        let would = self.sync(&SyncPlan { dry_run: true, ..plan.clone() }).unwrap();
        let did = self.sync(&plan).unwrap();
        assert_eq!((would.files_written, would.bytes_written), (did.files_written, did.bytes_written));
        assert_eq!((would.missing.as_slice(), would.compared), (&[][..], true));
        assert_eq!(would.would_write.len(), usize::try_from(did.files_written).unwrap());
        let again = self.sync(&plan).unwrap();
        assert_eq!((again.files_written, again.entries_deleted, again.modes_changed), (0, 0, 0), "{again:?}");
        did
    }

    /// Pushes and checks that the trees are equal.
    fn push_equal(&self) -> TreeSyncResult {
        let result = self.push();
        assert_eq!(listing(&self.remote("")), listing(&self.local("")));
        result
    }
}

/// Every entry with its kind, mode and content.
fn listing(root: &Path) -> BTreeMap<Vec<u8>, (u32, Vec<u8>)> {
    fn walk(root: &Path, dir: &Path, all: &mut BTreeMap<Vec<u8>, (u32, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                walk(root, &path, all);
                vec![]
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else {
                fs::read(&path).unwrap()
            };
            all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), (meta.mode(), content));
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn chmod(path: PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn sample(bench: &Bench) {
    write(bench.local("a.txt"), "a");
    write(bench.local("empty"), "");
    write(bench.local("src/b.go"), "package b");
    write(bench.local("src/deep/er/c.sh"), "#!/bin/sh\n");
    chmod(bench.local("src/deep/er/c.sh"), 0o755);
    write(bench.local("private"), "p");
    chmod(bench.local("private"), 0o640);
    fs::create_dir(bench.local("nothing in it")).unwrap();
    symlink("src/b.go", bench.local("link")).unwrap();
    symlink("/nowhere", bench.local("src/dangling")).unwrap();
    fs::write(bench.local("large"), vec![7; 3 << 20]).unwrap();
}

#[test]
fn a_new_directory_becomes_the_tree_and_a_second_push_does_nothing() {
    let bench = Bench::new();
    sample(&bench);
    let result = bench.push_equal();
    assert_eq!((result.files_written, result.files_unchanged), (8, 0));
    std::thread::sleep(std::time::Duration::from_millis(40));
    let plan = bench.plan();
    bench.sync(&plan).unwrap();
    let again = bench.sync(&plan).unwrap();
    assert_eq!((again.files_unchanged, again.files_hashed), (8, 0), "one stat walk");
    fs::write(bench.dir.path().join("index"), b"damaged").unwrap();
    assert_eq!(bench.sync(&plan).unwrap().files_hashed, 6);
}

#[test]
fn local_changes_arrive() {
    let bench = Bench::new();
    sample(&bench);
    bench.push();
    write(bench.local("a.txt"), "b");
    fs::remove_file(bench.local("empty")).unwrap();
    fs::remove_dir_all(bench.local("src/deep")).unwrap();
    chmod(bench.local("src/b.go"), 0o755);
    chmod(bench.local("nothing in it"), 0o700);
    fs::remove_file(bench.local("link")).unwrap();
    symlink("a.txt", bench.local("link")).unwrap();
    write(bench.local("new/dir/file"), "n");
    let result = bench.push_equal();
    assert_eq!((result.files_written, result.entries_deleted, result.modes_changed), (3, 4, 2));
}

#[test]
fn kinds_change_into_each_other() {
    let bench = Bench::new();
    let kinds = ["file", "link", "dir"];
    let make = |name: &str, kind: &str| match kind {
        "file" => write(bench.local(name), "content"),
        "link" => symlink("target", bench.local(name)).unwrap(),
        _ => write(bench.local(&format!("{name}/inside/x")), "x"),
    };
    for from in kinds {
        for to in kinds {
            make(&format!("{from}-{to}"), from);
        }
    }
    bench.push_equal();
    fs::remove_dir_all(bench.local("")).unwrap();
    fs::create_dir(bench.local("")).unwrap();
    for from in kinds {
        for to in kinds {
            make(&format!("{from}-{to}"), to);
        }
    }
    bench.push_equal();
}

#[test]
fn what_commands_changed_is_healed() {
    let bench = Bench::new();
    sample(&bench);
    bench.push();
    fs::write(bench.remote("a.txt"), "x").unwrap();
    fs::remove_file(bench.remote("private")).unwrap();
    fs::remove_dir_all(bench.remote("src")).unwrap();
    chmod(bench.remote("large"), 0o600);
    chmod(bench.remote("nothing in it"), 0o500);
    write(bench.remote("made/by/a/command"), "m");
    fs::remove_file(bench.remote("link")).unwrap();
    write(bench.remote("link/in/the/way"), "w");
    let result = bench.push_equal();
    assert_eq!((result.files_unchanged, result.modes_changed), (1, 2));
}

#[test]
fn ignored_and_kept_things_stay_and_keep_their_directories() {
    let mut bench = Bench::new();
    bench.keep = vec!["pkg".into(), "gen/kept.txt".into()];
    write(bench.local(".gitignore"), "*.o\n/out/\n");
    write(bench.local("lib/.gitignore"), "!important.o\n");
    write(bench.local("lib/x.c"), "");
    write(bench.local("gone/y.c"), "");
    bench.push_equal();
    fs::remove_dir_all(bench.local("gone")).unwrap();
    for made in
        ["x.o", "out/deep/bin", "lib/important.o", "lib/x.o", "gone/y.o", "pkg/a/b", "gen/kept.txt", "gen/other"]
    {
        write(bench.remote(made), "made");
    }
    let result = bench.push();
    let left: Vec<String> =
        listing(&bench.remote("")).into_keys().map(|path| String::from_utf8(path).unwrap()).collect();
    assert_eq!(
        left,
        [
            ".gitignore",
            "gen",
            "gen/kept.txt",
            "gone",
            "gone/y.o",
            "lib",
            "lib/.gitignore",
            "lib/x.c",
            "lib/x.o",
            "out",
            "out/deep",
            "out/deep/bin",
            "pkg",
            "pkg/a",
            "pkg/a/b",
            "x.o",
        ]
    );
    // lib/important.o, gone/y.c, gen/other
    assert_eq!(result.entries_deleted, 3);
}

#[test]
fn with_a_blob_missing_nothing_changes() {
    let bench = Bench::new();
    sample(&bench);
    bench.push();
    fs::remove_file(bench.local("a.txt")).unwrap();
    write(bench.local("src/b.go"), "new content");
    let mut plan = bench.plan();
    let before = listing(&bench.remote(""));
    let entry = |name: &str, kind| Entry { name: name.into(), kind };
    let absent = Digest::of(b"absent");
    let (root, bytes) = tree::encode(
        0o755,
        &[
            entry("f", EntryKind::File { digest: absent, mode: 0o644 }),
            entry("src", EntryKind::Directory { digest: Digest::EMPTY }),
        ],
    )
    .unwrap();
    bench.store.put_batch(&[(root, bytes)]).unwrap();
    plan.root = root;
    assert_eq!(bench.sync(&plan).unwrap().missing, [absent.into()]);
    let (top, bytes) = tree::encode(0o755, &[entry("d", EntryKind::Directory { digest: absent })]).unwrap();
    bench.store.put_batch(&[(top, bytes)]).unwrap();
    plan.root = top;
    assert_eq!(bench.sync(&plan).unwrap().missing, [absent.into()]);
    plan.root = absent;
    assert_eq!(bench.sync(&plan).unwrap().missing, [absent.into()]);
    assert_eq!(listing(&bench.remote("")), before);
}

#[test]
fn links_planted_in_the_destination_lead_nowhere() {
    let bench = Bench::new();
    sample(&bench);
    bench.push();
    let outside = bench.dir.path().join("outside");
    write(outside.join("deep/er/victim"), "untouched");
    write(outside.join("b.go"), "untouched");
    let before = listing(&outside);
    // Directories and files of the tree replaced by links to the outside; and links that are extra.
    fs::remove_dir_all(bench.remote("src")).unwrap();
    symlink(&outside, bench.remote("src")).unwrap();
    fs::remove_file(bench.remote("a.txt")).unwrap();
    symlink(outside.join("b.go"), bench.remote("a.txt")).unwrap();
    symlink(&outside, bench.remote("extra")).unwrap();
    fs::remove_dir(bench.remote("nothing in it")).unwrap();
    symlink(&outside, bench.remote("nothing in it")).unwrap();
    bench.push_equal();
    assert_eq!(listing(&outside), before);
    // The destination itself is healed like what is below it.
    fs::remove_dir_all(bench.remote("")).unwrap();
    symlink(&outside, bench.dir.path().join("work/go")).unwrap();
    bench.push_equal();
    assert_eq!(listing(&outside), before);
    fs::remove_dir_all(bench.remote("")).unwrap();
    write(bench.dir.path().join("work/go"), "a file");
    bench.push_equal();
    // A parent of it is not the tree's to decide.
    fs::remove_dir_all(bench.remote("")).unwrap();
    symlink(&outside, bench.dir.path().join("work/go")).unwrap();
    let plan = bench.plan();
    let work = fs::File::open(bench.dir.path().join("work")).unwrap();
    let below = WorkPath::parse("go/below/it").unwrap();
    let error = sync_tree(work.as_fd(), &below, &plan, &bench.store, &bench.dir.path().join("index2")).unwrap_err();
    assert!(matches!(error, SyncError::NotDirectory(path) if path == "go"));
    assert_eq!(listing(&outside), before);
}

#[test]
fn other_names_of_a_file_keep_their_content_and_mode() {
    let bench = Bench::new();
    sample(&bench);
    bench.push();
    let outside = bench.dir.path().join("outside/a.txt");
    fs::hard_link(bench.remote("a.txt"), &outside).unwrap();
    chmod(outside.clone(), 0o600);
    bench.push_equal();
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o600);
    write(bench.local("a.txt"), "changed");
    bench.push_equal();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "a");
}

#[test]
fn names_and_targets_may_be_any_bytes() {
    let bench = Bench::new();
    let name = |bytes: &[u8]| bench.local("").join(OsStr::from_bytes(bytes));
    fs::create_dir(name(b"dir\xff")).unwrap();
    fs::write(name(b"dir\xff/\xfe\x80"), "x").unwrap();
    fs::write(name("\u{fffd}ff".as_bytes()), "y").unwrap();
    symlink(OsStr::from_bytes(b"to\xff"), name(b"l\xc3")).unwrap();
    bench.push_equal();
}

#[test]
fn unusual_directory_modes_do_not_stop_a_plain_user() {
    let bench = Bench::new();
    write(bench.local("readonly/file"), "1");
    chmod(bench.local("readonly/file"), 0o444);
    chmod(bench.local("readonly"), 0o555);
    bench.push_equal();
    chmod(bench.local("readonly"), 0o755);
    chmod(bench.local("readonly/file"), 0o644);
    write(bench.local("readonly/file"), "22");
    write(bench.local("readonly/more"), "3");
    chmod(bench.local("readonly"), 0o555);
    chmod(bench.remote("readonly"), 0o000);
    bench.push_equal();
    chmod(bench.local("readonly"), 0o755);
    write(bench.remote("extra/file"), "x");
    chmod(bench.remote("extra"), 0o000);
    bench.push_equal();
}

#[test]
fn leftovers_of_a_killed_sync_are_removed() {
    let bench = Bench::new();
    write(bench.local(".gitignore"), ".*\n");
    bench.push();
    write(bench.remote(".mote-sync-0123-4"), "half a fi");
    bench.push();
    assert!(!bench.remote(".mote-sync-0123-4").exists());
}

#[test]
fn a_change_within_one_clock_tick_is_seen() {
    let bench = Bench::new();
    write(bench.local("f"), "aaaa");
    let plan = bench.plan();
    for _ in 0..20 {
        bench.sync(&plan).unwrap();
        fs::write(bench.remote("f"), "bbbb").unwrap();
        assert_eq!(bench.sync(&plan).unwrap().files_written, 1);
        assert_eq!(fs::read_to_string(bench.remote("f")).unwrap(), "aaaa");
    }
}

#[test]
fn the_work_directory_itself_may_be_the_destination() {
    let bench = Bench::new();
    sample(&bench);
    let plan = bench.plan();
    let work = bench.dir.path().join("work");
    chmod(work.clone(), 0o700);
    let fd = fs::File::open(&work).unwrap();
    sync_tree(fd.as_fd(), &WorkPath::root(), &plan, &bench.store, &bench.dir.path().join("index")).unwrap();
    assert_eq!(listing(&work), listing(&bench.local("")));
    assert_eq!(fs::metadata(&work).unwrap().mode() & 0o777, 0o700, "its mode is not the tree's to say");
}

#[test]
fn a_tree_of_shared_directories_can_not_unfold_without_end() {
    let bench = Bench::new();
    let mut digest = Digest::EMPTY;
    for _ in 0..60 {
        let entries = [b"a", b"b"].map(|name| Entry { name: name.to_vec(), kind: EntryKind::Directory { digest } });
        let (next, bytes) = tree::encode(0o755, &entries).unwrap();
        bench.store.put_batch(&[(next, bytes)]).unwrap();
        digest = next;
    }
    let plan = SyncPlan { root: digest, ignore_files: vec![], keep: vec![], dry_run: false };
    assert!(matches!(bench.sync(&plan), Err(SyncError::TooLarge(_))));
    for _ in 0..300 {
        let entry = Entry { name: b"a".to_vec(), kind: EntryKind::Directory { digest } };
        let (next, bytes) = tree::encode(0o755, &[entry]).unwrap();
        bench.store.put_batch(&[(next, bytes)]).unwrap();
        digest = next;
    }
    assert!(matches!(bench.sync(&SyncPlan { root: digest, ..plan }), Err(SyncError::TooLarge(_))));
}
