//! File work against a directory that a hostile command has prepared.

use super::*;
use crate::error::AgentError;
use motefarm_core::WorkPath;
use motefarm_proto::mote::dir_entry::Kind;
use motefarm_proto::mote::{DirEntry, ListDirSpec};
use rustix::process::getuid;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

struct Scene {
    _dir: tempfile::TempDir,
    outside: PathBuf,
    place: Place,
}

/// A work directory with links out of it, and something outside that must stay as it is.
fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let place = Place { work: dir.path().join("work"), staging: dir.path().join("staging") };
    fs::create_dir_all(outside.join("d")).unwrap();
    fs::write(outside.join("d/secret"), "secret").unwrap();
    fs::create_dir_all(place.work.join("src/a")).unwrap();
    fs::write(place.work.join("src/a/f"), "old").unwrap();
    symlink(&outside, place.work.join("out")).unwrap();
    symlink("src", place.work.join("in")).unwrap();
    symlink(outside.join("d/secret"), place.work.join("src/leak")).unwrap();
    Scene { _dir: dir, outside, place }
}

impl Scene {
    fn work(&self, path: &str) -> PathBuf {
        self.place.work.join(path)
    }

    fn check_outside(&self) {
        assert_eq!(fs::read_to_string(self.outside.join("d/secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(self.outside.join("d")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&self.outside).unwrap().count(), 1);
        if let Ok(staged) = fs::read_dir(&self.place.staging) {
            assert_eq!(staged.count(), 0, "something staged was left");
        }
    }
}

fn path(text: &str) -> WorkPath {
    WorkPath::parse(text).unwrap()
}

fn put_text(place: &Place, at: &str, mode: u32, text: &str) -> Result<u64, AgentError> {
    put(place, &path(at), mode, text.as_bytes())
}

fn field_error(result: Result<impl std::fmt::Debug, AgentError>, naming: &str) {
    match result {
        Err(AgentError::Field(error)) => assert!(error.to_string().contains(naming), "{error}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_file_is_put_whole_over_what_was_there() {
    let scene = scene();
    let before = fs::metadata(scene.work("src/a/f")).unwrap().ino();
    assert_eq!(put_text(&scene.place, "src/a/f", 0, "new one").unwrap(), 7);
    let after = fs::metadata(scene.work("src/a/f")).unwrap();
    assert!(after.ino() != before && after.mode() & 0o7777 == 0o644);
    put_text(&scene.place, "made/on/the/way", 0o750, "x").unwrap();
    assert_eq!(fs::metadata(scene.work("made/on/the/way")).unwrap().mode() & 0o7777, 0o750);
    // A link in the place of the file is replaced; what it points to is not.
    put_text(&scene.place, "src/leak", 0, "mine").unwrap();
    assert!(fs::symlink_metadata(scene.work("src/leak")).unwrap().is_file());
    scene.check_outside();
}

#[test]
fn puts_that_lead_elsewhere_or_make_no_sense_are_refused() {
    let scene = scene();
    for (at, naming) in [("out/d/secret", "out is a link"), ("in/a/f", "in is a link"), ("src/a/f/g", "src/a/f is not")]
    {
        field_error(put_text(&scene.place, at, 0, "bad"), naming);
    }
    field_error(put_text(&scene.place, "src/a", 0, "bad"), "is a directory");
    field_error(put_text(&scene.place, ".", 0, "bad"), "the work directory");
    field_error(put_text(&scene.place, "src/x", 0o4755, "bad"), "permission bits");
    assert_eq!(fs::read_to_string(scene.work("src/a/f")).unwrap(), "old");
    scene.check_outside();
}

/// Some content, then an error.
struct Broken(&'static [u8]);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionAborted.into()),
            read => Ok(read),
        }
    }
}

#[test]
fn a_put_that_is_cut_leaves_the_old_file_and_nothing_else() {
    let scene = scene();
    let cut = put(&scene.place, &path("src/a/f"), 0, Broken(b"half of the"));
    assert!(matches!(cut, Err(AgentError::Cut(_))), "{cut:?}");
    assert_eq!(fs::read_to_string(scene.work("src/a/f")).unwrap(), "old");
    assert_eq!(fs::read_dir(scene.work("src/a")).unwrap().count(), 1);
    scene.check_outside();
}

#[test]
fn files_are_read_and_nothing_else_is() {
    let scene = scene();
    fs::set_permissions(scene.work("src/a/f"), Permissions::from_mode(0o751)).unwrap();
    let mut opened = open(&scene.place, &path("src/a/f")).unwrap();
    let mut text = String::new();
    opened.file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), opened.mode, opened.size), ("old", 0o751, 3));
    field_error(open(&scene.place, &path("src/leak")), "a link");
    field_error(open(&scene.place, &path("out/d/secret")), "out is a link");
    field_error(open(&scene.place, &path("src")), "a directory");
    field_error(open(&scene.place, &path(".")), "the work directory");
    std::os::unix::net::UnixListener::bind(scene.work("socket")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, scene.work("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    field_error(open(&scene.place, &path("socket")), "something else");
    field_error(open(&scene.place, &path("fifo")), "something else");
    for missing in ["nothing", "src/nothing/f", "src/a/f/g"] {
        assert!(matches!(open(&scene.place, &path(missing)), Err(AgentError::NoFile(_))), "{missing}");
    }
}

fn listed(place: &Place, spec: ListDirSpec) -> Result<Vec<DirEntry>, AgentError> {
    let listing = Listing::try_from(spec)?;
    let mut all = Vec::new();
    list(place, &listing, |page| {
        assert!((1..=1000).contains(&page.entries.len()));
        all.extend(page.entries);
        Ok::<_, AgentError>(())
    })?;
    Ok(all)
}

fn paths(entries: &[DirEntry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

fn spec(dir: &str, recursive: bool) -> ListDirSpec {
    ListDirSpec { dir: dir.into(), recursive, ..Default::default() }
}

#[test]
fn listings_go_depth_first_in_order_of_bytes_and_follow_no_link() {
    let scene = scene();
    fs::write(scene.work("src/a.b"), "").unwrap();
    fs::write(scene.work("src/a/Z"), "").unwrap();
    let all = listed(&scene.place, spec("", true)).unwrap();
    assert_eq!(paths(&all), ["in", "out", "src", "src/a", "src/a/Z", "src/a/f", "src/a.b", "src/leak"]);
    let link = &all[1];
    assert_eq!((link.kind(), &link.target[..]), (Kind::Symlink, scene.outside.to_str().unwrap().as_bytes()));
    assert_eq!((all[5].kind(), all[5].size_bytes, all[5].hash.len()), (Kind::File, 3, 0));
    assert_eq!(paths(&listed(&scene.place, spec("", false)).unwrap()), ["in", "out", "src"]);
    let skipping = ListDirSpec { skip: vec!["a".into(), "nothing".into(), "leak".into()], ..spec("src", true) };
    assert_eq!(paths(&listed(&scene.place, skipping).unwrap()), ["a.b", "leak"]);
    assert_eq!(paths(&listed(&scene.place, spec("src/a/f", true)).unwrap()), [""]);
    assert_eq!(listed(&scene.place, spec("out", true)).unwrap()[0].kind(), Kind::Symlink);
    field_error(listed(&scene.place, spec("out/d", true)), "out is a link");
    for missing in ["nothing", "nothing/below", "src/a/f/g"] {
        assert!(matches!(listed(&scene.place, spec(missing, true)), Err(AgentError::NoFile(_))), "{missing}");
    }
    field_error(listed(&scene.place, ListDirSpec { skip: vec!["x".into(); 1001], ..spec("", true) }), "skip");
    field_error(listed(&scene.place, ListDirSpec { hash: 9, ..spec("", true) }), "hash");
}

#[test]
fn hashes_are_of_the_contents() {
    let scene = scene();
    fs::write(scene.work("abc"), "abc").unwrap();
    let hashed = |hash: i32| {
        let found = listed(&scene.place, ListDirSpec { hash, ..spec("abc", false) }).unwrap();
        hex::encode(&found[0].hash)
    };
    assert_eq!(hashed(1), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(hashed(2), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let leak = listed(&scene.place, ListDirSpec { hash: 2, ..spec("src/leak", false) }).unwrap();
    assert!(leak[0].hash.is_empty());
}

#[test]
fn long_listings_come_in_pages_and_stop_with_their_reader() {
    let scene = scene();
    for n in 0..2500 {
        fs::write(scene.work(&format!("src/a/{n:04}")), "").unwrap();
    }
    let listing = Listing::try_from(spec("src/a", true)).unwrap();
    let mut pages = Vec::new();
    list(&scene.place, &listing, |page| {
        pages.push(page.entries.len());
        Ok::<_, AgentError>(())
    })
    .unwrap();
    assert_eq!(pages, [1000, 1000, 501]);
    let mut calls = 0;
    let stopped = list(&scene.place, &listing, |_| {
        calls += 1;
        Err(AgentError::Cut("gone".into()))
    });
    assert!(matches!(stopped, Err(AgentError::Cut(_))) && calls == 1);
}

#[test]
fn a_directory_that_vanishes_in_mid_walk_is_skipped() {
    let scene = scene();
    for n in 0..1100 {
        fs::create_dir(scene.work(&format!("src/a/{n:04}"))).unwrap();
        fs::write(scene.work(&format!("src/a/{n:04}/x")), "").unwrap();
    }
    let listing = Listing::try_from(spec("src/a", true)).unwrap();
    let mut seen = Vec::new();
    list(&scene.place, &listing, |page| {
        seen.extend(page.entries);
        let _ = fs::remove_dir_all(scene.work("src/a/1050"));
        Ok::<_, AgentError>(())
    })
    .unwrap();
    assert_eq!(seen.len(), 2 * 1099 + 1);
    assert!(!paths(&seen).contains(&"1050".to_owned()));
}

fn removed(scene: &Scene, paths: &[&str]) -> Result<u64, AgentError> {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    remove(&scene.place, &paths)
}

#[test]
fn removing_takes_links_and_not_what_they_point_to() {
    let scene = scene();
    assert_eq!(removed(&scene, &["nothing", "src/nothing", "src/a/f/g"]).unwrap(), 0);
    assert_eq!(removed(&scene, &["out", "src/leak"]).unwrap(), 2);
    symlink(&scene.outside, scene.work("src/a/out")).unwrap();
    field_error(removed(&scene, &["in/a"]), "in is a link");
    field_error(removed(&scene, &["src/a/out/d/secret"]), "src/a/out is a link");
    assert_eq!(removed(&scene, &["src"]).unwrap(), 4);
    assert_eq!(removed(&scene, &["src"]).unwrap(), 0);
    assert_eq!(fs::read_dir(&scene.place.work).unwrap().count(), 1);
    scene.check_outside();
}

#[test]
fn everything_may_be_removed_also_what_is_locked_or_deep() {
    let scene = scene();
    fs::create_dir_all(scene.work("locked/inner")).unwrap();
    fs::write(scene.work("locked/inner/f"), "").unwrap();
    symlink(&scene.outside, scene.work("locked/inner/out")).unwrap();
    for dir in ["locked/inner", "locked"] {
        fs::set_permissions(scene.work(dir), Permissions::from_mode(0o000)).unwrap();
    }
    let mut deep = scene.work("deep");
    for _ in 0..150 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::set_permissions(&scene.place.work, Permissions::from_mode(0o500)).unwrap();
    let before = 151 + 4 + 2 + 4;
    assert_eq!(removed(&scene, &["."]).unwrap(), before, "uid {}", getuid().as_raw());
    assert_eq!(fs::read_dir(&scene.place.work).unwrap().count(), 0);
    fs::set_permissions(&scene.place.work, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(removed(&scene, &["."]).unwrap(), 0);
    assert!(Path::new(&scene.place.work).is_dir());
    field_error(removed(&scene, &[]), "1 to");
    field_error(removed(&scene, &["a", "../x"]), "paths");
    scene.check_outside();
}
