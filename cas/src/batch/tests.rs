#![cfg(unix)]

use super::*;
use crate::store::{BlobSource, Store, StoreError, StoreLimits};
use bytes::Bytes;
use futures_util::StreamExt as _;
use motefarm_core::Digest;
use motefarm_proto::mote::BlobBatch;
use motefarm_proto::mote::blob_batch::Compression;
use proptest::prelude::*;
use prost::Message as _;
use std::sync::Arc;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    (dir, store)
}

fn local(content: Vec<u8>) -> LocalBlob {
    LocalBlob { digest: Digest::of(&content), content: Content::Bytes(content.into()) }
}

/// Content that compresses and content that does not.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|n| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed.is_multiple_of(2) { (n / 100) as u8 } else { (state >> 56) as u8 }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_packed_is_received(
        sizes in proptest::collection::vec(prop_oneof![8 => 0usize..3000, 2 => 100_000usize..900_000, 1 => 2_000_000usize..5_000_000], 0..20),
        compress in any::<bool>(),
    ) {
        let blobs: Vec<LocalBlob> = sizes.iter().enumerate().map(|(n, size)| local(content(n as u64, *size))).collect();
        let (_dir, store) = store();
        let packer = BatchPacker::new(blobs.clone());
        let packer = if compress { packer } else { packer.uncompressed() };
        let mut receiver = BatchReceiver::new(store.clone());
        for batch in packer {
            let batch = batch.unwrap();
            prop_assert!(batch.encoded_len() <= 4 << 20);
            receiver.accept(batch).unwrap();
        }
        let summary = receiver.finish().unwrap();
        prop_assert_eq!(summary.stored, store.stats().blobs);
        prop_assert_eq!(summary.stored_bytes, store.stats().blob_bytes);
        for blob in &blobs {
            let Content::Bytes(content) = &blob.content else { unreachable!() };
            let found = store.read(&blob.digest, u64::MAX).unwrap();
            prop_assert_eq!(found.as_ref(), Some(content));
        }
        // And onwards from the store.
        let source: Arc<dyn BlobSource> = Arc::new(store);
        let stored = blobs.iter().map(|blob| LocalBlob { digest: blob.digest, content: Content::Stored(Arc::clone(&source)) });
        let (_dir, second) = self::store();
        let mut receiver = BatchReceiver::new(second);
        for batch in BatchPacker::new(stored.collect::<Vec<_>>()) {
            receiver.accept(batch.unwrap()).unwrap();
        }
        prop_assert_eq!(receiver.finish().unwrap(), summary);
    }
}

#[test]
fn many_tiny_blobs_do_not_overflow_a_message() {
    let blobs: Vec<_> = (0u32..50_000).map(|n| local(n.to_le_bytes().to_vec())).collect();
    let batches: Vec<_> = BatchPacker::new(blobs).map(Result::unwrap).collect();
    assert!(batches.len() >= 3 && batches.iter().all(|batch| batch.encoded_len() < 4 << 20));
}

#[test]
fn a_file_that_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for size in [10, 3 << 20] {
        let path = dir.path().join("file");
        let before = content(1, size);
        for after in [content(3, size), content(1, size + 1), content(1, size - 1)] {
            std::fs::write(&path, &after).unwrap();
            let blob = LocalBlob { digest: Digest::of(&before), content: Content::File(path.clone()) };
            let mut packer = BatchPacker::new([blob]);
            let error = packer.find_map(Result::err).unwrap();
            assert!(matches!(error, PackError::Changed(changed) if changed == path));
            assert!(packer.next().is_none());
        }
        std::fs::remove_file(&path).unwrap();
        let blob = LocalBlob { digest: Digest::of(&before), content: Content::File(path.clone()) };
        assert!(matches!(BatchPacker::new([blob]).next(), Some(Err(PackError::Changed(_)))));
    }
}

fn batch(digests: &[Digest], compression: Compression, data: impl Into<Bytes>) -> BlobBatch {
    let digests = digests.iter().map(|digest| (*digest).into()).collect();
    BlobBatch { digests, compression: compression.into(), data: data.into(), ..BlobBatch::default() }
}

fn refused(batch: BlobBatch) -> BatchError {
    let (_dir, store) = store();
    let mut receiver = BatchReceiver::new(store.clone());
    let error = receiver.accept(batch).unwrap_err();
    assert_eq!(store.stats().blobs, 0);
    assert!(error.is_senders_fault());
    error
}

#[test]
fn wrong_bombs_and_missing_content_are_refused() {
    let (a, b) = (Digest::of(b"aaaa"), Digest::of(b"bbbb"));
    let error = refused(batch(&[a, b], Compression::None, &b"aaaabbbc"[..]));
    assert!(matches!(error, BatchError::Store(StoreError::Mismatch { expected, .. }) if expected == b), "{error}");
    for data in [&b"aaaabbb"[..], b"aaaabbbbb", b""] {
        assert!(
            matches!(refused(batch(&[a, b], Compression::None, data)), BatchError::Size { first, .. } if first == Some(a))
        );
    }
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    assert!(matches!(refused(batch(&[a], Compression::Zstd, bomb)), BatchError::Size { .. }));
    assert!(matches!(refused(batch(&[a], Compression::Zstd, &b"rubbish"[..])), BatchError::Size { .. }));
    let huge = Digest::new(*a.hash(), u64::MAX);
    assert!(matches!(refused(batch(&[huge, huge], Compression::Zstd, &b""[..])), BatchError::TooLarge { .. }));
    assert!(matches!(
        refused(BlobBatch { compression: 9, ..batch(&[a], Compression::None, &b"aaaa"[..]) }),
        BatchError::Compression(9)
    ));
}

#[test]
fn pieces_must_follow_each_other_to_the_end() {
    let whole = content(1, 5 << 20);
    let pieces: Vec<_> = BatchPacker::new([local(whole)]).map(Result::unwrap).collect();
    assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.is_piece));
    let small = batch(&[Digest::of(b"x")], Compression::None, &b"x"[..]);
    let (_dir, store) = store();

    let mut gap = BatchReceiver::new(store.clone());
    gap.accept(pieces[0].clone()).unwrap();
    assert!(matches!(gap.accept(pieces[2].clone()), Err(BatchError::Gap { .. })));
    let mut middle = BatchReceiver::new(store.clone());
    assert!(matches!(middle.accept(pieces[1].clone()), Err(BatchError::Gap { expected: 0, .. })));
    let mut other = BatchReceiver::new(store.clone());
    other.accept(pieces[0].clone()).unwrap();
    assert!(matches!(other.accept(small), Err(BatchError::Incomplete { .. })));
    let mut cut = BatchReceiver::new(store.clone());
    cut.accept(pieces[0].clone()).unwrap();
    assert!(matches!(cut.finish(), Err(BatchError::Incomplete { .. })));
    assert_eq!(store.stats().blobs, 0);
}

#[tokio::test]
async fn the_stream_tells_its_error_afterwards() {
    let good = local(content(1, 100));
    let gone = LocalBlob { digest: Digest::of(b"y"), content: Content::File("/nowhere/at/all".into()) };
    let (batches, outcome) = stream(BatchPacker::new(vec![good.clone()]));
    assert_eq!(batches.count().await, 1);
    outcome.wait().await.unwrap();
    let (batches, outcome) = stream(BatchPacker::new(vec![good, gone]));
    assert_eq!(batches.count().await, 0);
    assert!(matches!(outcome.wait().await, Err(PackError::Changed(_))));
    let many: Vec<_> = (0..40).map(|n| local(content(n, 1 << 20))).collect();
    let (batches, outcome) = stream(BatchPacker::new(many));
    drop(batches);
    outcome.wait().await.unwrap();
}
