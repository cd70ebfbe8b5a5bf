use super::*;
use bytes::Bytes;
use motefarm_core::{SettableClock, Timestamp};
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

fn blob(seed: u32, size: usize) -> (Digest, Bytes) {
    let mut content: Vec<u8> = (0..size).map(|n| (n as u32).wrapping_mul(seed + 1).to_le_bytes()[1]).collect();
    content.splice(..content.len().min(4), seed.to_le_bytes().into_iter().take(size));
    (Digest::of(&content), content.into())
}

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreLimits::default()).unwrap()
}

/// A store with a clock and, if small, small packs.
fn open_small(dir: &Path, max_bytes: u64) -> (Store, Arc<SettableClock>) {
    let clock = Arc::new(SettableClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let limits = StoreLimits { max_bytes, ..StoreLimits::default() };
    (Store::open_under(dir, limits, clock.clone(), "boot").unwrap(), clock)
}

fn read(source: &dyn BlobSource, digest: &Digest) -> Option<Bytes> {
    source.read(digest, u64::MAX).unwrap()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_was_put_is_there_also_after_a_restart_and_for_readers() {
    let dir = dir();
    let reader = ReadStore::open(dir.path()).unwrap();
    let store = open(dir.path());
    let blobs: Vec<_> = [0, 1, 5, 1000, 1 << 20, (1 << 20) + 1].map(|size| blob(7, size)).into();
    assert_eq!(store.missing(&[blobs[1].0, Digest::EMPTY, blobs[1].0]), [blobs[1].0]);
    let summary = store.put_batch(&blobs).unwrap();
    assert_eq!((summary.stored, summary.present), (5, 1));
    assert_eq!(store.put_batch(&blobs).unwrap().stored, 0);
    let check = |source: &dyn BlobSource| {
        for (digest, content) in &blobs {
            assert!(source.contains(digest));
            assert_eq!(read(source, digest).as_ref(), Some(content));
        }
    };
    check(&store);
    check(&reader);
    assert_eq!(store.verify().unwrap(), VerifyReport { blobs: 5, bytes: store.stats().blob_bytes, bad: vec![] });
    drop(store);
    check(&open(dir.path()));
    check(&ReadStore::open(dir.path()).unwrap());
}

#[test]
fn a_wrong_blob_keeps_the_whole_batch_out() {
    let dir = dir();
    let store = open(dir.path());
    let (good, content) = blob(1, 10);
    let wrong = (Digest::new(*good.hash(), 11), content.clone());
    let error = store.put_batch(&[(good, content), wrong.clone()]).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { expected, actual } if expected == wrong.0 && actual == good));
    assert_eq!(store.stats().blobs, 0);
    assert!(read(&store, &wrong.0).is_none());
}

#[test]
fn a_second_writer_is_refused_while_the_first_lives() {
    let dir = dir();
    let first = open(dir.path());
    let error = Store::open(dir.path(), StoreLimits::default()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(first);
    open(dir.path());
}

#[test]
fn an_upload_counts_only_when_whole() {
    let dir = dir();
    let store = open(dir.path());
    for size in [100, 2 << 20] {
        let (digest, content) = blob(3, size);
        let mut dropped = store.begin(digest).unwrap();
        dropped.write(&content[..50]).unwrap();
        assert_eq!(dropped.written(), 50);
        drop(dropped);
        let mut short = store.begin(digest).unwrap();
        short.write(&content[..50]).unwrap();
        assert!(matches!(short.commit(), Err(StoreError::Mismatch { .. })));
        let mut long = store.begin(digest).unwrap();
        long.write(&content).unwrap();
        assert!(matches!(long.write(b"x"), Err(StoreError::Mismatch { .. })));
        drop(long);
        assert!(!store.contains(&digest));
        let mut whole = store.begin(digest).unwrap();
        content.chunks(70_000).for_each(|piece| whole.write(piece).unwrap());
        assert!(whole.commit().unwrap());
        assert_eq!(read(&store, &digest), Some(content));
    }
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn threads_may_put_the_same_at_once() {
    let dir = dir();
    let store = open(dir.path());
    let blobs: Vec<_> = (0..200).map(|n| blob(n, 500)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                blobs.chunks(10).for_each(|batch| {
                    store.put_batch(batch).unwrap();
                })
            });
        }
    });
    assert_eq!(store.stats().blobs, 200);
    assert!(store.verify().unwrap().bad.is_empty());
}

#[test]
fn a_blob_over_the_limit_is_refused() {
    let dir = dir();
    let store = Store::open(dir.path(), StoreLimits { max_blob_bytes: 10, ..StoreLimits::default() }).unwrap();
    let big = blob(1, 11);
    assert!(matches!(store.put_batch(std::slice::from_ref(&big)), Err(StoreError::TooLarge { .. })));
    assert!(matches!(store.begin(big.0), Err(StoreError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// A killed writer: pack and index log may each end anywhere (data before records).
    #[test]
    fn after_a_kill_every_blob_is_whole_or_missing(cut_index in 0u64..700, cut_pack in 0u64..2000, garbage in any::<bool>()) {
        let dir = dir();
        let blobs: Vec<_> = (0..10).map(|n| blob(n, 100 + n as usize)).collect();
        let store = open(dir.path());
        store.put_batch(&blobs).unwrap();
        drop(store);
        let pack = OpenOptions::new().write(true).open(pack::pack_path(dir.path(), 1)).unwrap();
        let index = OpenOptions::new().write(true).open(pack::index_path(dir.path(), 1)).unwrap();
        let index_bytes = index.metadata().unwrap().len();
        index.set_len(cut_index.min(index_bytes)).unwrap();
        if garbage {
            index.write_all_at(&[0x5a; 30], cut_index.min(index_bytes)).unwrap();
            pack.write_all_at(&[0x5a; 30], pack.metadata().unwrap().len()).unwrap();
        }
        let pack_bytes = pack.metadata().unwrap().len();
        pack.set_len(pack_bytes.saturating_sub(cut_pack)).unwrap();
        std::fs::write(dir.path().join("tmp/left"), b"x").unwrap();

        let store = open(dir.path());
        prop_assert!(store.verify().unwrap().bad.is_empty());
        for (digest, content) in &blobs {
            if let Some(found) = read(&store, digest) {
                prop_assert_eq!(&found, content);
            }
        }
        prop_assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        // And it goes on from there.
        store.put_batch(&blobs).unwrap();
        drop(store);
        let store = open(dir.path());
        prop_assert_eq!(store.stats().blobs, 10);
        prop_assert!(store.verify().unwrap().bad.is_empty());
        let reader = ReadStore::open(dir.path()).unwrap();
        prop_assert!(blobs.iter().all(|(digest, content)| read(&reader, digest).as_ref() == Some(content)));
    }
}

#[test]
fn after_a_reboot_unsealed_content_is_verified() {
    let dir = dir();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let open = |boot: &str| Store::open_under(dir.path(), StoreLimits::default(), clock.clone(), boot).unwrap();
    let (small, large) = ((0..4).map(|n| blob(n, 100)).collect::<Vec<_>>(), blob(9, 2 << 20));
    let store = open("one");
    store.put_batch(&small).unwrap();
    store.put_batch(std::slice::from_ref(&large)).unwrap();
    drop(store);
    // What the disk lost: the second blob of the pack, and the end of the large file.
    let pack = OpenOptions::new().write(true).open(pack::pack_path(dir.path(), 1)).unwrap();
    pack.write_all_at(&[0; 100], 100).unwrap();
    let file = OpenOptions::new().write(true).open(large::path(dir.path(), &large.0)).unwrap();
    file.write_all_at(&[0; 100], 1 << 20).unwrap();

    let store = open("one");
    assert_eq!(store.stats().blobs, 5, "under the same boot nothing is doubted");
    drop(store);
    let store = open("two");
    assert_eq!(store.missing(&small.iter().map(|(d, _)| *d).collect::<Vec<_>>()), [small[1].0]);
    assert!(!store.contains(&large.0));
    assert!(store.verify().unwrap().bad.is_empty());
    drop(store);
    assert_eq!(open("two").stats().blobs, 3);
}

#[test]
fn a_pack_that_is_full_is_sealed_and_not_verified_again() {
    let dir = dir();
    let (store, _) = open_small(dir.path(), 1 << 20);
    for n in 0..4 {
        store.put_batch(&[blob(n, 40_000)]).unwrap();
    }
    assert_eq!(store.stats().packs, 4);
    drop(store);
    let sealed = |number| {
        let log = std::fs::read(pack::index_path(dir.path(), number)).unwrap();
        record::Record::decode_all(&log).last() == Some(record::Record::Seal)
    };
    assert!((1..=3).all(sealed) && !sealed(4));
}

#[test]
fn the_least_recently_used_goes_and_what_is_in_use_or_pinned_stays() {
    let dir = dir();
    let (store, clock) = open_small(dir.path(), 1 << 20);
    let reader = ReadStore::open(dir.path()).unwrap();
    let blobs: Vec<_> = (0..100).map(|n| blob(n, 20_000)).collect();
    let pin = store.pin(vec![blobs[0].0]);
    for (n, one) in blobs.iter().enumerate() {
        store.put_batch(std::slice::from_ref(one)).unwrap();
        clock.advance(Duration::from_secs(1800));
        assert!(n == 0 || store.contains(&blobs[1].0), "in constant use, at {n}");
        assert!(reader.contains(&one.0));
        let stats = store.stats();
        assert!(stats.disk_bytes <= 1 << 20, "{stats:?}");
    }
    assert!(store.contains(&blobs[0].0) && store.contains(&blobs[99].0));
    assert!(!store.contains(&blobs[5].0));
    assert!(store.verify().unwrap().bad.is_empty());
    assert_eq!(read(&reader, &blobs[1].0).as_ref(), Some(&blobs[1].1));
    assert_eq!(read(&reader, &blobs[0].0).as_ref(), Some(&blobs[0].1));
    let fresh_reader = ReadStore::open(dir.path()).unwrap();
    assert!(!fresh_reader.contains(&blobs[5].0) && fresh_reader.contains(&blobs[98].0));
    drop(pin);
    clock.advance(Duration::from_secs(7200));
    for n in 200..260 {
        store.put_batch(&[blob(n, 20_000)]).unwrap();
    }
    assert!(!store.contains(&blobs[0].0), "unpinned");
    let before = store.stats();
    drop(store);
    let (store, _) = open_small(dir.path(), 1 << 20);
    assert_eq!(store.stats(), before);
}

#[test]
fn large_files_are_evicted_by_use_and_never_when_pinned() {
    let dir = dir();
    let (store, clock) = open_small(dir.path(), 8 << 20);
    let blobs: Vec<_> = (0..6).map(|n| blob(n, 2 << 20)).collect();
    let _pin = store.pin(vec![blobs[0].0]);
    for one in &blobs {
        store.put_batch(std::slice::from_ref(one)).unwrap();
        clock.advance(Duration::from_secs(10));
    }
    let there: Vec<bool> = blobs.iter().map(|(digest, _)| store.contains(digest)).collect();
    assert_eq!(there, [true, false, false, true, true, true]);
}

#[test]
fn a_store_full_of_pinned_blobs_says_so() {
    let dir = dir();
    let (store, _) = open_small(dir.path(), 1 << 20);
    let blobs: Vec<_> = (0..60).map(|n| blob(n, 20_000)).collect();
    let _pin = store.pin(blobs.iter().map(|(digest, _)| *digest).collect());
    let error = blobs.iter().find_map(|one| store.put_batch(std::slice::from_ref(one)).err()).unwrap();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(store.verify().unwrap().bad.is_empty());
    assert!(store.contains(&blobs[0].0));
}

#[test]
fn a_collection_leaves_what_is_pinned_whatever_was_used() {
    let dir = dir();
    let (store, clock) = open_small(dir.path(), 64 << 20);
    let blobs: Vec<_> = (0..40).map(|n| blob(n, 50_000)).chain([blob(90, 2 << 20), blob(91, 2 << 20)]).collect();
    store.put_batch(&blobs).unwrap();
    clock.advance(Duration::from_secs(1));
    let kept = [blobs[3].0, blobs[41].0];
    let pin = store.pin(kept.to_vec());
    assert_eq!(store.collect(64 << 20).unwrap(), Collected::default(), "it fits");
    let collected = store.collect(0).unwrap();
    assert_eq!(collected.blobs, 40);
    assert!(collected.disk_bytes > 4_000_000, "{collected:?}");
    let there: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).filter(|digest| store.contains(digest)).collect();
    assert_eq!(there, kept);
    assert_eq!(read(&ReadStore::open(dir.path()).unwrap(), &kept[0]), Some(blobs[3].1.clone()));
    drop(pin);
    store.collect(0).unwrap();
    assert_eq!(store.stats().blobs, 0);
    // It is a store still.
    store.put_batch(&blobs).unwrap();
    assert_eq!(store.verify().unwrap().blobs, 42);
}

#[test]
fn wrong_bytes_are_found_by_name_and_make_way_for_right_ones() {
    let dir = dir();
    let store = open(dir.path());
    let blobs: Vec<_> = [100, 1000, 5000, 2 << 20].map(|size| blob(7, size)).into();
    store.put_batch(&blobs).unwrap();
    let wrong = [blobs[1].0, blobs[3].0];
    let pack = OpenOptions::new().write(true).open(pack::pack_path(dir.path(), 1)).unwrap();
    pack.write_all_at(b"?", 110).unwrap();
    std::fs::write(large::path(dir.path(), &blobs[3].0), vec![0; 2 << 20]).unwrap();
    let mut last = None;
    let mut seen = Vec::new();
    store
        .verify_with(|progress| {
            seen.extend(progress.bad);
            last = Some((progress.blobs, progress.all_blobs, progress.bytes == progress.all_bytes));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((seen.as_slice(), last), (&wrong[..], Some((4, 4, true))));
    let _pinned = store.pin(wrong.to_vec());
    assert_eq!(store.discard_all(&wrong).unwrap(), 2);
    assert_eq!(store.discard_all(&wrong).unwrap(), 0);
    assert_eq!(store.missing(&[blobs[0].0, blobs[1].0, blobs[2].0, blobs[3].0]), wrong);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.missing(&wrong), wrong, "also after a restart");
    assert_eq!(store.put_batch(&blobs).unwrap().stored, 2);
    assert_eq!(store.verify().unwrap(), VerifyReport { blobs: 4, bytes: store.stats().blob_bytes, bad: vec![] });
}

#[test]
fn another_layout_is_not_touched() {
    let dir = dir();
    std::fs::write(dir.path().join("format"), "motefarm-cas 99\n").unwrap();
    assert!(matches!(Store::open(dir.path(), StoreLimits::default()), Err(StoreError::Format { .. })));
}

#[test]
fn an_open_blob_survives_its_eviction() {
    let dir = dir();
    let (store, clock) = open_small(dir.path(), 1 << 20);
    let (digest, content) = blob(0, 20_000);
    store.put_batch(&[(digest, content.clone())]).unwrap();
    let open = store.open(&digest).unwrap().unwrap();
    for n in 1..100 {
        clock.advance(Duration::from_secs(7200));
        store.put_batch(&[blob(n, 20_000)]).unwrap();
    }
    assert!(!store.contains(&digest));
    let mut found = vec![0; content.len()];
    open.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(found, content);
}
