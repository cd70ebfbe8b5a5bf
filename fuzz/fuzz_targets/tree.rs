//! Any bytes as the `Directory` messages of a tree, to be decoded, encoded again and planned.
//!
//! An input is a list of messages, each after its length in two bytes. The first is the root. A
//! digest in them can not be guessed by a fuzzer, so a digest whose hash begins with `0000` stands
//! for the message whose number is its size.
#![no_main]

mod ground;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use motefarm_cas::store::{Blob, BlobSource, StoreError};
use motefarm_cas::sync::{SyncPlan, sync_tree};
use motefarm_cas::tree;
use motefarm_core::{Digest, WorkPath};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::LazyLock;

static WORK: LazyLock<(File, PathBuf)> = LazyLock::new(|| {
    let dir = ground::directory();
    std::fs::create_dir(dir.join("d")).expect("a directory");
    std::fs::write(dir.join("d/f"), "content").expect("a file");
    (File::open(&dir).expect("a directory"), dir.join("no-index"))
});

/// Messages by number; every file's content is there.
struct Messages(Vec<Bytes>);

impl Messages {
    fn parse(mut bytes: &[u8]) -> Self {
        let mut messages = Vec::new();
        while let [low, high, rest @ ..] = bytes {
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            messages.push(Bytes::copy_from_slice(&rest[..len]));
            bytes = &rest[len..];
        }
        Self(messages)
    }
}

impl BlobSource for Messages {
    fn contains(&self, _: &Digest) -> bool {
        true
    }

    fn open(&self, _: &Digest) -> Result<Option<Blob>, StoreError> {
        Ok(None)
    }

    fn read(&self, digest: &Digest, _: u64) -> Result<Option<Bytes>, StoreError> {
        if !digest.hash().starts_with(&[0, 0]) {
            return Ok(None);
        }
        Ok(usize::try_from(digest.size_bytes()).ok().and_then(|n| self.0.get(n)).cloned())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let messages = Messages::parse(bytes);
    let mut sound = false;
    for message in &messages.0 {
        let Ok(contents) = tree::decode(message) else { continue };
        sound = true;
        let Ok((_, again)) = tree::encode(contents.mode, &contents.entries) else {
            panic!("what was decoded can not be encoded: {contents:?}");
        };
        let decoded = tree::decode(&again).expect("what we encode");
        assert_eq!((decoded.mode, &decoded.entries), (contents.mode, &contents.entries));
        assert_eq!(tree::encode(decoded.mode, &decoded.entries).expect("the same").1, again, "not canonical");
    }
    if sound {
        let plan = SyncPlan {
            root: Digest::new([0; 32], 0),
            ignore_files: vec![(String::new(), b"*.o\nd/\n".to_vec())],
            keep: vec!["kept".to_owned()],
            dry_run: true,
        };
        let (work, index) = &*WORK;
        let _ = sync_tree(work.as_fd(), &WorkPath::root(), &plan, &messages, index);
    }
});
