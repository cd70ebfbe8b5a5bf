//! Archives, honest and hostile.

mod hostile;
mod round_trip;

use super::*;
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// A directory to unpack into, with a neighbour that must stay as it is.
struct Scene {
    dir: tempfile::TempDir,
}

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("work/top")).unwrap();
        fs::write(dir.path().join("sentinel"), "untouched").unwrap();
        fs::write(dir.path().join("work/sentinel"), "untouched").unwrap();
        Self { dir }
    }

    /// What is unpacked into, two below the neighbour.
    fn top(&self) -> PathBuf {
        self.dir.path().join("work/top")
    }

    fn unpack_with(&self, archive: &[u8], limits: UnpackLimits) -> Result<Unpacked, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, self.top(), flags, Mode::empty()).unwrap();
        let staging = Staging::open(&self.dir.path().join("staging")).unwrap();
        let done = unpack(archive, top, &staging, limits, NOW);
        self.check_outside();
        done
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_with(archive, UnpackLimits::default())
    }

    /// Nothing changed or appeared outside, and nothing half written is left.
    fn check_outside(&self) {
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.dir.path()), ["sentinel", "staging", "work"]);
        assert_eq!(names(&self.dir.path().join("work")), ["sentinel", "top"]);
        assert_eq!(names(&self.dir.path().join("staging")), Vec::<String>::new());
        for sentinel in ["sentinel", "work/sentinel"] {
            let path = self.dir.path().join(sentinel);
            assert_eq!(fs::read_to_string(&path).unwrap(), "untouched");
            assert_eq!(fs::symlink_metadata(&path).unwrap().nlink(), 1, "linked from inside");
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.top().join(path)).unwrap()
    }
}

/// A header as it is written, without any of the care that a library takes.
struct Raw<'a> {
    name: &'a [u8],
    kind: u8,
    mode: u32,
    size: u64,
    link: &'a [u8],
    mtime: u64,
}

const FILE: Raw<'_> = Raw { name: b"", kind: b'0', mode: 0o644, size: 0, link: b"", mtime: 1_600_000_000 };

impl Raw<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::new(self.kind));
        header.set_mode(self.mode);
        header.set_size(self.size);
        header.set_mtime(self.mtime);
        header.as_old_mut().name[..self.name.len()].copy_from_slice(self.name);
        header.as_old_mut().linkname[..self.link.len()].copy_from_slice(self.link);
        header.set_cksum();
        header.as_bytes().to_vec()
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    let header = Raw { name: name.as_bytes(), size: content.len() as u64, ..FILE };
    [header.bytes(), padded(content.into())].concat()
}

fn directory(name: &str, mode: u32) -> Vec<u8> {
    Raw { name: name.as_bytes(), kind: b'5', mode, ..FILE }.bytes()
}

fn link(name: &str, target: &str) -> Vec<u8> {
    Raw { name: name.as_bytes(), kind: b'2', mode: 0o777, link: target.as_bytes(), ..FILE }.bytes()
}

fn hard_link(name: &str, target: &str) -> Vec<u8> {
    Raw { name: name.as_bytes(), kind: b'1', link: target.as_bytes(), ..FILE }.bytes()
}

/// A header that extends the next one: `L`, `K`, `x` or `g`.
fn extension(kind: u8, payload: &[u8]) -> Vec<u8> {
    let header = Raw { name: b"././@Extension", kind, size: payload.len() as u64, ..FILE };
    [header.bytes(), padded(payload.to_vec())].concat()
}

fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        payload.extend_from_slice(format!("{length}{rest}").as_bytes());
    }
    extension(kind, &payload)
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

#[test]
fn an_archive_becomes_what_it_says() {
    let scene = Scene::new();
    fs::create_dir_all(scene.top().join("d/kept")).unwrap();
    fs::write(scene.top().join("d/f"), "old").unwrap();
    symlink(scene.dir.path().join("sentinel"), scene.top().join("d/was-link")).unwrap();
    let long = format!("d/{}/{}", "x".repeat(200), "y".repeat(200));
    let bytes = archive(&[
        pax(b'g', &[("comment", "of a commit"), ("path", "not this")]),
        directory("./", 0o700),
        directory("./d/", 0o555),
        file("./d/f", "new"),
        file("d/was-link", "a file now"),
        Raw { name: b"d/script", mode: 0o100_755, mtime: 1 << 40, ..FILE }.bytes(),
        link("d/link", "../e/f"),
        link("dangling", "nowhere/at/all"),
        hard_link("e/again", "./d/f"),
        pax(b'x', &[("path", &long), ("mtime", "1500000000.5"), ("SCHILY.xattr.user.x", "y")]),
        file("short", "long"),
        extension(b'L', format!("e/{}\0", "z".repeat(150)).as_bytes()),
        file("e/zzz", "gnu"),
    ]);
    let done = scene.unpack(&bytes).unwrap();
    assert_eq!(done, Unpacked { files: 5, bytes: 3 + 10 + 4 + 3, dirs: 2, links: 3 });
    assert_eq!(
        (scene.read("d/f"), scene.read("d/was-link"), scene.read(&long)),
        ("new".into(), "a file now".into(), "long".into())
    );
    assert_eq!(scene.read(&format!("e/{}", "z".repeat(150))), "gnu");
    assert!(scene.top().join("d/kept").is_dir());
    let meta = |path: &str| fs::symlink_metadata(scene.top().join(path)).unwrap();
    assert_eq!(meta("d").mode() & 0o7777, 0o555);
    assert_eq!((meta("d/script").mode() & 0o7777, meta("d/script").mtime()), (0o755, NOW.as_millis() / 1000));
    assert_eq!((meta("d/f").mtime(), meta("d").mtime()), (1_600_000_000, 1_600_000_000));
    assert_eq!((meta(&long).mtime(), meta(&long).mtime_nsec()), (1_500_000_000, 500_000_000));
    assert_eq!(meta("e/again").ino(), meta("d/f").ino());
    assert_eq!(fs::read_link(scene.top().join("d/link")).unwrap(), Path::new("../e/f"));
    assert_eq!(meta("").mode() & 0o777, fs::metadata(scene.dir.path().join("work")).unwrap().mode() & 0o777);
    // Again, over itself: an unwritable directory is its owner's all the same.
    assert_eq!(scene.unpack(&bytes).unwrap(), Unpacked { dirs: 0, ..done });
    fs::set_permissions(scene.top().join("d"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn packed_archives_and_ones_that_follow_each_other_are_whole() {
    use std::io::Write as _;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (one, two) = (archive(&[file("one", "1")]), archive(&[file("two", "2")]));
    let both = [one.clone(), vec![0; 9 * 512], two.clone(), vec![0; 100]].concat();
    let cases = [
        both.clone(),
        gzip(&both),
        [gzip(&one), gzip(&two)].concat(),
        [gzip(&both[..700]), gzip(&both[700..])].concat(),
        zstd::encode_all(&both[..], 3).unwrap(),
        [zstd::encode_all(&one[..], 3).unwrap(), zstd::encode_all(&two[..], 3).unwrap()].concat(),
    ];
    for (n, packed) in cases.iter().enumerate() {
        let scene = Scene::new();
        assert_eq!(scene.unpack(packed).unwrap_or_else(|e| panic!("{n}: {e}")).files, 2);
        assert_eq!((scene.read("one"), scene.read("two")), ("1".into(), "2".into()));
    }
}

#[test]
fn an_archive_cut_anywhere_is_said_to_be_and_no_file_is_torn() {
    let whole = archive(&[
        file("a", &"a".repeat(700)),
        pax(b'x', &[("path", "b")]),
        file("b0", &"b".repeat(100)),
        extension(b'L', b"c\0"),
        file("c0", "c"),
    ]);
    let end = whole.len() - 1024;
    // Around every block's edge, and some places within.
    for cut in (0..whole.len()).filter(|cut| cut % 512 < 2 || cut % 512 == 511 || cut % 41 == 0) {
        let scene = Scene::new();
        match scene.unpack(&whole[..cut]) {
            // One block of zeros is end enough.
            Ok(_) => assert!(cut >= end + 512, "{cut} of {} bytes pass for the whole", whole.len()),
            Err(error) => assert!(matches!(error, UnpackError::Archive(_)), "{cut}: {error}"),
        }
        for (name, size) in [("a", 700), ("b", 100), ("c", 1)] {
            if let Ok(meta) = fs::metadata(scene.top().join(name)) {
                assert_eq!(meta.len(), size, "{name} cut at {cut}");
            }
        }
    }
}
