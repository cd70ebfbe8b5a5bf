//! One entry as bytes: `u32` length of the body, `u32` checksum of it, and the body, all little-endian.
//!
//! Body: the key, a byte for the kind, then a digest (32 bytes and `u64` size) and what the kind needs:
//! nothing (file), three `u64` (chunk: offset, start, length), or keys (meta).

use super::Entry;
use crate::file_blob::HashKey;
use motefarm_core::Digest;

/// Bytes before the body.
pub(super) const HEAD_BYTES: usize = 8;
/// Longest body: a file of 2^20 chunks is 2 TiB.
const MAX_BODY_BYTES: usize = 32 << 20;

const FILE: u8 = 1;
const CHUNK: u8 = 2;
const META: u8 = 3;

pub(super) fn encode(key: &HashKey, entry: &Entry, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; HEAD_BYTES]);
    into.extend_from_slice(key.as_bytes());
    let kind = match entry {
        Entry::File(_) => FILE,
        Entry::Chunk { .. } => CHUNK,
        Entry::Meta { .. } => META,
    };
    into.push(kind);
    let blob = entry.blob();
    into.extend_from_slice(blob.hash());
    into.extend_from_slice(&blob.size_bytes().to_le_bytes());
    match entry {
        Entry::File(_) => {}
        Entry::Chunk { offset, start, length, .. } => {
            [offset, start, length].into_iter().for_each(|n| into.extend_from_slice(&n.to_le_bytes()));
        }
        Entry::Meta { chunks, .. } => chunks.iter().for_each(|chunk| into.extend_from_slice(chunk.as_bytes())),
    }
    let body = start + HEAD_BYTES;
    let len = u32::try_from(into.len() - body).unwrap_or(u32::MAX);
    let sum = checksum(&into[body..]);
    into[start..start + 4].copy_from_slice(&len.to_le_bytes());
    into[start + 4..body].copy_from_slice(&sum.to_le_bytes());
}

/// Bytes of the record that begins here, if it is whole and undamaged, and its key.
pub(super) fn measure(bytes: &[u8]) -> Option<(usize, HashKey)> {
    let len = body_len(bytes)?;
    let body = bytes.get(HEAD_BYTES..HEAD_BYTES + len)?;
    let sum = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
    let key = HashKey::from_bytes(body.get(..32)?.try_into().ok()?);
    (sum == checksum(body)).then_some((HEAD_BYTES + len, key))
}

/// Whether more bytes could make the beginning of a record a whole one.
pub(super) fn is_short(bytes: &[u8]) -> bool {
    match bytes.get(..4) {
        None => true,
        Some(_) => body_len(bytes).is_some_and(|len| bytes.len() < HEAD_BYTES + len),
    }
}

/// Length of the body, from the head.
pub(super) fn body_len(head: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(head.get(..4)?.try_into().ok()?) as usize;
    (len <= MAX_BODY_BYTES).then_some(len)
}

/// Key and entry of a body.
pub(super) fn decode(body: &[u8]) -> Option<(HashKey, Entry)> {
    let (key, rest) = body.split_first_chunk::<32>()?;
    let ([kind], rest) = rest.split_first_chunk::<1>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let digest = Digest::new(*hash, u64::from_le_bytes(*size));
    let entry = match *kind {
        FILE if rest.is_empty() => Entry::File(digest),
        CHUNK if rest.len() == 24 => {
            let mut numbers = rest.chunks_exact(8).filter_map(|n| n.try_into().ok().map(u64::from_le_bytes));
            Entry::Chunk { offset: numbers.next()?, blob: digest, start: numbers.next()?, length: numbers.next()? }
        }
        META if rest.len().is_multiple_of(32) => {
            let chunks = rest.chunks_exact(32).filter_map(|key| key.try_into().ok().map(HashKey::from_bytes));
            Entry::Meta { whole: digest, chunks: chunks.collect() }
        }
        _ => return None,
    };
    Some((HashKey::from_bytes(*key), entry))
}

/// Puts the checksum of every record right, so that a fuzzer's are read; gives their keys.
pub(super) fn mend(mut log: &mut [u8]) -> Vec<HashKey> {
    let mut keys = Vec::new();
    while let Some(len) = body_len(log).filter(|len| log.len() >= HEAD_BYTES + len) {
        let (record, rest) = log.split_at_mut((HEAD_BYTES + len).next_multiple_of(8).min(log.len()));
        let (head, body) = record.split_at_mut(HEAD_BYTES);
        head[4..].copy_from_slice(&checksum(&body[..len]).to_le_bytes());
        keys.extend(body[..len].first_chunk::<32>().map(|key| HashKey::from_bytes(*key)));
        log = rest;
    }
    keys
}

/// FNV-1a over words: finds torn and zeroed records, which is all that happens to a log.
fn checksum(body: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in body.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x0100_0000_01b3);
        hash ^= hash >> 29;
    }
    (hash ^ (hash >> 32)) as u32
}
