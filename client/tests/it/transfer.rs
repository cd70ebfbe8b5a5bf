//! `push` and `gettar`.

use crate::fake_farm::FakeFarm;
use crate::mote::write_tree;

const I: &str = "alice-linux-amd64-0";

#[test]
fn a_tree_is_uploaded_once_and_then_only_compared() {
    let farm = FakeFarm::start();
    let home = farm.home();
    write_tree(
        &home.path("proj"),
        &[("a.txt", "one"), ("sub/b.txt", "two"), ("skip.o", "no"), (".gitignore", "*.o\n")],
    );
    let first = home.mote(&["push", "-C", "proj", I, "second"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(
        first.stderr.contains("# pushed 3 files (")
            && first.stderr.contains(&format!(" to {I}:proj: 2 written, 0 deleted, ")),
        "{first:?}"
    );
    {
        let mut state = farm.state();
        let count = |name| state.calls.iter().filter(|call| **call == name).count();
        assert_eq!((count("sync"), count("find_missing"), count("upload")), (4, 1, 1), "{:?}", state.calls);
        assert_eq!(state.blobs.len(), 5, "two directories, three files");
        let sync = state.syncs[0].sync.clone().unwrap();
        assert_eq!((sync.dest.as_str(), sync.ignore_files[0].content.as_ref()), ("proj", &b"*.o\n"[..]));
        state.calls.clear();
    }
    let again = home.mote(&["push", "-json", "-C", "proj", I]);
    assert_eq!(farm.state().calls, ["sync"], "nothing changed: one round trip");
    let body = again.json();
    assert_eq!((body["total_files"].as_u64(), body["uploaded_blobs"].as_u64()), (Some(3), Some(0)));
    assert_eq!(body["targets"][0]["files_written"], 0);
    farm.state().calls.clear();
    write_tree(&home.path("proj"), &[("sub/b.txt", "three")]);
    let changed = home.mote(&["push", "-C", "proj", "-to", "elsewhere/x", I]);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    assert_eq!(farm.state().blobs.len(), 8, "one file and the two directories above it");
    assert_eq!(farm.last_sync().dest, "elsewhere/x");
}

#[test]
fn a_dry_run_uploads_no_content() {
    let farm = FakeFarm::start();
    let home = farm.home();
    write_tree(&home.path("proj"), &[("a.txt", "one")]);
    let ran = home.mote(&["push", "-dry-run", "-C", "proj", I]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for said in ["2 would be written", "would write new.txt", "would write 1 more", "would delete old.txt"] {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    assert_eq!(farm.state().blobs.len(), 1, "the directory alone");
    assert!(farm.last_sync().dry_run);
}

#[test]
fn a_push_from_nowhere_says_what_to_name() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["push", I]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("is in no git checkout, and GOROOT is not set; name the tree"), "{ran:?}");
}

#[test]
fn an_archive_is_whole_or_absent() {
    let farm = FakeFarm::start();
    farm.state().cut_tars = 1;
    let home = farm.home();
    let whole: Vec<u8> = (0..20).flat_map(|n| vec![n; 100_000]).collect();
    let ran = home.mote(&["gettar", "-dir", "go/bin", I]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(std::fs::read(home.path(&format!("{I}.tar.gz"))).unwrap() == whole);
    assert!(ran.stderr.contains("# lost the farm"), "{ran:?}");
    let piped = home.mote(&["gettar", "-o", "-", "-zstd", I]);
    assert!(piped.stdout == whole && piped.stderr.is_empty(), "{}", piped.stderr);
    farm.state().cut_tars = 1;
    let cut = home.mote(&["gettar", "-o", "-", I]);
    assert_eq!(cut.code, Some(1), "{}", cut.stderr);
    let names: Vec<_> = std::fs::read_dir(home.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{names:?}");
}
