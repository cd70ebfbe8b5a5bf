use super::*;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{Directory, DirectoryNode, FileNode, SymlinkNode};
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof!["[a-c]{1,3}".prop_map(String::into_bytes), proptest::collection::vec(1u8..=255, 1..6)]
        .prop_filter("valid", |name| is_valid_name(name))
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let digest = any::<u8>().prop_map(|n| Digest::of(&[n]));
    prop_oneof![
        (digest.clone(), 0u32..0o10000).prop_map(|(digest, mode)| EntryKind::File { digest, mode }),
        digest.prop_map(|digest| EntryKind::Directory { digest }),
        proptest::collection::vec(1u8..=255, 1..9).prop_map(|target| EntryKind::Symlink { target }),
    ]
}

proptest! {
    #[test]
    fn a_directory_survives_and_its_order_does_not_matter(
        entries in proptest::collection::btree_map(name(), kind(), 0..12), mode in 0u32..0o10000,
    ) {
        let entries: Vec<Entry> =
            entries.into_iter().collect::<BTreeMap<_, _>>().into_iter().map(|(name, kind)| Entry { name, kind }).collect();
        let (digest, bytes) = encode(mode, &entries).unwrap();
        let reversed: Vec<Entry> = entries.iter().rev().cloned().collect();
        prop_assert_eq!(encode(mode, &reversed).unwrap().0, digest);
        prop_assert_eq!(Directory::decode(&bytes[..]).unwrap().encode_to_vec(), &bytes[..]);

        let contents = decode(&bytes).unwrap();
        prop_assert_eq!(contents.mode, mode & MODE_BITS);
        let wanted: Vec<Entry> = entries.into_iter().map(|mut entry| {
            if let EntryKind::File { mode, .. } = &mut entry.kind {
                *mode &= MODE_BITS;
            }
            entry
        }).collect();
        prop_assert_eq!(contents.entries, wanted);
    }

    #[test]
    fn bytes_of_any_origin_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&bytes);
    }
}

fn file(name: &str) -> FileNode {
    FileNode { name: name.into(), digest: Some(to_reapi_digest(Digest::EMPTY)), ..FileNode::default() }
}

#[test]
fn the_empty_directory_is_the_empty_blob() {
    assert_eq!(encode(0o755, &[]).unwrap().0, Digest::EMPTY);
    assert_eq!(decode(b"").unwrap(), Contents { mode: 0o755, entries: vec![] });
}

#[test]
fn unsafe_names_are_refused_in_every_list() {
    for bad in ["", ".", "..", "a/b", "/", "a\0", &"x".repeat(256)] {
        let files = Directory { files: vec![file(bad)], ..Directory::default() };
        let node = DirectoryNode { name: bad.into(), digest: Some(to_reapi_digest(Digest::EMPTY)) };
        let directories = Directory { directories: vec![node], ..Directory::default() };
        let link = SymlinkNode { name: bad.into(), target: "x".into(), node_properties: None };
        let symlinks = Directory { symlinks: vec![link], ..Directory::default() };
        for directory in [files, directories, symlinks] {
            assert!(matches!(decode(&directory.encode_to_vec()), Err(TreeError::Name(_))), "{bad:?}");
        }
        let entry = Entry { name: bad.into(), kind: EntryKind::Directory { digest: Digest::EMPTY } };
        assert!(encode(0o755, &[entry]).is_err());
    }
}

#[test]
fn one_name_in_two_lists_is_refused() {
    let link = SymlinkNode { name: "a".into(), target: "x".into(), node_properties: None };
    let directory = Directory { files: vec![file("a")], symlinks: vec![link], ..Directory::default() };
    assert_eq!(decode(&directory.encode_to_vec()), Err(TreeError::Duplicate("a".into())));
}

#[test]
fn a_raw_name_must_be_what_the_escape_spells() {
    let entry = Entry { name: b"\xff".to_vec(), kind: EntryKind::File { digest: Digest::EMPTY, mode: 0o644 } };
    let (_, bytes) = encode(0o755, &[entry]).unwrap();
    let mut directory = Directory::decode(&bytes[..]).unwrap();
    directory.files[0].node_properties.as_mut().unwrap().properties[0].value = hex::encode("../../etc/passwd");
    assert!(matches!(decode(&directory.encode_to_vec()), Err(TreeError::RawBytes { .. })));
}

#[test]
fn unsorted_directories_of_other_clients_are_read() {
    let directory = Directory { files: vec![file("b"), file("a")], ..Directory::default() };
    let names: Vec<Vec<u8>> = decode(&directory.encode_to_vec()).unwrap().entries.into_iter().map(|e| e.name).collect();
    assert_eq!(names, [b"a", b"b"]);
}
