use super::*;
use crate::file_blob::{key_of_chunk, key_of_file};
use std::io::Write as _;
use std::time::Instant;

fn file(n: u32) -> (HashKey, Entry) {
    let content = n.to_le_bytes();
    (key_of_file(&content), Entry::File(Digest::of(&content)))
}

fn all_kinds() -> Vec<(HashKey, Entry)> {
    let whole = Digest::new([7; 32], 5 << 20);
    let chunk = key_of_chunk(1, b"x");
    vec![
        file(1),
        (chunk, Entry::Chunk { offset: 2 << 20, blob: whole, start: 2 << 20, length: 1 }),
        (key_of_file(b"meta"), Entry::Meta { whole, chunks: vec![chunk, key_of_file(b"y"), chunk] }),
    ]
}

#[test]
fn what_was_put_is_there_again_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let entries = all_kinds();
    let keys: Vec<HashKey> = entries.iter().map(|(key, _)| *key).collect();
    let expected: Vec<_> = entries.iter().map(|(_, entry)| Some(entry.clone())).collect();
    let map = HashMap::open(dir.path(), 100).unwrap();
    assert!(map.is_empty());
    map.put(&entries).unwrap();
    map.put(&entries).unwrap();
    assert_eq!((map.get(&keys).unwrap(), map.len()), (expected.clone(), 3));
    assert!(matches!(HashMap::open(dir.path(), 100), Err(MapError::InUse(_))));
    drop(map);
    let map = HashMap::open(dir.path(), 100).unwrap();
    assert_eq!(map.get(&keys).unwrap(), expected);
    assert_eq!(map.get(&[key_of_file(b"other")]).unwrap(), [None]);
}

/// A process killed while it wrote, a disk that lost the tail: what stood before stays, and the map goes on.
#[test]
fn a_record_that_is_not_whole_ends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("current");
    let map = HashMap::open(dir.path(), 100).unwrap();
    map.put(&[file(1), file(2)]).unwrap();
    let good = fs::metadata(&path).unwrap().len();
    map.put(&[file(3)]).unwrap();
    drop(map);
    let full = fs::read(&path).unwrap();
    let mut zeroed = full.clone();
    zeroed[good as usize..].fill(0);
    let mut flipped = full.clone();
    *flipped.last_mut().unwrap() ^= 1;
    flipped[good as usize + 50] ^= 1;
    let cuts = [good + 1, good + 8, good + 50].map(|len| full[..len as usize].to_vec());
    for damaged in cuts.into_iter().chain([zeroed, flipped]) {
        fs::File::create(&path).unwrap().write_all(&damaged).unwrap();
        let map = HashMap::open(dir.path(), 100).unwrap();
        let keys = [file(1).0, file(2).0, file(3).0];
        let known: Vec<bool> = map.get(&keys).unwrap().iter().map(Option::is_some).collect();
        assert_eq!(known, [true, true, false], "{} bytes", damaged.len());
        map.put(&[file(4)]).unwrap();
        drop(map);
        let map = HashMap::open(dir.path(), 100).unwrap();
        assert_eq!(map.get(&[file(2).0, file(4).0]).unwrap(), [Some(file(2).1), Some(file(4).1)]);
    }
}

#[test]
fn it_stays_bounded_and_keeps_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let map = HashMap::open(dir.path(), 20).unwrap();
    let used = file(0);
    for n in 0..200 {
        map.put(&[file(n)]).unwrap();
        assert_eq!(map.get(&[used.0]).unwrap(), [Some(used.1.clone())], "after {n}");
        assert!(map.len() <= 22, "{}", map.len());
    }
    assert_eq!(map.get(&[file(5).0, file(199).0]).unwrap(), [None, Some(file(199).1)]);
    drop(map);
    let map = HashMap::open(dir.path(), 20).unwrap();
    assert_eq!(map.get(&[used.0]).unwrap(), [Some(used.1)]);
}

/// Without the disk being asked, and without that keeping it from what keeps it in the logs.
#[test]
fn what_was_asked_for_lately_is_known_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let map = HashMap::open(dir.path(), 20).unwrap();
    let (used, chunk) = (file(0), all_kinds().remove(1));
    assert_eq!(map.recent(&[]), Some(vec![]));
    assert!(map.recent(&[used.0]).is_none() && !map.knows(std::slice::from_ref(&used)));
    map.put(&[used.clone(), chunk.clone()]).unwrap();
    assert_eq!(map.recent(&[used.0, used.0]), Some(vec![Some(used.1.clone()); 2]));
    assert!(map.knows(std::slice::from_ref(&used)) && !map.knows(&[(used.0, file(1).1)]));
    assert!(map.recent(&[used.0, chunk.0]).is_none(), "only files");
    for n in 1..200 {
        map.put(&[file(n)]).unwrap();
        let known = map.recent(&[used.0]).unwrap_or_else(|| map.get(&[used.0]).unwrap());
        assert_eq!(known, [Some(used.1.clone())], "after {n}");
    }
}

#[test]
fn a_large_map_is_ready_soon() {
    let dir = tempfile::tempdir().unwrap();
    let entries: Vec<_> = (0..300_000).map(file).collect();
    HashMap::open(dir.path(), DEFAULT_MAX_ENTRIES).unwrap().put(&entries).unwrap();
    let begun = Instant::now();
    let map = HashMap::open(dir.path(), DEFAULT_MAX_ENTRIES).unwrap();
    let took = begun.elapsed();
    assert_eq!(map.len(), 300_000);
    // A program built without optimisation on a busy machine; the bench measures a million on a real one.
    assert!(took.as_secs() < 5, "{took:?}");
}
