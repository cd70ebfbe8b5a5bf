//! Following output from an offset.

use crate::layout::exec::{INDEX, SPOOL};
use crate::spool::frame::{HEADER_BYTES, Header, MOST_PAYLOAD_BYTES, NotAHeader};
use crate::spool::released::Released;
use crate::spool::writer::find_entry;
use bytes::{Bytes, BytesMut};
use motefarm_core::exec::OutputStream;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// Most that is read from disk at once: one largest frame.
const BLOCK_BYTES: usize = MOST_PAYLOAD_BYTES + HEADER_BYTES;
/// Frames of at least this size are handed on as they are; smaller ones are copied together.
const COPY_BELOW_BYTES: usize = 16 * 1024;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) stream: OutputStream,
    pub(crate) offset: u64,
    pub(crate) time_ms: i64,
    pub(crate) data: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Why output can not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It was acknowledged and let go.
    #[error("output before offset {from} was acknowledged and released; ask from there on")]
    Released {
        /// The first offset that is there.
        from: u64,
    },
    /// The spool has something in it that no supervisor writes.
    #[error("the spooled output is damaged at byte {position} of its file")]
    Damaged {
        /// Where.
        position: u64,
    },
    /// The file system's fault.
    #[error("can not read the spooled output: {0}")]
    Io(#[from] io::Error),
}

/// One reader's place in a spool.
pub(crate) struct SpoolReader {
    dir: OwnedFd,
    spool: File,
    position: u64,
    next: u64,
    /// End of the last frame seen.
    end: u64,
    most_chunk: usize,
}

impl SpoolReader {
    /// A reader of the execution in `dir` whose next byte is `offset`. `Ok(None)`: there is no
    /// spool yet. Chunks will hold at most `most_chunk` bytes.
    pub(crate) fn open(dir: OwnedFd, offset: u64, most_chunk: usize) -> Result<Option<Self>, ReadError> {
        let open = |name| match rustix::fs::openat(
            &dir,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        };
        let (Some(spool), Some(index)) = (open(SPOOL)?, open(INDEX)?) else { return Ok(None) };
        let released = Released::load(dir.as_fd())?;
        if offset < released.offset {
            return Err(ReadError::Released { from: released.offset });
        }
        let entry = find_entry(&index, index.metadata()?.len(), offset)?.map_or(0, |(_, position)| position);
        Ok(Some(Self {
            spool,
            position: entry.max(released.position),
            next: offset,
            end: released.offset,
            most_chunk,
            dir,
        }))
    }

    /// The offset of the next byte it will give.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next
    }

    /// Offset one past the last frame met so far, skipped ones included.
    pub(crate) fn seen_end(&self) -> u64 {
        self.end
    }

    /// Offset one past the last whole frame of the execution in `dir`; 0 if it has no spool.
    pub(crate) fn end_offset(dir: OwnedFd) -> Result<u64, ReadError> {
        // From beyond any end: every frame is skipped, and only the last index entry's on are read.
        let Some(mut reader) = Self::open(dir, u64::MAX, 1)? else { return Ok(0) };
        while reader.read(&mut Vec::new())? {}
        Ok(reader.end)
    }

    /// Bytes of file not looked at yet.
    pub(crate) fn unread_bytes(&self) -> Result<u64, ReadError> {
        Ok(self.spool.metadata()?.len().saturating_sub(self.position))
    }

    /// Appends what is there now to `chunks`, reading at most one block from disk. `false`: nothing
    /// more was there. Blocks for the disk.
    pub(crate) fn read(&mut self, chunks: &mut Vec<Chunk>) -> Result<bool, ReadError> {
        let unread = self.unread_bytes()?;
        if unread < HEADER_BYTES as u64 {
            return Ok(false);
        }
        let want = usize::try_from(unread).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let mut block = BytesMut::zeroed(want);
        let mut got = 0;
        while got < want {
            match self.spool.read_at(&mut block[got..], self.position + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        block.truncate(got);
        self.parse(block.freeze(), chunks)
    }

    fn parse(&mut self, block: Bytes, chunks: &mut Vec<Chunk>) -> Result<bool, ReadError> {
        let mut together = Together { most: self.most_chunk, chunk: None };
        let mut at = 0;
        while let Some(raw) = block.get(at..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) {
            let header = match Header::decode(raw) {
                Ok(header) => header,
                Err(problem) => {
                    // What was read before the hole is good; the caller meets the hole next time.
                    if at > 0 {
                        break;
                    }
                    return Err(self.explain(problem)?);
                }
            };
            let body = at + HEADER_BYTES;
            let end = body + header.length as usize;
            if end > block.len() {
                break;
            }
            let skip = self.next.saturating_sub(header.offset);
            if header.offset > self.next {
                return Err(ReadError::Damaged { position: self.position + at as u64 });
            }
            if skip < u64::from(header.length) {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                self.next = header.offset + u64::from(header.length);
                together.add(header, skip, block.slice(body + skip..end), chunks);
            }
            self.end = header.offset + u64::from(header.length);
            at = end;
        }
        together.flush(chunks);
        self.position += at as u64;
        Ok(at > 0)
    }

    fn explain(&self, problem: NotAHeader) -> Result<ReadError, ReadError> {
        let released = Released::load(self.dir.as_fd())?;
        Ok(match problem {
            NotAHeader::Hole if released.position > self.position => ReadError::Released { from: released.offset },
            _ => ReadError::Damaged { position: self.position },
        })
    }
}

/// Joins consecutive small frames of one stream.
struct Together {
    most: usize,
    chunk: Option<(Header, u64, BytesMut)>,
}

impl Together {
    fn add(&mut self, header: Header, skip: usize, data: Bytes, chunks: &mut Vec<Chunk>) {
        let offset = header.offset + skip as u64;
        if data.len() >= COPY_BELOW_BYTES {
            self.flush(chunks);
            let mut rest = data;
            let mut offset = offset;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(self.most));
                let length = piece.len() as u64;
                chunks.push(Chunk { stream: header.stream, offset, time_ms: header.time_ms, data: piece });
                offset += length;
            }
            return;
        }
        let fits = self
            .chunk
            .as_ref()
            .is_some_and(|(first, _, held)| first.stream == header.stream && held.len() + data.len() <= self.most);
        if !fits {
            self.flush(chunks);
        }
        let (_, _, held) = self.chunk.get_or_insert_with(|| (header, offset, BytesMut::new()));
        held.extend_from_slice(&data);
    }

    fn flush(&mut self, chunks: &mut Vec<Chunk>) {
        if let Some((first, offset, held)) = self.chunk.take() {
            // Never more than `most`, also when one small frame alone is larger than that.
            let mut rest = held.freeze();
            let mut offset = offset;
            while !rest.is_empty() {
                let data = rest.split_to(rest.len().min(self.most.max(1)));
                let chunk = Chunk { stream: first.stream, offset, time_ms: first.time_ms, data };
                offset = chunk.end();
                chunks.push(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::writer::SpoolWriter;
    use proptest::prelude::*;

    fn dir_fd(dir: &tempfile::TempDir) -> OwnedFd {
        rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    fn read_all(dir: &tempfile::TempDir, offset: u64, most: usize) -> Result<Vec<Chunk>, ReadError> {
        let mut chunks = Vec::new();
        if let Some(mut reader) = SpoolReader::open(dir_fd(dir), offset, most)? {
            while reader.read(&mut chunks)? {}
        }
        Ok(chunks)
    }

    fn joined(chunks: &[Chunk]) -> Vec<(bool, u8)> {
        chunks.iter().flat_map(|c| c.data.iter().map(|b| (c.stream == OutputStream::Stderr, *b))).collect()
    }

    #[test]
    fn no_spool_is_no_error_and_a_half_frame_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_all(&dir, 0, 100).unwrap().is_empty());
        let mut writer = SpoolWriter::create(dir_fd(&dir), 1 << 20).unwrap();
        writer.append(OutputStream::Stdout, 1, b"whole").unwrap();
        writer.append(OutputStream::Stdout, 2, b"cut off").unwrap();
        let spool = File::options().write(true).open(dir.path().join(SPOOL)).unwrap();
        spool.set_len(spool.metadata().unwrap().len() - 1).unwrap();
        let chunks = read_all(&dir, 0, 100).unwrap();
        assert_eq!(chunks.len(), 1);
        assert_eq!(&chunks[0].data[..], b"whole");
    }

    #[test]
    fn small_frames_of_a_stream_become_one_chunk_large_ones_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::create(dir_fd(&dir), 1 << 30).unwrap();
        for _ in 0..10 {
            writer.append(OutputStream::Stdout, 5, b"0123456789").unwrap();
        }
        writer.append(OutputStream::Stderr, 6, b"e").unwrap();
        writer.append(OutputStream::Stdout, 7, &vec![b'x'; MOST_PAYLOAD_BYTES]).unwrap();
        let chunks = read_all(&dir, 3, 256 * 1024).unwrap();
        let shape: Vec<(u64, usize)> = chunks.iter().map(|c| (c.offset, c.data.len())).collect();
        let quarter = 256 * 1024;
        assert_eq!(shape[..3], [(3, 97), (100, 1), (101, quarter)]);
        assert_eq!(chunks.len(), 6);
        assert_eq!(chunks[0].time_ms, 5);
        assert_eq!(SpoolReader::end_offset(dir_fd(&dir)).unwrap(), 101 + MOST_PAYLOAD_BYTES as u64);
    }

    #[test]
    fn released_output_is_refused_by_name_and_frees_the_disk() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let limit = 4 << 20;
        let mut writer = SpoolWriter::create(dir_fd(&dir), limit).unwrap();
        let frame = vec![7; 64 * 1024];
        let mut frames = 0_u64;
        while writer.room() >= frame.len() {
            writer.append(OutputStream::Stdout, 0, &frame).unwrap();
            frames += 1;
        }
        let mut early = SpoolReader::open(dir_fd(&dir), 0, 1 << 20).unwrap().unwrap();
        let blocks = || std::fs::metadata(dir.path().join(SPOOL)).unwrap().blocks();
        let before = blocks();
        assert!(!writer.release(10).unwrap(), "nothing whole lies before 10");
        let acknowledged = frames * frame.len() as u64 / 2;
        assert!(writer.release(acknowledged).unwrap());
        assert!(blocks() < before);
        assert!(writer.room() > 0);
        let Err(ReadError::Released { from }) = read_all(&dir, 5, 1000) else { panic!("not refused") };
        assert!(from <= acknowledged && from > 0);
        assert!(matches!(early.read(&mut Vec::new()), Err(ReadError::Released { .. })));
        assert_eq!(read_all(&dir, from, 1 << 20).unwrap()[0].offset, from);
        assert_eq!(read_all(&dir, acknowledged + 3, 1 << 20).unwrap()[0].offset, acknowledged + 3);
        assert!(writer.release(u64::MAX).unwrap(), "everything");
        assert_eq!(writer.room(), (limit as usize - HEADER_BYTES).min(MOST_PAYLOAD_BYTES));
        writer.append(OutputStream::Stdout, 0, b"goes on").unwrap();
        assert_eq!(&read_all(&dir, frames * frame.len() as u64, 100).unwrap()[0].data[..], b"goes on");
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::create(dir_fd(&dir), 1 << 20).unwrap();
        writer.append(OutputStream::Stdout, 1, b"abc").unwrap();
        File::options().write(true).open(dir.path().join(SPOOL)).unwrap().write_all_at(b"garbage!", 0).unwrap();
        assert!(matches!(read_all(&dir, 0, 100), Err(ReadError::Damaged { position: 0 })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_reader_gets_every_byte_from_its_offset_once(
            frames in prop::collection::vec((any::<bool>(), 1_usize..30_000), 1..40),
            from in 0_usize..200_000,
            most in 1_usize..50_000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = SpoolWriter::create(dir_fd(&dir), 1 << 20).unwrap();
            let mut written = Vec::new();
            for (n, (err, length)) in frames.iter().enumerate() {
                let stream = if *err { OutputStream::Stderr } else { OutputStream::Stdout };
                let payload: Vec<u8> = (0..*length).map(|i| (i * 31 + n) as u8).collect();
                writer.append(stream, 0, &payload).unwrap();
                written.extend(payload.iter().map(|b| (*err, *b)));
            }
            let from = from.min(written.len());
            let chunks = read_all(&dir, from as u64, most).unwrap();
            prop_assert_eq!(joined(&chunks), written[from..].to_vec());
            let mut next = from as u64;
            for chunk in &chunks {
                prop_assert_eq!(chunk.offset, next);
                prop_assert!(!chunk.data.is_empty() && chunk.data.len() <= most);
                next = chunk.end();
            }
        }
    }
}
