//! The members of a tar that comes from anybody, with what extends their headers. Blocking.
//!
//! The `tar` crate's own way of it takes names of any length into memory, so here it reads headers as they
//! are and this reads what they mean.

use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Read};
use tar::{Entry, EntryType};

/// Read at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// The largest window a zstd frame may ask for: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Longest name or set of PAX records that extends an entry.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest name that is shown.
const SHOWN: usize = 200;

/// Why an archive was not passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// It is the archive's fault.
    #[error("{0}")]
    Archive(String),
    /// It could not be written on.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether there is interest in the next member.
pub(super) enum Flow {
    On,
    Stop,
}

/// One of an archive's.
pub(super) struct Member<'a, R: Read> {
    pub(super) name: Vec<u8>,
    /// [`EntryType::Regular`] or [`EntryType::Directory`] for all that is one.
    pub(super) kind: EntryType,
    /// Where a link leads.
    pub(super) target: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) modified_s: u64,
    pub(super) size: u64,
    pub(super) content: Entry<'a, R>,
}

impl<R: Read> Member<'_, R> {
    /// That it is not taken, for `problem`.
    pub(super) fn refused(&self, problem: &str) -> Problem {
        let shown: String = String::from_utf8_lossy(&self.name).chars().take(SHOWN).collect();
        Problem::Archive(format!("entry {shown:?} is refused: {problem}"))
    }
}

/// What headers of their own said of the next entry.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// A failed read of the archive.
fn unreadable(error: io::Error) -> Problem {
    Problem::Archive(format!("the archive can not be read: {error}"))
}

/// Hands every member of a plain tar to `take`.
pub(super) fn each<R: Read>(
    archive: R,
    mut take: impl FnMut(Member<'_, R>) -> Result<Flow, Problem>,
) -> Result<(), Problem> {
    let mut archive = tar::Archive::new(archive);
    let mut extension = Extension::default();
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extension.name = Some(long(&mut entry)?),
            EntryType::GNULongLink => extension.target = Some(long(&mut entry)?),
            EntryType::XHeader => read_pax(&payload(&mut entry)?, &mut extension)?,
            EntryType::XGlobalHeader => {}
            kind => {
                if let Flow::Stop = take(member(entry, kind, std::mem::take(&mut extension))?)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn member<R: Read>(entry: Entry<'_, R>, kind: EntryType, extension: Extension) -> Result<Member<'_, R>, Problem> {
    let name = extension.name.unwrap_or_else(|| entry.path_bytes().into_owned());
    let kind = match kind {
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => EntryType::Directory,
        EntryType::Continuous => EntryType::Regular,
        other => other,
    };
    let target = extension.target.or_else(|| entry.link_name_bytes().map(|target| target.into_owned()));
    let member = Member {
        name,
        kind,
        target: target.unwrap_or_default(),
        mode: entry.header().mode().map_err(unreadable)? & 0o777,
        modified_s: entry.header().mtime().unwrap_or(0),
        size: entry.size(),
        content: entry,
    };
    match extension.size {
        Some(size) if size != member.size => Err(member.refused("its size does not fit an ordinary header")),
        _ => Ok(member),
    }
}

/// An archive without its compression, which is told by its first bytes.
pub(super) fn decompressed<'a>(mut archive: impl Read + Send + 'a) -> Result<Box<dyn Read + 'a>, Problem> {
    let mut magic = Vec::new();
    archive.by_ref().take(4).read_to_end(&mut magic).map_err(unreadable)?;
    let all = io::Cursor::new(magic.clone()).chain(archive);
    Ok(match magic.as_slice() {
        [] => return Err(Problem::Archive("the archive is empty: no bytes came".to_owned())),
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, all))),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut decoder = zstd::Decoder::new(all).map_err(unreadable)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(unreadable)?;
            Box::new(decoder)
        }
        _ => Box::new(all),
    })
}

fn payload(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, Problem> {
    if entry.size() > MAX_EXTENSION {
        return Err(Problem::Archive(format!("the archive has a header of {} bytes", entry.size())));
    }
    let mut payload = Vec::new();
    entry.read_to_end(&mut payload).map_err(unreadable)?;
    Ok(payload)
}

fn long(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, Problem> {
    let mut name = payload(entry)?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(name)
}

fn read_pax(records: &[u8], extension: &mut Extension) -> Result<(), Problem> {
    for record in tar::PaxExtensions::new(records) {
        let record = record.map_err(unreadable)?;
        match record.key_bytes() {
            b"path" => extension.name = Some(record.value_bytes().to_vec()),
            b"linkpath" => extension.target = Some(record.value_bytes().to_vec()),
            b"size" => {
                let size = record.value().ok().and_then(|size| size.parse().ok());
                extension.size = Some(size.ok_or_else(|| Problem::Archive("a PAX size is no number".to_owned()))?);
            }
            key if key.starts_with(b"GNU.sparse") => {
                return Err(Problem::Archive("a file is stored as sparse; pack it without --sparse".to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        each(archive, |mut member| {
            let mut content = Vec::new();
            member.content.read_to_end(&mut content)?;
            found.push((text(&member.name), text(if content.is_empty() { &member.target } else { &content })));
            Ok(Flow::On)
        })
        .map_err(|problem| problem.to_string())?;
        Ok(found)
    }

    fn entry(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &str) {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }

    #[test]
    fn names_come_from_wherever_they_are_said() {
        let mut archive = tar::Builder::new(Vec::new());
        let long = "p".repeat(300);
        archive.append_pax_extensions([("path", long.as_bytes()), ("mtime", b"1.5")]).unwrap();
        entry(&mut archive, "short", "hi");
        entry(&mut archive, "next", "there");
        archive.append_pax_extensions([("linkpath", &b"far/away"[..])]).unwrap();
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        archive.append_link(&mut link, "link", "cut").unwrap();
        let expected = [(long.as_str(), "hi"), ("next", "there"), ("link", "far/away")];
        assert_eq!(names(&archive.into_inner().unwrap()).unwrap(), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn what_extends_a_header_is_bounded_and_sizes_do_not_lie() {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_pax_extensions([("path", &vec![b'p'; 2 << 20][..])]).unwrap();
        entry(&mut archive, "short", "hi");
        assert!(names(&archive.into_inner().unwrap()).unwrap_err().contains("a header of"));
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_pax_extensions([("size", &b"9"[..])]).unwrap();
        entry(&mut archive, "short", "hi");
        assert!(names(&archive.into_inner().unwrap()).unwrap_err().contains("its size"));
    }
}
