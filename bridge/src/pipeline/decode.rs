//! Requests from their bytes, with the bytes of every blob as they came.
//!
//! The generated decoder forgets what it read; hash keys are of what was sent. So the message is walked a
//! second time, and only the places of its blobs are noted. Pure.

use bytes::{Buf as _, Bytes};
use motefarm_proto::goma::{ExecReq, StoreFileReq};
use prost::Message as _;
use prost::encoding::{WireType, decode_varint};

/// `ExecReq.Input` and, in it, `content`.
const INPUT: u32 = 10;
const INPUT_CONTENT: u32 = 13;
/// `StoreFileReq.blob`.
const STORE_BLOB: u32 = 1;
/// Groups in groups; nobody sends any.
const MAX_DEPTH: usize = 16;

/// A request, and for each of its blobs the bytes as they came; `None`: in several pieces, which the format
/// allows and nobody sends, or not at all.
#[derive(Debug)]
pub struct Received<Request> {
    /// The message.
    pub request: Request,
    /// One for each input, or for each stored blob.
    pub raw: Vec<Option<Bytes>>,
}

/// Why bytes are no request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the message that belongs to this path.
    #[error("not a {what}: {source}")]
    Message {
        /// Its name.
        what: &'static str,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// The second walk did not see what the first saw.
    #[error("not a {what}: its fields can not be told apart")]
    Fields {
        /// Its name.
        what: &'static str,
    },
}

/// An `ExecReq`.
pub fn exec_request(bytes: Bytes) -> Result<Received<ExecReq>, DecodeError> {
    let what = "ExecReq";
    let request = ExecReq::decode(bytes.clone()).map_err(|source| DecodeError::Message { what, source })?;
    let raw = inputs(bytes).filter(|raw| raw.len() == request.input.len()).ok_or(DecodeError::Fields { what })?;
    Ok(Received { request, raw })
}

/// A `StoreFileReq`.
pub fn store_request(bytes: Bytes) -> Result<Received<StoreFileReq>, DecodeError> {
    let what = "StoreFileReq";
    let request = StoreFileReq::decode(bytes.clone()).map_err(|source| DecodeError::Message { what, source })?;
    let raw = blobs(bytes).filter(|raw| raw.len() == request.blob.len()).ok_or(DecodeError::Fields { what })?;
    Ok(Received { request, raw })
}

fn blobs(mut bytes: Bytes) -> Option<Vec<Option<Bytes>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, wire) = key(&mut bytes)?;
        match (tag, wire) {
            (STORE_BLOB, WireType::LengthDelimited) => found.push(Some(delimited(&mut bytes)?)),
            _ => skip(&mut bytes, tag, wire, 0)?,
        }
    }
    Some(found)
}

fn inputs(mut bytes: Bytes) -> Option<Vec<Option<Bytes>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, wire) = key(&mut bytes)?;
        match (tag, wire) {
            (INPUT, WireType::StartGroup) => found.push(input(&mut bytes)?),
            _ => skip(&mut bytes, tag, wire, 0)?,
        }
    }
    Some(found)
}

/// The rest of a group, to its end.
fn input(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let mut contents = Vec::new();
    loop {
        let (tag, wire) = key(bytes)?;
        match (tag, wire) {
            (INPUT, WireType::EndGroup) => break,
            (INPUT_CONTENT, WireType::LengthDelimited) => contents.push(delimited(bytes)?),
            _ => skip(bytes, tag, wire, 1)?,
        }
    }
    Some(if contents.len() == 1 { contents.pop() } else { None })
}

fn key(bytes: &mut Bytes) -> Option<(u32, WireType)> {
    let key = decode_varint(bytes).ok()?;
    let wire = WireType::try_from(key & 7).ok()?;
    Some((u32::try_from(key >> 3).ok()?, wire))
}

fn delimited(bytes: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

fn skip(bytes: &mut Bytes, tag: u32, wire: WireType, depth: usize) -> Option<()> {
    let fixed = match wire {
        WireType::Varint => return decode_varint(bytes).ok().map(drop),
        WireType::LengthDelimited => return delimited(bytes).map(drop),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::StartGroup if depth < MAX_DEPTH => loop {
            let (inner, wire) = key(bytes)?;
            if wire == WireType::EndGroup {
                return (inner == tag).then_some(());
            }
            skip(bytes, inner, wire, depth + 1)?;
        },
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    (bytes.len() >= fixed).then(|| bytes.advance(fixed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_blob::Blob;
    use motefarm_proto::goma::{FileBlob, exec_req};

    fn blob(content: &'static [u8]) -> FileBlob {
        Blob::File(Bytes::from_static(content)).into_message()
    }

    fn exec() -> ExecReq {
        let input = |name: &str, content: Option<FileBlob>| exec_req::Input {
            filename: Some(name.to_owned()),
            hash_key: "k".to_owned(),
            content,
        };
        ExecReq {
            arg: vec!["gcc".to_owned()],
            input: vec![input("a", Some(blob(b"A"))), input("b", None), input("c", Some(blob(b"")))],
            ..ExecReq::default()
        }
    }

    #[test]
    fn the_bytes_of_every_blob_are_found() {
        let mut bytes = exec().encode_to_vec();
        // Fields of the future: a number, a string, a group with a group in it.
        bytes.extend_from_slice(&[0xc0, 0x3e, 5, 0xca, 0x3e, 1, b'x', 0xcb, 0x3e, 0xd3, 0x3e, 0xd4, 0x3e, 0xcc, 0x3e]);
        let received = exec_request(bytes.into()).unwrap();
        let expected =
            [Some(blob(b"A")), None, Some(blob(b""))].map(|blob| blob.map(|blob| blob.encode_to_vec().into()));
        assert_eq!(received.raw, expected);
        let store = StoreFileReq { blob: vec![blob(b"x"), blob(b"y")], ..StoreFileReq::default() };
        let received = store_request(store.encode_to_vec().into()).unwrap();
        assert_eq!(received.raw, [b"x", b"y"].map(|content| Some(Bytes::from(blob(content).encode_to_vec()))));
    }

    #[test]
    fn content_in_two_pieces_has_no_bytes_of_its_own() {
        let input = [0x53, 0x5a, 1, b'a', 0x62, 1, b'k', 0x6a, 2, 8, 1, 0x6a, 4, 0x5a, 2, b'h', b'i', 0x54];
        let bytes = [ExecReq::default().encode_to_vec(), input.to_vec()].concat();
        let received = exec_request(bytes.into()).unwrap();
        assert_eq!(received.raw, [None]);
        assert_eq!(received.request.input[0].content.as_ref().unwrap().content.as_deref(), Some(&b"hi"[..]));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_a_message() {
        let good = exec().encode_to_vec();
        for len in 0..good.len() {
            let _ = exec_request(good[..len].to_vec().into());
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if let Ok(received) = exec_request(bad.into()) {
                    assert_eq!(received.raw.len(), received.request.input.len());
                }
            }
        }
        assert!(exec_request(Bytes::from_static(b"\x53\x53\x53\x53")).is_err());
        assert!(store_request(Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f")).is_err());
    }
}
