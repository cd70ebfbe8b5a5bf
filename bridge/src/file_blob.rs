//! Goma's unit of content, the `FileBlob`: its canonical bytes, its hash key, and which of them are valid.
//!
//! A hash key is not a digest: it is the SHA-256 of the message's bytes. So what a client sent is hashed as
//! it came, and only when that is not the key it announced is the message encoded anew and hashed again.
//! Nothing is ever taken under a key that neither way gives.

use bytes::Bytes;
use motefarm_proto::goma::FileBlob;
use motefarm_proto::goma::file_blob::BlobType;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Largest content of one blob; longer files are chunks of this size and a list of them. Inclusive: a file
/// of exactly this size is one blob.
pub const CHUNK_BYTES: usize = 2 << 20;

/// What a blob is known by: the SHA-256 of its canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// The key of a blob with these bytes.
    pub fn of_encoded(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From the 32 bytes that were stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From the text of the wire: 64 lower-case hex digits, nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let plain = text.len() == 64 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        (plain && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }

    /// To be stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashKey({self})")
    }
}

/// A valid blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blob {
    /// A whole file.
    File(Bytes),
    /// A piece of a longer one.
    Chunk {
        /// Where it begins.
        offset: u64,
        /// The piece.
        content: Bytes,
    },
    /// A longer file.
    Meta {
        /// Bytes of the whole.
        size: u64,
        /// Its chunks, in order; two or more.
        chunks: Vec<HashKey>,
    },
    /// Stands for a whole file.
    Reference {
        /// Bytes of that file.
        size: u64,
        /// Its key.
        file: HashKey,
    },
}

/// Why a blob is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// A field is missing, not allowed here, or does not agree with another.
    #[error("not a valid blob: {0}")]
    Invalid(&'static str),
    /// The content is not what it was announced as.
    #[error("the content has the hash key {actual}, not the announced {announced}")]
    Mismatch {
        /// As announced.
        announced: String,
        /// As computed.
        actual: HashKey,
    },
}

/// Key and meaning of a blob that was received. `raw`: the message's bytes as they came, if they came in one
/// piece. `announced`: the key it was sent under, if it was.
pub fn verify(blob: FileBlob, raw: Option<&[u8]>, announced: Option<&str>) -> Result<(HashKey, Blob), BlobError> {
    let blob = Blob::try_from(blob)?;
    let as_sent = raw.map(HashKey::of_encoded);
    let Some(announced) = announced else { return Ok((as_sent.unwrap_or_else(|| blob.key()), blob)) };
    if let Some(key) = as_sent.filter(|key| HashKey::parse(announced) == Some(*key)) {
        return Ok((key, blob));
    }
    let actual = blob.key();
    match HashKey::parse(announced) {
        Some(key) if key == actual => Ok((key, blob)),
        _ => Err(BlobError::Mismatch { announced: announced.chars().take(80).collect(), actual }),
    }
}

impl Blob {
    /// The key of its canonical bytes.
    pub fn key(&self) -> HashKey {
        match self {
            Self::File(content) => key_of_file(content),
            Self::Chunk { offset, content } => key_of_chunk(*offset, content),
            Self::Meta { size, chunks } => key_of_meta(*size, chunks),
            Self::Reference { size, file } => key_of_reference(*size, file),
        }
    }

    /// The message for a client.
    pub fn into_message(self) -> FileBlob {
        let message = |blob_type: BlobType, size: u64| FileBlob {
            blob_type: blob_type.into(),
            file_size: Some(signed(size)),
            ..FileBlob::default()
        };
        match self {
            Self::File(content) => {
                FileBlob { content: Some(content.clone()), ..message(BlobType::File, content.len() as u64) }
            }
            Self::Chunk { offset, content } => FileBlob {
                offset: Some(signed(offset)),
                content: Some(content.clone()),
                ..message(BlobType::FileChunk, content.len() as u64)
            },
            Self::Meta { size, chunks } => FileBlob {
                hash_key: chunks.iter().map(HashKey::to_string).collect(),
                ..message(BlobType::FileMeta, size)
            },
            Self::Reference { size, file } => {
                FileBlob { hash_key: vec![file.to_string()], ..message(BlobType::FileRef, size) }
            }
        }
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl TryFrom<FileBlob> for Blob {
    type Error = BlobError;

    fn try_from(blob: FileBlob) -> Result<Self, BlobError> {
        use BlobError::Invalid;
        let size = u64::try_from(blob.file_size.ok_or(Invalid("file_size is not set"))?);
        let size = size.map_err(|_| Invalid("file_size is negative"))?;
        let no_keys = if blob.hash_key.is_empty() { Ok(()) } else { Err(Invalid("hash_key has no place here")) };
        let no_offset = if blob.offset.is_none() { Ok(()) } else { Err(Invalid("offset has no place here")) };
        let no_content = if blob.content.is_none() { Ok(()) } else { Err(Invalid("content has no place here")) };
        let content = || {
            let content = blob.content.clone().ok_or(Invalid("content is not set"))?;
            match content.len() {
                len if len as u64 != size => Err(Invalid("file_size is not the content's")),
                len if len > CHUNK_BYTES => Err(Invalid("content over 2 MiB in one blob")),
                _ => Ok(content),
            }
        };
        let keys = || {
            let keys: Option<Vec<HashKey>> = blob.hash_key.iter().map(|text| HashKey::parse(text)).collect();
            keys.ok_or(Invalid("a hash_key is not 64 lower-case hex digits"))
        };
        match BlobType::try_from(blob.blob_type) {
            Ok(BlobType::File) => no_keys.and(no_offset).and_then(|()| content()).map(Self::File),
            Ok(BlobType::FileChunk) => {
                no_keys?;
                let offset = u64::try_from(blob.offset.ok_or(Invalid("offset is not set"))?);
                let offset = offset.map_err(|_| Invalid("offset is negative"))?;
                Ok(Self::Chunk { offset, content: content()? })
            }
            Ok(BlobType::FileMeta) => {
                no_offset.and(no_content)?;
                let chunks = keys()?;
                if chunks.len() < 2 || size.div_ceil(CHUNK_BYTES as u64) != chunks.len() as u64 {
                    return Err(Invalid("a file of this size has another number of chunks"));
                }
                Ok(Self::Meta { size, chunks })
            }
            Ok(BlobType::FileRef) => {
                no_offset.and(no_content)?;
                match keys()?[..] {
                    [file] => Ok(Self::Reference { size, file }),
                    _ => Err(Invalid("a reference has one hash_key")),
                }
            }
            Ok(BlobType::FileUnspecified) | Err(_) => Err(Invalid("blob_type says nothing")),
        }
    }
}

/// The key of a file of up to 2 MiB.
pub fn key_of_file(content: &[u8]) -> HashKey {
    let mut sha = begin_content(&[0x08, BlobType::File as u8], content.len());
    sha.update(content);
    end_content(sha, content.len())
}

/// The key of a chunk.
pub fn key_of_chunk(offset: u64, content: &[u8]) -> HashKey {
    let mut sha = begin_chunk(offset, content.len());
    sha.update(content);
    end_content(sha, content.len())
}

/// The key of a longer file's list.
pub fn key_of_meta(size: u64, chunks: &[HashKey]) -> HashKey {
    key_of_list(BlobType::FileMeta, size, chunks)
}

/// The key of a reference to a file.
pub fn key_of_reference(size: u64, file: &HashKey) -> HashKey {
    key_of_list(BlobType::FileRef, size, std::slice::from_ref(file))
}

// The canonical bytes. Tags: 1 blob_type 0x08, 10 offset 0x50, 11 content 0x5a, 20 file_size 0xa0 0x01,
// 21 hash_key 0xaa 0x01.

fn begin_content(head: &[u8], len: usize) -> Sha256 {
    let mut bytes = head.to_vec();
    bytes.push(0x5a);
    prost::encoding::encode_varint(len as u64, &mut bytes);
    Sha256::new_with_prefix(bytes)
}

fn begin_chunk(offset: u64, len: usize) -> Sha256 {
    let mut head = vec![0x08, BlobType::FileChunk as u8, 0x50];
    prost::encoding::encode_varint(offset, &mut head);
    begin_content(&head, len)
}

fn end_content(mut sha: Sha256, len: usize) -> HashKey {
    let mut bytes = vec![0xa0, 0x01];
    prost::encoding::encode_varint(len as u64, &mut bytes);
    sha.update(bytes);
    HashKey(sha.finalize().into())
}

fn key_of_list(blob_type: BlobType, size: u64, keys: &[HashKey]) -> HashKey {
    let mut bytes = vec![0x08, blob_type as u8, 0xa0, 0x01];
    prost::encoding::encode_varint(size, &mut bytes);
    for key in keys {
        bytes.extend_from_slice(&[0xaa, 0x01, 64]);
        bytes.extend_from_slice(key.to_string().as_bytes());
    }
    HashKey::of_encoded(&bytes)
}

/// Computes the keys of a file's chunks from content that comes in pieces.
pub struct ChunkHasher {
    size: u64,
    at: u64,
    current: Option<(Sha256, usize, usize)>,
    chunks: Vec<HashKey>,
}

impl ChunkHasher {
    /// For a file of this size.
    pub fn new(size: u64) -> Self {
        Self { size, at: 0, current: None, chunks: Vec::new() }
    }

    /// Adds a piece. What is beyond the announced size is not looked at: the caller checks the digest.
    pub fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && self.at < self.size {
            let (mut sha, len, taken) = self.current.take().unwrap_or_else(|| {
                let len = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                (begin_chunk(self.at, len), len, 0)
            });
            let (now, rest) = piece.split_at(piece.len().min(len - taken));
            sha.update(now);
            self.at += now.len() as u64;
            piece = rest;
            if taken + now.len() == len {
                self.chunks.push(end_content(sha, len));
            } else {
                self.current = Some((sha, len, taken + now.len()));
            }
        }
    }

    /// The keys of all chunks, if all of the file has come.
    pub fn finish(self) -> Option<Vec<HashKey>> {
        (self.at == self.size && self.current.is_none()).then_some(self.chunks)
    }
}

#[cfg(test)]
mod tests;
