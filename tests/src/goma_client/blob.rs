//! `FileBlob` as a client makes it of files, and what it accepts of a server's.

use super::wire::{Fields, Message};
use sha2::{Digest as _, Sha256};

/// Files beyond this are sent as chunks.
pub const CHUNK: usize = 2 * 1024 * 1024;

const FILE: i64 = 1;
const META: i64 = 2;
const PIECE: i64 = 3;
const REFERENCE: i64 = 5;

/// One of them, in the fields of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// `blob_type`.
    pub kind: i64,
    /// `offset`.
    pub offset: Option<i64>,
    /// `content`.
    pub content: Option<Vec<u8>>,
    /// `file_size`.
    pub size: i64,
    /// `hash_key`.
    pub keys: Vec<String>,
}

impl Blob {
    /// Its bytes: fields in the order of their numbers, whatever is set written.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Message::default().number(1, self.kind);
        if let Some(offset) = self.offset {
            message = message.number(10, offset);
        }
        if let Some(content) = &self.content {
            message = message.bytes(11, content);
        }
        message.number(20, self.size).all(21, &self.keys).0
    }

    /// Its hash key.
    pub fn key(&self) -> String {
        Sha256::digest(self.encode()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A file's blobs: one, or a list and its chunks.
    pub fn of_file(content: &[u8]) -> (Self, Vec<Self>) {
        let size = content.len() as i64;
        if content.len() <= CHUNK {
            let file = Self { kind: FILE, offset: None, content: Some(content.to_vec()), size, keys: vec![] };
            return (file, vec![]);
        }
        let chunk = |(n, piece): (usize, &[u8])| Self {
            kind: PIECE,
            offset: Some((n * CHUNK) as i64),
            content: Some(piece.to_vec()),
            size: piece.len() as i64,
            keys: vec![],
        };
        let chunks: Vec<Self> = content.chunks(CHUNK).enumerate().map(chunk).collect();
        let keys = chunks.iter().map(Self::key).collect();
        (Self { kind: META, offset: None, content: None, size, keys }, chunks)
    }

    /// From a server, if the real client would take it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let fields = Fields::read(bytes)?;
        let blob = Self {
            kind: fields.number(1).ok_or("a blob without blob_type")?,
            offset: fields.number(10),
            content: fields.bytes(11).map(<[u8]>::to_vec),
            size: fields.number(20).unwrap_or(-1),
            keys: fields.texts(21),
        };
        let has = (blob.offset.is_some(), blob.content.as_ref().map(|content| content.len() as i64), blob.keys.len());
        match (blob.kind, has) {
            (FILE, (false, Some(len), 0)) | (PIECE, (true, Some(len), 0)) if len == blob.size => Ok(blob),
            (META, (false, None, 2..)) | (REFERENCE, (false, None, 1)) if blob.size >= 0 => Ok(blob),
            _ => Err(format!("a blob of type {} with offset, content, keys {has:?} and size {}", blob.kind, blob.size)),
        }
    }

    /// Whether this is a server's way to say that it does not have it.
    pub fn is_none(bytes: &[u8]) -> bool {
        Fields::read(bytes).is_ok_and(|fields| fields.number(1) == Some(0))
    }

    /// Keys to look up for the content; none if it is here.
    pub fn to_look_up(&self) -> &[String] {
        &self.keys
    }
}
