//! The bytes of the archive: unpacked by what their beginning says they are, and counted.

use super::{UnpackError, UnpackLimits};
use std::cell::Cell;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::rc::Rc;

/// Bytes that tell the compressions apart.
const MAGIC_BYTES: u64 = 6;
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
    /// Looks at the first bytes.
    pub(super) fn open(packed: impl Read + 'a, limits: UnpackLimits) -> Result<Self, UnpackError> {
        let count = Rc::new(Cell::new(0));
        let mut packed = Counted { inner: packed, count: count.clone() };
        let mut magic = Vec::new();
        packed.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic).map_err(explain)?;
        let all: Chain<Cursor<Vec<u8>>, Counted<_>> = Cursor::new(magic.clone()).chain(packed);
        let bytes: Box<dyn Read + 'a> = match magic.as_slice() {
            [] => return Err(UnpackError::Archive("the archive is empty: no bytes came".to_owned())),
            [0x1f, 0x8b, ..] => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, all)))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::new(all).map_err(explain)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(explain)?;
                Box::new(decoder)
            }
            [b'B', b'Z', b'h', ..] => return Err(unknown("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unknown("xz")),
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
