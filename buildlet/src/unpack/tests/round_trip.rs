//! What was packed is what is unpacked, and the other way round.

use super::*;
use crate::archive;
use motefarm_proto::mote::TarCompression;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

/// A small tree.
#[derive(Debug, Clone)]
enum Node {
    File { mode: u32, content: Vec<u8> },
    Link(Vec<u8>),
    Directory { mode: u32, entries: BTreeMap<Vec<u8>, Node> },
}

/// Names that differ in more than case; some that no UTF-8 spells, some too long for a plain header.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z0-9 ._\n=-]{1,12}".prop_map(String::into_bytes),
        1 => vec(prop_oneof![Just(0xff_u8), Just(0x80), b'a'..=b'z'], 1..8),
        1 => "[a-z]{99,102}".prop_map(String::into_bytes),
        1 => "[a-z]{200,255}".prop_map(String::into_bytes),
        1 => "[äöé日]{1,4}".prop_map(String::into_bytes),
    ]
    .prop_filter("a name", |name| !matches!(name.as_slice(), b"." | b".."))
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![name(), "[a-z]{1,90}/[a-z]{1,90}".prop_map(String::into_bytes), Just(b".".to_vec())]
}

fn mode() -> impl Strategy<Value = u32> {
    // Readable by its owner, or it could not be packed.
    (0_u32..=0o777).prop_map(|mode| mode | 0o400)
}

fn tree() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        3 => (mode(), vec(any::<u8>(), 0..1200)).prop_map(|(mode, content)| Node::File { mode, content }),
        1 => target().prop_map(Node::Link),
    ];
    let any = leaf.prop_recursive(4, 24, 5, |inner| {
        (mode(), btree_map(name(), inner, 0..5))
            .prop_map(|(mode, entries)| Node::Directory { mode: mode | 0o500, entries })
    });
    btree_map(name(), any, 0..6).prop_map(|entries| Node::Directory { mode: 0o755, entries })
}

fn make(at: &Path, entries: &BTreeMap<Vec<u8>, Node>) {
    for (n, (name, node)) in entries.iter().enumerate() {
        let path = at.join(OsStr::from_bytes(name));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000 + n as u64);
        match node {
            Node::File { mode, content } => {
                fs::write(&path, content).unwrap();
                fs::File::open(&path).unwrap().set_modified(time).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Link(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Node::Directory { mode, entries } => {
                fs::create_dir(&path).unwrap();
                make(&path, entries);
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                fs::File::open(&path).unwrap().set_modified(time).unwrap();
            }
        }
    }
}

/// Paths with everything about them that an archive keeps.
fn seen(at: &Path) -> BTreeMap<PathBuf, (char, u32, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(at.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(at.join(&path)).unwrap();
            let (kind, content) = if meta.is_symlink() {
                ('l', fs::read_link(at.join(&path)).unwrap().as_os_str().as_bytes().to_vec())
            } else if meta.is_dir() {
                dirs.push(path.clone());
                ('d', Vec::new())
            } else {
                ('f', fs::read(at.join(&path)).unwrap())
            };
            all.insert(path, (kind, meta.mode() & 0o7777, meta.mtime(), content));
        }
    }
    all
}

fn pack(dir: &Path, compression: TarCompression) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir: OwnedFd = rustix::fs::openat(CWD, dir, flags, Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    archive::write(dir, compression, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_tree_survives_and_so_does_its_archive(tree in tree(), compression in 1..=3) {
        let Node::Directory { entries, .. } = tree else { panic!("a tree is a directory") };
        let source = tempfile::tempdir().unwrap();
        make(source.path(), &entries);
        let compression = TarCompression::try_from(compression).unwrap();
        let packed = pack(source.path(), compression);
        let scene = Scene::new();
        let done = scene.unpack(&packed).unwrap();
        let before = seen(source.path());
        prop_assert_eq!(&before, &seen(&scene.top()));
        let count = |kind: char| before.values().filter(|entry| entry.0 == kind).count() as u64;
        prop_assert_eq!((done.files, done.dirs, done.links), (count('f'), count('d'), count('l')));
        prop_assert_eq!(pack(&scene.top(), compression), packed);
        // What a temporary directory holds must be its owner's to remove.
        for dir in [source.path().to_owned(), scene.top()] {
            crate::wipe::empty(&dir).unwrap();
        }
    }

    #[test]
    fn no_bytes_panic_or_lead_outside(mut bytes in vec(any::<u8>(), 0..4096), at in 0_usize..3000, good in any::<bool>()) {
        if good {
            let mut whole = archive_of_everything();
            for (n, byte) in bytes.iter().take(8).enumerate() {
                let len = whole.len();
                whole[(at + n * 37) % len] ^= byte;
            }
            bytes = whole;
        }
        let scene = Scene::new();
        let _ = scene.unpack(&bytes);
        crate::wipe::empty(&scene.top()).unwrap();
    }
}

fn archive_of_everything() -> Vec<u8> {
    super::archive(&[
        directory("d", 0o755),
        file("d/f", "content"),
        link("d/l", "f"),
        hard_link("h", "d/f"),
        pax(b'x', &[("path", "d/named")]),
        file("x", "y"),
    ])
}
