//! Content encodings as Goma's clients mean them: gzip, and *raw* deflate (RFC 1951, without zlib's header),
//! both ways. Pure.

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use std::io::{self, Read, Write as _};

/// Announced on every good answer: a client that does not see it stops compressing for ever.
pub const ACCEPTED: &str = "gzip, deflate";
/// Source code packs about so much.
pub const USUAL_RATIO: usize = 5;
/// Taken at once while a body is unpacked.
const STEP_BYTES: usize = 256 << 10;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1951, raw.
    Deflate,
}

/// Why a body can not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// It comes to more than it may.
    #[error("the request unpacks to more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It is not what its encoding says, or ends early.
    #[error("the request's {encoding:?} body is damaged: {source}")]
    Damaged {
        /// What it should be.
        encoding: Encoding,
        /// What is wrong.
        source: io::Error,
    },
}

impl Encoding {
    /// From a request's `Content-Encoding`; `None`: one that is not spoken here.
    pub fn of_request(header: Option<&str>) -> Option<Self> {
        match header.map(str::trim) {
            None | Some("" | "identity") => Some(Self::Identity),
            Some("gzip") => Some(Self::Gzip),
            Some("deflate") => Some(Self::Deflate),
            Some(_) => None,
        }
    }

    /// For the answer to a request with this `Accept-Encoding`.
    pub fn for_answer(header: Option<&str>) -> Self {
        let offers = |name: &str| {
            header.unwrap_or_default().split(',').any(|item| {
                let mut parts = item.split(';').map(str::trim);
                parts.next() == Some(name) && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0"))
            })
        };
        match (offers("gzip"), offers("deflate")) {
            (true, _) => Self::Gzip,
            (false, true) => Self::Deflate,
            (false, false) => Self::Identity,
        }
    }

    /// Its name in a `Content-Encoding`.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }

    /// Unpacks a whole body of at most `limit` bytes. `grow` is told before the result grows to a size, and
    /// may refuse.
    pub fn expand(
        self,
        body: Bytes,
        limit: usize,
        mut grow: impl FnMut(usize) -> bool,
    ) -> Result<Expanded, ExpandError> {
        let reader: &mut dyn Read = match self {
            Self::Identity if body.len() <= limit => return Ok(Expanded::Whole(body)),
            Self::Identity => return Err(ExpandError::TooLarge { limit }),
            Self::Gzip => &mut MultiGzDecoder::new(&body[..]),
            Self::Deflate => &mut DeflateDecoder::new(&body[..]),
        };
        let mut out = Vec::with_capacity((body.len() * USUAL_RATIO).min(limit).min(STEP_BYTES));
        loop {
            if !grow(out.len() + STEP_BYTES) {
                return Ok(Expanded::Refused);
            }
            let taken = (&mut *reader).take(STEP_BYTES as u64).read_to_end(&mut out);
            let taken = taken.map_err(|source| ExpandError::Damaged { encoding: self, source })?;
            if out.len() > limit {
                return Err(ExpandError::TooLarge { limit });
            }
            if taken == 0 {
                out.shrink_to_fit();
                return Ok(Expanded::Whole(out.into()));
            }
        }
    }

    /// Packs an answer.
    pub fn pack(self, body: Vec<u8>) -> Vec<u8> {
        // Writing to memory does not fail; if it did, the plain body would be sent under the wrong name.
        let packed = match self {
            Self::Identity => return body,
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish())
            }
        };
        packed.expect("writing to a vector does not fail")
    }
}

/// What became of a body.
#[derive(Debug)]
pub enum Expanded {
    /// All of it.
    Whole(Bytes),
    /// It was not allowed to grow.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(encoding: Encoding, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, ExpandError> {
        match encoding.expand(body.into(), limit, |_| true)? {
            Expanded::Whole(bytes) => Ok(bytes.to_vec()),
            Expanded::Refused => panic!("nobody refused"),
        }
    }

    #[test]
    fn what_is_packed_unpacks_and_deflate_is_raw() {
        let body = b"int main() { return 0; }".repeat(40_000);
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Deflate] {
            let packed = encoding.pack(body.clone());
            assert_eq!(expand(encoding, packed, body.len()).unwrap(), body);
            assert_eq!(expand(encoding, encoding.pack(Vec::new()), 10).unwrap(), b"");
        }
        // A stored block of "abc", as RFC 1951 has it: no header, no checksum.
        assert_eq!(expand(Encoding::Deflate, vec![1, 3, 0, 0xfc, 0xff, b'a', b'b', b'c'], 10).unwrap(), b"abc");
        let zlib = [vec![0x78, 0x01], Encoding::Deflate.pack(b"abc".to_vec())].concat();
        assert!(expand(Encoding::Deflate, zlib, 10).is_err());
    }

    #[test]
    fn bombs_and_halves_are_refused() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let bomb = encoding.pack(vec![0; 40 << 20]);
            assert!(matches!(expand(encoding, bomb.clone(), 1 << 20), Err(ExpandError::TooLarge { .. })));
            let half = bomb[..bomb.len() / 2].to_vec();
            assert!(matches!(expand(encoding, half, 80 << 20), Err(ExpandError::Damaged { .. })));
            let mut most = 0;
            let refused = encoding.expand(bomb.into(), 80 << 20, |size| {
                most = size;
                size <= 1 << 20
            });
            assert!(matches!(refused, Ok(Expanded::Refused)) && most < 2 << 20);
        }
        assert!(expand(Encoding::Gzip, b"rubbish".to_vec(), 100).is_err());
        assert!(expand(Encoding::Identity, vec![0; 11], 10).is_err());
    }

    #[test]
    fn headers_mean_what_clients_mean() {
        for (header, expected) in [
            (None, Some(Encoding::Identity)),
            (Some("identity"), Some(Encoding::Identity)),
            (Some("gzip"), Some(Encoding::Gzip)),
            (Some("deflate"), Some(Encoding::Deflate)),
            (Some("lzma2"), None),
            (Some("br"), None),
        ] {
            assert_eq!(Encoding::of_request(header), expected, "{header:?}");
        }
        for (header, expected) in [
            (None, Encoding::Identity),
            (Some("gzip"), Encoding::Gzip),
            (Some("deflate,gzip"), Encoding::Gzip),
            (Some("lzma2, deflate"), Encoding::Deflate),
            (Some("gzip;q=0, deflate;q=0.5"), Encoding::Deflate),
            (Some("lzma2"), Encoding::Identity),
        ] {
            assert_eq!(Encoding::for_answer(header), expected, "{header:?}");
        }
    }
}
