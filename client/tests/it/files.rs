//! `put`, `puttar`, `putbootstrap`, `get`, `ls`, `rm`, `snapshot`, and what `push` brings besides.

use crate::fake_farm::FakeFarm;
use crate::mote::write_tree;
use std::os::unix::fs::PermissionsExt as _;

const I: &str = "alice-linux-amd64-0";

#[test]
fn a_file_is_put_whole_with_its_mode_and_again_after_a_cut() {
    let farm = FakeFarm::start();
    farm.state().cut_puts = 1;
    let home = farm.home();
    let content = "x".repeat(1_000_000);
    write_tree(&home.path(""), &[("a/build.sh", &content)]);
    std::fs::set_permissions(home.path("a/build.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let ran = home.mote(&["put", I, "a/build.sh"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("# lost the farm"), "{ran:?}");
    let file = |path: &str| farm.state().files[&(I.to_owned(), path.to_owned())].clone();
    assert_eq!(file("build.sh"), (0o750, content.clone().into_bytes()));
    assert_eq!(home.mote(&["put", "-mode=0600", I, "a/build.sh", "b/c"]).code, Some(0));
    assert_eq!(file("b/c").0, 0o600);
    assert_eq!(home.mote_fed(&["put", I, "-", "in"], b"from stdin").code, Some(0));
    assert_eq!(file("in"), (0, b"from stdin".to_vec()));
    farm.state().cut_puts = 1;
    let cut = home.mote_fed(&["put", I, "-", "cut"], content.as_bytes());
    assert_eq!(cut.code, Some(5), "{cut:?}");
    assert!(cut.stderr.contains("nothing was written; stdin can be read once only"), "{cut:?}");
    assert!(!farm.state().files.contains_key(&(I.to_owned(), "cut".to_owned())));
    for (args, code) in [
        (&["put", I][..], 2),
        (&["put", I, "-"], 2),
        (&["put", I, "a"], 2),
        (&["put", I, "missing"], 5),
        (&["put", "-mode=9", I, "a/build.sh"], 2),
        (&["put", "nobody", "a/build.sh"], 1),
    ] {
        let ran = home.mote(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
    }
}

#[test]
fn an_archive_comes_from_stdin_a_file_an_address_or_a_commit() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let alone = home.mote_fed(&["puttar", "-dir=gopath/src", I], b"archive");
    assert_eq!(alone.code, Some(0), "{alone:?}");
    let dashed = home.mote_fed(&["puttar", "-dir=gopath/src", I, "-"], b"archive");
    assert_eq!(dashed.code, Some(0), "{dashed:?}");
    write_tree(&home.path(""), &[("x.tgz", "file")]);
    farm.state().cut_puts = 1;
    assert_eq!(home.mote(&["puttar", I, "x.tgz"]).code, Some(0));
    {
        let state = farm.state();
        let put = |dir: &str, content: &str| (I.to_owned(), dir.to_owned(), content.as_bytes().to_vec());
        assert_eq!(state.tars, [put("gopath/src", "archive"), put("gopath/src", "archive"), put("", "file")]);
    }
    assert_eq!(home.mote(&["puttar", I, "https://example.org/x.tar.gz"]).code, Some(0));
    assert_eq!(home.mote(&["puttar", "-dir", "go", I, "8ca5f638"]).code, Some(0));
    let state = farm.state();
    assert_eq!(state.urls, ["https://example.org/x.tar.gz", "https://go.googlesource.com/go/+archive/8ca5f638.tar.gz"]);
    let (_, dir, version) = state.tars.last().unwrap();
    assert!(dir == "go" && String::from_utf8_lossy(version).contains("devel 8ca5f638"));
    drop(state);
    let forbidden = home.mote(&["puttar", I, "https://forbidden.example/x"]);
    assert!(forbidden.code == Some(1) && forbidden.stderr.contains("the operator does not allow"), "{forbidden:?}");
    assert_eq!(home.mote(&["puttar", I, "missing.tar"]).code, Some(2));
    assert_eq!(home.mote(&["puttar", "-dir", "../x", I, "x.tgz"]).code, Some(2));
}

#[test]
fn stdin_reaches_all_members_of_a_group() {
    let farm = FakeFarm::start();
    let home = farm.home();
    assert_eq!(home.mote_in("g", &["create", "-count=2", "linux-amd64"]).code, Some(0));
    let content = vec![b'y'; 700_000];
    let mut command = home.command(["-group=g", "puttar", "-"]);
    let input = home.path("in");
    std::fs::write(&input, &content).unwrap();
    let ran = crate::mote::Ran::from(command.stdin(std::fs::File::open(&input).unwrap()).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut tars = farm.state().tars.clone();
    tars.sort();
    assert_eq!(tars.len(), 2);
    assert!(tars.iter().all(|(_, dir, tar)| dir.is_empty() && *tar == content));
    let put = home.mote_in("g", &["put", "in", "there"]);
    assert_eq!((put.code, farm.state().files.len()), (Some(0), 2), "{put:?}");
    let got = home.mote_in("g", &["get", "there"]);
    assert_eq!(got.code, Some(0), "{got:?}");
    assert!(std::fs::read(home.path("alice-linux-amd64-1.there")).unwrap() == content);
    let tars = home.mote_in("g", &["gettar"]);
    assert_eq!(tars.code, Some(0), "{tars:?}");
    assert!(home.path("alice-linux-amd64-0.tar.gz").exists() && home.path("alice-linux-amd64-1.tar.gz").exists());
    assert_eq!(home.mote_in("g", &["gettar", "-o", "x"]).code, Some(2));
}

#[test]
fn a_file_is_fetched_whole_with_its_executable_bit() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let content: Vec<u8> = (0..250_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let put = |path: &str, mode, content: &[u8]| {
        farm.state().files.insert((I.to_owned(), path.to_owned()), (mode, content.to_vec()));
    };
    put("go/bin/go", 0o755, &content);
    put("empty", 0o644, b"");
    assert_eq!(home.mote(&["get", I, "go/bin/go"]).code, Some(0));
    assert!(std::fs::read(home.path("go")).unwrap() == content);
    assert_ne!(std::fs::metadata(home.path("go")).unwrap().permissions().mode() & 0o100, 0);
    assert!(home.mote(&["get", I, "go/bin/go", "-"]).stdout == content);
    assert_eq!(home.mote(&["get", I, "empty", "copy"]).code, Some(0));
    assert_eq!(std::fs::metadata(home.path("copy")).unwrap().len(), 0);
    let missing = home.mote(&["get", I, "missing"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    let left: Vec<_> = std::fs::read_dir(home.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn listings_and_removals() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let listed = home.mote(&["ls", "-R", "-d", "-skip", "go/pkg,go/bin", I, "x"]);
    let digest = "55".repeat(20);
    assert_eq!(
        listed.text(),
        format!("drwxr-xr-x\tgo/\n-rw-r--r--\tgo/VERSION\t3\t2026-11-22T11:01:04Z\t{digest}\nLrwxrwxrwx\tgo/link\n")
    );
    {
        let state = farm.state();
        let list = state.lists[0].list.clone().unwrap();
        assert_eq!((list.dir.as_str(), list.recursive, list.skip.join("|")), ("x", true, "go/pkg|go/bin".into()));
    }
    assert!(home.mote(&["ls", "--sha256", I]).text().contains(&"66".repeat(32)));
    farm.state().cut_lists = 1;
    let cut = home.mote(&["ls", "-R", I]);
    assert_eq!((cut.code, cut.text().lines().count()), (Some(0), 3), "each entry once: {cut:?}");
    let missing = home.mote(&["ls", I, "none"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("no directory \"none\""), "{missing:?}");
    assert_eq!(home.mote(&["rm", I, ".", "a/b"]).code, Some(0));
    assert_eq!(farm.state().removed[0].paths, [".", "a/b"]);
    assert_eq!(home.mote(&["rm", I]).code, Some(2));
}

#[test]
fn snapshots_are_kept_listed_and_forgotten() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let made = home.mote(&["snapshot", "create", "-dir", "go", I, "built"]);
    assert_eq!((made.code, made.text()), (Some(0), "built\n"), "{made:?}");
    assert!(home.mote(&["snapshot", "list"]).text().contains("built  go   linux-amd64  3      1.5 kB"));
    assert_eq!(home.mote(&["snapshot", "remove", "built"]).code, Some(0));
    assert_eq!(home.mote(&["snapshot", "remove", "built"]).code, Some(1));
    assert_eq!(home.mote(&["snapshot", "list"]).text(), "");
}

fn go_tree(root: &std::path::Path) {
    write_tree(
        root,
        &[("src/cmd/go/main.go", "package main"), ("src/internal/goversion/goversion.go", "const Version = 26\n")],
    );
}

#[test]
fn a_go_tree_brings_the_toolchain_it_is_built_with() {
    let farm = FakeFarm::start();
    let home = farm.home();
    go_tree(&home.path("goroot"));
    write_tree(&home.path("boot"), &[("bin/go", "binary"), (".gitignore", "bin\n"), ("pkg/x.a", "lib")]);
    let push = |args: &[&str]| {
        let mut command = home.command(args);
        let command = command.env("GOROOT", home.path("goroot")).env("GOROOT_BOOTSTRAP", home.path("boot"));
        crate::mote::Ran::from(command.output().unwrap())
    };
    let ran = push(&["push", I]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("# the tree has no VERSION file; a made-up one is pushed\n"), "{ran:?}");
    let dests: Vec<String> = {
        let state = farm.state();
        let mut dests: Vec<String> = state.syncs.iter().map(|s| s.sync.as_ref().unwrap().dest.clone()).collect();
        dests.sort();
        dests
    };
    assert_eq!(dests, ["go", "go1.4"]);
    let built = motefarm_core::Digest::of(b"binary");
    assert!(farm.state().blobs.contains(&built), "what git ignores is just what is wanted there");
    // Without a local one the farm's.
    farm.state().has_bootstrap = true;
    let mut command = home.command(["push", "-json", I]);
    let ran = crate::mote::Ran::from(command.env("GOROOT", home.path("goroot")).output().unwrap());
    assert_eq!(ran.json()["targets"][0]["bootstrap_files_written"], 9, "{ran:?}");
    assert_eq!(home.mote(&["putbootstrap", I]).code, Some(0));
    farm.state().has_bootstrap = false;
    let none = home.mote(&["putbootstrap", I]);
    assert!(none.code == Some(1) && none.stderr.contains("has configured none"), "{none:?}");
}

#[test]
fn ten_instances_take_one_upload() {
    let farm = FakeFarm::start();
    let home = farm.home();
    assert_eq!(home.mote_in("g", &["create", "-count=10", "linux-amd64"]).code, Some(0));
    write_tree(&home.path("proj"), &[("a", "one"), ("b", "two")]);
    let ran = home.mote_in("g", &["push", "-C", "proj"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let state = farm.state();
    let count = |name| state.calls.iter().filter(|call| **call == name).count();
    assert_eq!((count("upload"), count("sync"), state.syncs.len()), (1, 20, 10));
}
