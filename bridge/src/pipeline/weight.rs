//! How much memory a message will take, told from its bytes before it is decoded. Pure.
//!
//! A field of two bytes on the wire becomes a structure of a hundred: a request within its bound on bytes could
//! be decoded to gigabytes. So its fields are counted first, those of the messages in it as well.

use prost::bytes::Buf as _;
use prost::encoding::{WireType, decode_varint};

/// Fields of one request. The largest of real ones name some ten thousand inputs, of three fields each.
pub const MAX_FIELDS: usize = 400_000;
/// What a field takes in memory besides its content, with the air of a list that has grown.
const FIELD_BYTES: u64 = 256;
/// Messages in messages; nobody sends so many.
const MAX_DEPTH: usize = 16;

/// Which fields of a message are messages or groups themselves.
#[derive(Debug)]
pub struct Shape(&'static [(u32, &'static Shape)]);

static PLAIN: Shape = Shape(&[]);
static REQUESTER: Shape = Shape(&[(13, &PLAIN)]);
static INPUT: Shape = Shape(&[(13, &PLAIN)]);
/// `ExecReq`.
pub static EXEC: Shape = Shape(&[(1, &PLAIN), (10, &INPUT), (15, &PLAIN), (30, &REQUESTER), (38, &PLAIN)]);
/// `StoreFileReq`.
pub static STORE: Shape = Shape(&[(1, &PLAIN), (10, &REQUESTER)]);
/// `LookupFileReq`.
pub static LOOKUP: Shape = Shape(&[(10, &REQUESTER)]);

impl Shape {
    /// Bytes of memory for such a message, its own bytes left out; `None`: it has too many fields. What is no
    /// message weighs what it has up to there.
    pub fn weigh(&self, bytes: &[u8]) -> Option<u64> {
        let mut fields = 0;
        let mut rest = bytes;
        // Whether it is a message is for the decoder to say.
        let _ = self.walk(&mut rest, None, 0, &mut fields);
        (fields <= MAX_FIELDS).then_some(fields as u64 * FIELD_BYTES)
    }

    /// To the end of the message, or of the group that is open.
    fn walk(&self, bytes: &mut &[u8], group: Option<u32>, depth: usize, fields: &mut usize) -> Option<()> {
        while !bytes.is_empty() {
            let key = decode_varint(bytes).ok()?;
            let (tag, wire) = (u32::try_from(key >> 3).ok()?, WireType::try_from(key & 7).ok()?);
            if wire == WireType::EndGroup {
                return (group == Some(tag)).then_some(());
            }
            *fields += 1;
            if *fields > MAX_FIELDS || depth == MAX_DEPTH {
                return None;
            }
            let inner = self.0.iter().find(|(other, _)| *other == tag).map(|(_, shape)| *shape);
            match (wire, inner) {
                (WireType::Varint, _) => drop(decode_varint(bytes).ok()?),
                (WireType::SixtyFourBit, _) => bytes.advance((bytes.len() >= 8).then_some(8)?),
                (WireType::ThirtyTwoBit, _) => bytes.advance((bytes.len() >= 4).then_some(4)?),
                (WireType::StartGroup, inner) => inner.unwrap_or(&PLAIN).walk(bytes, Some(tag), depth + 1, fields)?,
                (WireType::LengthDelimited, inner) => {
                    let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
                    let (mut content, rest) = bytes.split_at_checked(len)?;
                    *bytes = rest;
                    if let Some(shape) = inner {
                        shape.walk(&mut content, None, depth + 1, fields)?;
                    }
                }
                (WireType::EndGroup, _) => return None,
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_blob::Blob;
    use motefarm_proto::goma::{ExecReq, RequesterInfo, StoreFileReq, ToolchainSpec, exec_req};
    use prost::Message as _;

    #[test]
    fn every_field_counts_wherever_it_is() {
        let input = exec_req::Input {
            filename: Some("a".to_owned()),
            hash_key: "k".to_owned(),
            content: Some(Blob::File(b"content"[..].into()).into_message()),
        };
        let request = ExecReq {
            arg: vec!["cc".to_owned(); 5],
            input: vec![input; 10],
            requester_info: Some(RequesterInfo { dimensions: vec![String::new(); 7], ..RequesterInfo::default() }),
            toolchain_specs: vec![ToolchainSpec { path: Some("cc".to_owned()), ..ToolchainSpec::default() }; 2],
            ..ExecReq::default()
        };
        // The command spec; the arguments; ten inputs with a name, a key and a blob of three fields; the
        // requester; two tools.
        let fields = 1 + 5 + 10 * (1 + 3 + 3) + (1 + 7) + 2 * (1 + 1);
        assert_eq!(EXEC.weigh(&request.encode_to_vec()), Some(fields * FIELD_BYTES));
        assert_eq!(PLAIN.weigh(b"rubbish"), Some(FIELD_BYTES));
    }

    /// Each of these is decoded to a hundred times its bytes, or would be.
    #[test]
    fn messages_that_grow_when_they_are_decoded_are_too_heavy() {
        let many = MAX_FIELDS + 1;
        let inputs = [0x53, 0x5a, 0, 0x62, 0, 0x54].repeat(many / 3 + 1);
        let arguments = [0x12, 0].repeat(many);
        let inner = [0x52, 0].repeat(many);
        let requester = [vec![0xf2, 1], prost_len(inner.len()), inner].concat();
        let tools = [0xb2, 2, 0].repeat(many);
        for bomb in [inputs, arguments, requester, tools] {
            assert_eq!(EXEC.weigh(&bomb), None);
        }
        let blob = StoreFileReq {
            blob: vec![Blob::File(vec![0; 2 << 20].into()).into_message(); 20],
            ..StoreFileReq::default()
        };
        assert_eq!(STORE.weigh(&blob.encode_to_vec()), Some(20 * 4 * FIELD_BYTES));
        assert_eq!(STORE.weigh(&[0x0a, 0].repeat(many)), None);
        assert_eq!(LOOKUP.weigh(&[0x0a, 0].repeat(many)), None);
        let nested = [vec![0x0b; 100_000], vec![0x0c; 100_000]].concat();
        assert!(EXEC.weigh(&nested).is_some_and(|weight| weight <= 20 * FIELD_BYTES), "it is not followed down");
    }

    fn prost_len(len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(len as u64, &mut bytes);
        bytes
    }
}
