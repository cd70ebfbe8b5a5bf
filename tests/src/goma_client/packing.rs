//! How bodies are packed, and who decides it: the server's latest good answer.

use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use std::io::{Read, Result, Write as _};

/// What the client can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `gzip`.
    Gzip,
    /// `deflate`, which means the raw stream, without a head.
    Deflate,
}

impl Packing {
    /// On the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The first of a list that the client can make.
    pub fn offered(list: &str) -> Option<Self> {
        list.split(',').find_map(|name| match name.trim() {
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        })
    }

    /// `body`, packed.
    pub fn pack(self, body: &[u8]) -> Vec<u8> {
        let level = Compression::new(3);
        let packed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        packed.expect("memory takes it")
    }
}

/// The content of a body with this `Content-Encoding`; what is not known stays as it is.
pub fn unpack(encoding: Option<&str>, body: &[u8]) -> Result<Vec<u8>> {
    fn all(mut reader: impl Read) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        Ok(content)
    }
    match encoding {
        // Nothing is unpacked where there is nothing.
        _ if body.is_empty() => Ok(Vec::new()),
        Some(name) if name.starts_with("gzip") => all(GzDecoder::new(body)),
        Some(name) if name.starts_with("deflate") => all(DeflateDecoder::new(body)),
        _ => Ok(body.to_vec()),
    }
}
