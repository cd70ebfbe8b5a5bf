//! ByteStream's resource names.
//!
//! ```text
//! read    [instance/]blobs/<hash>/<size>
//!         [instance/]compressed-blobs/zstd/<hash>/<uncompressed size>
//! write   [instance/]uploads/<uuid>/blobs/<hash>/<size>[/anything]
//!         [instance/]uploads/<uuid>/compressed-blobs/zstd/<hash>/<uncompressed size>[/anything]
//! ```
//!
//! The instance may hold slashes and may be empty, with or without the slash behind it (moon keeps
//! it), so names are read from their keyword on.

use motefarm_core::Digest;
use tonic::Status;

/// How content is spelled on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Compressor {
    Identity,
    Zstd,
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BlobName {
    pub(super) compressor: Compressor,
    pub(super) digest: Digest,
}

/// What is written, and under which name the write can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WriteName {
    pub(super) upload: String,
    pub(super) blob: BlobName,
}

/// Longest name of an upload that is remembered.
const MAX_UPLOAD_NAME: usize = 200;

impl BlobName {
    /// Parses the name of a read.
    pub(super) fn parse(name: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = name.split('/').collect();
        let keyword = parts.iter().position(|part| matches!(*part, "blobs" | "compressed-blobs"));
        let (blob, rest) = keyword.and_then(|at| Self::of_parts(&parts[at..])).ok_or_else(|| bad(name))?;
        if rest > 0 { Err(bad(name)) } else { Ok(blob) }
    }

    /// Reads from the keyword on; how many parts are left over.
    fn of_parts(parts: &[&str]) -> Option<(Self, usize)> {
        let (compressor, rest) = match parts {
            ["blobs", rest @ ..] => (Compressor::Identity, rest),
            ["compressed-blobs", "zstd", rest @ ..] => (Compressor::Zstd, rest),
            ["compressed-blobs", "identity", rest @ ..] => (Compressor::Identity, rest),
            _ => return None,
        };
        // SHA-256 needs no mention, but some mention it.
        let rest = rest.strip_prefix(&["sha256"]).unwrap_or(rest);
        let [hash, size, rest @ ..] = rest else { return None };
        let digest = Digest::parse(hash, size.parse().ok()?).ok()?;
        Some((Self { compressor, digest }, rest.len()))
    }
}

impl WriteName {
    /// Parses the name of a write.
    pub(super) fn parse(name: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = name.split('/').collect();
        let keyword = parts.iter().position(|part| *part == "uploads").ok_or_else(|| bad(name))?;
        let [_, upload, blob @ ..] = &parts[keyword..] else { return Err(bad(name)) };
        let (blob, _metadata) = BlobName::of_parts(blob).ok_or_else(|| bad(name))?;
        if upload.is_empty() || upload.len() > MAX_UPLOAD_NAME {
            return Err(bad(name));
        }
        Ok(Self { upload: (*upload).to_owned(), blob })
    }
}

fn bad(name: &str) -> Status {
    let name: String = name.chars().take(200).collect();
    Status::invalid_argument(format!("resource name {name:?} names no blob or upload in SHA-256, plain or zstd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_their_keyword() {
        let digest = Digest::of(b"x");
        let hash = digest.hash_hex();
        for instance in ["", "/", "main/", "a/b/c/", "/a/"] {
            let plain = BlobName { compressor: Compressor::Identity, digest };
            let zstd = BlobName { compressor: Compressor::Zstd, digest };
            assert_eq!(BlobName::parse(&format!("{instance}blobs/{hash}/1")).unwrap(), plain);
            assert_eq!(BlobName::parse(&format!("{instance}blobs/sha256/{hash}/1")).unwrap(), plain);
            assert_eq!(BlobName::parse(&format!("{instance}compressed-blobs/zstd/{hash}/1")).unwrap(), zstd);
            for metadata in ["", "/", "/some/file.o"] {
                let name = WriteName::parse(&format!("{instance}uploads/u-1/blobs/{hash}/1{metadata}")).unwrap();
                assert_eq!(name, WriteName { upload: "u-1".into(), blob: plain });
                let name = format!("{instance}uploads/u-1/compressed-blobs/zstd/{hash}/1{metadata}");
                assert_eq!(WriteName::parse(&name).unwrap().blob, zstd);
            }
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let hash = Digest::of(b"x").hash_hex();
        for bad in ["", "/", "blobs", "blobs/abc/1", &hash, &format!("blobs/{hash}"), &format!("blobs/{hash}/-1")] {
            assert!(BlobName::parse(bad).is_err(), "{bad}");
            assert!(WriteName::parse(bad).is_err(), "{bad}");
        }
        assert!(BlobName::parse(&format!("blobs/blake3/{hash}/1")).is_err());
        assert!(BlobName::parse(&format!("compressed-blobs/deflate/{hash}/1")).is_err());
        assert!(WriteName::parse(&format!("uploads//blobs/{hash}/1")).is_err());
    }
}
