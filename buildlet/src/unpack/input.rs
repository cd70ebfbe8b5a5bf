//! The bytes of the archive: unpacked by what their beginning says they are, and counted.

use super::members::{BLOCK, sum_holds};
use super::{UnpackError, UnpackLimits};
use std::cell::Cell;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::rc::Rc;
use tar::Header;

/// Read at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// The largest window a zstd frame may ask for: 128 MiB, what `zstd -d` takes without being told to.
const ZSTD_WINDOW_LOG: u32 = 27;

/// An unpacked archive.
pub(super) struct Input<'a> {
    bytes: Box<dyn Read + 'a>,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    limits: UnpackLimits,
}

/// Counts what was read.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

impl<'a> Input<'a> {
    /// Looks at the first block.
    pub(super) fn open(packed: impl Read + 'a, limits: UnpackLimits) -> Result<Self, UnpackError> {
        let count = Rc::new(Cell::new(0));
        let mut packed = Counted { inner: packed, count: count.clone() };
        let mut first = Vec::with_capacity(BLOCK);
        packed.by_ref().take(BLOCK as u64).read_to_end(&mut first).map_err(explain)?;
        let all: Chain<Cursor<Vec<u8>>, Counted<_>> = Cursor::new(first.clone()).chain(packed);
        let bytes: Box<dyn Read + 'a> = match first.as_slice() {
            [] => return Err(UnpackError::Archive("the archive is empty: no bytes came".to_owned())),
            // Asked first: a plain archive begins with a file's name, which may look like any magic number.
            block if is_header(block) => Box::new(all),
            [0x1f, 0x8b, ..] => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, all)))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::new(all).map_err(explain)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(explain)?;
                Box::new(decoder)
            }
            [b'B', b'Z', b'h', ..] => return Err(unknown("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(unknown("xz")),
            [b'P', b'K', 3, 4, ..] => return Err(unknown("zip")),
            _ => Box::new(all),
        };
        Ok(Self { bytes, packed: count, unpacked: 0, limits })
    }

    /// Fills as much of `buffer` as there is; less only at the end.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Reads some; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let read = loop {
            match self.bytes.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(explain)?,
            }
        };
        self.unpacked += read as u64;
        let UnpackLimits { bytes, ratio, ratio_from, .. } = self.limits;
        if self.unpacked > bytes {
            return Err(UnpackError::Bound(format!("the archive unpacks to more than {bytes} bytes")));
        }
        if self.unpacked > ratio_from && self.unpacked / ratio > self.packed.get() {
            let problem = format!("the archive unpacks to more than {ratio} times its {} bytes", self.packed.get());
            return Err(UnpackError::Bound(problem));
        }
        Ok(read)
    }
}

fn is_header(block: &[u8]) -> bool {
    let mut header = Header::new_old();
    let whole = block.len() == BLOCK;
    if whole {
        header.as_mut_bytes().copy_from_slice(block);
    }
    whole && sum_holds(&header)
}

fn unknown(what: &str) -> UnpackError {
    UnpackError::Archive(format!("this is {what}; an archive is a tar, plain or packed with gzip or zstd"))
}

fn explain(error: io::Error) -> UnpackError {
    match error.kind() {
        io::ErrorKind::ConnectionAborted => UnpackError::Cut(error.to_string()),
        io::ErrorKind::UnexpectedEof => UnpackError::Archive("the archive is cut short".to_owned()),
        _ => UnpackError::Archive(format!("the archive can not be decompressed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read(packed: &[u8], limits: UnpackLimits) -> Result<Vec<u8>, UnpackError> {
        let mut input = Input::open(packed, limits)?;
        let mut all = vec![0; 1 << 20];
        let filled = input.fill(&mut all)?;
        all.truncate(filled);
        Ok(all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressions_are_told_by_their_first_bytes_and_members_follow_each_other() {
        let limits = UnpackLimits::default();
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        assert_eq!(read(b"plain text", limits).unwrap(), b"plain text");
        assert_eq!(read(b"x", limits).unwrap(), b"x");
        assert_eq!(read(&gzip(b"one"), limits).unwrap(), b"one");
        assert_eq!(read(&[gzip(b"one"), gzip(b" two")].concat(), limits).unwrap(), b"one two");
        assert_eq!(read(&[zstd(b"one"), zstd(b" two")].concat(), limits).unwrap(), b"one two");
        for bad in [&b""[..], b"BZh91AY", b"\xfd7zXZ\0\0", &gzip(b"cut")[..12], &zstd(&[7; 5000])[..9]] {
            assert!(matches!(read(bad, limits), Err(UnpackError::Archive(_))), "{bad:?}");
        }
    }

    /// Found by the fuzzer: a file whose name begins as gzip does.
    #[test]
    fn a_plain_archive_is_one_whatever_its_first_name_looks_like() {
        for name in [&b"\x1f\x8bname"[..], b"\x28\xb5\x2f\xfd", b"BZh9", b"PK\x03\x04"] {
            let mut header = Header::new_old();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name);
            header.set_cksum();
            assert_eq!(read(header.as_bytes(), UnpackLimits::default()).unwrap(), header.as_bytes());
        }
    }

    #[test]
    fn bombs_are_refused_by_size_and_by_ratio() {
        let limits = UnpackLimits { bytes: 100_000, ..UnpackLimits::default() };
        assert!(read(&gzip(&[0; 100_000]), limits).is_ok());
        assert!(matches!(read(&gzip(&[0; 100_001]), limits), Err(UnpackError::Bound(_))));
        let limits = UnpackLimits { ratio: 100, ratio_from: 200_000, ..UnpackLimits::default() };
        assert!(read(&zstd::encode_all(&[0; 200_000][..], 1).unwrap(), limits).is_ok());
        assert!(matches!(read(&zstd::encode_all(&[0; 300_000][..], 1).unwrap(), limits), Err(UnpackError::Bound(_))));
    }
}
