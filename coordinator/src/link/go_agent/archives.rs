//! Archives out of and into a Go agent's work directory.
//!
//! The agent packs what it sends as gzip, of many members, and takes gzip only. It leaves out links without
//! a word and follows those that are there, so what goes in is taken apart and checked entry by entry first.

use super::client::{Client, LONG, encoded};
use super::{blocking, refused, tar_out};
use crate::link::{LinkError, LinkStream, Pieces};
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use motefarm_proto::mote::{PutTarResponse, TarChunk, TarCompression};
use std::io::{self, BufReader, Read, Write};
use tar::EntryType;
use tonic::Status;

/// Read at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// zstd's fast end, as the buildlet has it.
const ZSTD_LEVEL: i32 = 1;
/// The largest window a zstd frame may ask for: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Longest name or set of PAX records that extends an entry.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest name.
const MAX_NAME: usize = 4096;

/// Streams an archive of a directory, packed as asked.
pub(super) async fn get(
    client: &Client,
    dir: &str,
    compression: TarCompression,
) -> Result<LinkStream<TarChunk>, LinkError> {
    let dir = if dir.is_empty() { "." } else { dir };
    // The agent would break off without a word if it is not there.
    let query = encoded([("dir", dir.as_bytes())]);
    drop(client.get(&format!("/ls?{query}"), LONG).await?);
    let answer = client.get(&format!("/tgz?{query}"), LONG).await?;
    let pieces = answer.pieces().map(|piece| piece.map_err(io::Error::other)).boxed();
    let reader = blocking::reader(pieces);
    let (packed, _) = blocking::write(move |sink| repack(reader, compression, sink));
    let chunk = |piece: io::Result<_>| match piece {
        Ok(data) => Ok(TarChunk { data }),
        Err(error) => Err(LinkError::Lost(error.to_string())),
    };
    Ok(packed.map(chunk).boxed())
}

fn repack(archive: impl Read, compression: TarCompression, mut sink: impl Write) -> io::Result<()> {
    let mut plain = MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, archive));
    match compression {
        TarCompression::None => io::copy(&mut plain, &mut sink).map(drop),
        TarCompression::Zstd => {
            let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
            io::copy(&mut plain, &mut encoder)?;
            encoder.finish().map(drop)
        }
        // One member: not every reader knows that there may be more.
        TarCompression::Gzip | TarCompression::Unspecified => {
            let mut encoder = GzEncoder::new(sink, Compression::fast());
            io::copy(&mut plain, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}

/// The content of the one file that an archive of a file has, under no name.
pub(super) fn single_file(archive: impl Read, path: &str, sink: &mut impl Write) -> io::Result<()> {
    let plain = MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, archive));
    let mut archive = tar::Archive::new(plain);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            continue;
        }
        if !kind.is_file() {
            break;
        }
        io::copy(&mut entry, sink)?;
        return Ok(());
    }
    Err(io::Error::other(format!("{path} is no file any more")))
}

/// Unpacks an archive into a directory.
pub(super) async fn put(client: &Client, dir: &str, archive: Pieces) -> Result<PutTarResponse, LinkError> {
    let reader = blocking::reader(archive.map(Ok).boxed());
    let (checked, checking) = blocking::write(move |sink| check(reader, sink));
    let sent = client.put(&format!("/writetgz?{}", encoded([("dir", dir.as_bytes())])), checked).await;
    match (checking.await, sent) {
        (Ok(Err(Problem::Archive(problem))), _) => Err(refused(Status::invalid_argument(problem))),
        (Ok(Err(Problem::Io(error))), Ok(())) => Err(LinkError::Lost(error.to_string())),
        (Ok(Err(Problem::Io(_))), Err(error)) => Err(error),
        (Ok(Ok(done)), sent) => sent.map(|()| done),
        (Err(panic), _) => Err(refused(Status::internal(panic.to_string()))),
    }
}

/// Why an archive was not passed on.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// It is the archive's fault.
    #[error("{0}")]
    Archive(String),
    /// Nobody read on.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A failed read of the archive.
fn unreadable(error: io::Error) -> Problem {
    Problem::Archive(format!("the archive can not be read: {error}"))
}

/// What headers of their own said of the next entry.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Writes an archive of its files and directories anew, or says why it is not taken. What came before a bad
/// entry is on its way then.
fn check(archive: impl Read + Send, sink: &mut impl Write) -> Result<PutTarResponse, Problem> {
    let plain = decompressed(archive)?;
    let mut archive = tar::Archive::new(plain);
    let mut out = tar::Builder::new(GzEncoder::new(sink, Compression::fast()));
    let mut done = PutTarResponse::default();
    let mut extension = Extension::default();
    // Raw: the crate would take in a long name of any length.
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            let mut name = content(&mut entry)?;
            name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
            if kind.is_gnu_longname() {
                extension.name = Some(name);
            }
            continue;
        }
        if kind.is_pax_local_extensions() {
            read_pax(&content(&mut entry)?, &mut extension)?;
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let Extension { name, size } = std::mem::take(&mut extension);
        let name = name.unwrap_or_else(|| entry.path_bytes().into_owned());
        let refuse = |problem: &str| {
            let shown: String = String::from_utf8_lossy(&name).chars().take(200).collect();
            Problem::Archive(format!("entry {shown:?} is refused: {problem}"))
        };
        check_name(&name).map_err(refuse)?;
        if size.is_some_and(|size| size != entry.size()) {
            return Err(refuse("its size does not fit an ordinary header"));
        }
        let mode = entry.header().mode().map_err(unreadable)?;
        let seconds = entry.header().mtime().unwrap_or(0);
        let is_dir = kind == EntryType::Directory || (kind.is_file() && name.ends_with(b"/"));
        if is_dir {
            done.dirs_made += 1;
            if name.iter().any(|byte| !matches!(byte, b'.' | b'/')) {
                tar_out::append(&mut out, &name, EntryType::Directory, mode, seconds, 0, io::empty())?;
            }
            continue;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink => {
                return Err(refuse("it is a symbolic link, which a Go agent does not make (tar -h packs what links name)"));
            }
            EntryType::Link => {
                return Err(refuse("it is a hard link, which a Go agent does not make (tar --hard-dereference packs files)"));
            }
            _ => return Err(refuse("it is neither a file nor a directory")),
        }
        let size = entry.size();
        tar_out::append(&mut out, &name, EntryType::Regular, mode, seconds, size, &mut entry)?;
        done.files_written += 1;
        done.bytes_written += size;
    }
    out.into_inner()?.finish()?;
    Ok(done)
}

fn decompressed<'a>(mut archive: impl Read + Send + 'a) -> Result<Box<dyn Read + 'a>, Problem> {
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

fn content(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, Problem> {
    if entry.size() > MAX_EXTENSION {
        return Err(Problem::Archive(format!("the archive has a header of {} bytes", entry.size())));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

fn read_pax(records: &[u8], extension: &mut Extension) -> Result<(), Problem> {
    for record in tar::PaxExtensions::new(records) {
        let record = record.map_err(unreadable)?;
        match record.key_bytes() {
            b"path" => extension.name = Some(record.value_bytes().to_vec()),
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

/// Whether a name stays below the directory that is unpacked into.
fn check_name(name: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("its name is empty or too long");
    }
    if name[0] == b'/' {
        return Err("its name is absolute");
    }
    if name.contains(&0) {
        return Err("its name holds a NUL byte");
    }
    // Backslashes part names where the agent may run.
    if name.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part == b"..") {
        return Err("its name has '..' in it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o750);
            header.set_mtime(1_700_000_000);
            if kind.is_file() {
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, name, content.as_bytes()).unwrap();
            } else if kind.is_dir() {
                header.set_size(0);
                archive.append_data(&mut header, name, io::empty()).unwrap();
            } else {
                header.set_size(0);
                archive.append_link(&mut header, name, content).unwrap();
            }
        }
        archive.into_inner().unwrap()
    }

    fn passed(archive: &[u8]) -> Result<(Vec<(String, String)>, PutTarResponse), String> {
        let mut out = Vec::new();
        let done = check(archive, &mut out).map_err(|problem| problem.to_string())?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&out[..]));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        Ok((entries.collect(), done))
    }

    #[test]
    fn files_and_directories_pass_however_they_are_packed() {
        let long = format!("d/{}", "n".repeat(180));
        let plain = packed(&[
            ("d/", EntryType::Directory, ""),
            ("d/f", EntryType::Regular, "hi"),
            (&long, EntryType::Regular, "long"),
        ]);
        let mut gzip = Vec::new();
        for part in plain.chunks(700) {
            let mut member = GzEncoder::new(Vec::new(), Compression::fast());
            member.write_all(part).unwrap();
            gzip.extend(member.finish().unwrap());
        }
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for archive in [plain, gzip, zstd] {
            let (entries, done) = passed(&archive).unwrap();
            let expected = [("d/", ""), ("d/f", "hi"), (&long, "long")];
            assert_eq!(entries, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
            assert_eq!((done.files_written, done.bytes_written, done.dirs_made), (2, 6, 1));
        }
    }

    #[test]
    fn what_the_agent_would_leave_out_or_not_confine_is_refused_by_name() {
        let refused = |entries: &[(&str, EntryType, &str)], why: &str| {
            let problem = passed(&packed(entries)).unwrap_err();
            assert!(problem.contains(entries[0].0) && problem.contains(why), "{problem}");
        };
        refused(&[("link", EntryType::Symlink, "target")], "symbolic link");
        refused(&[("hard", EntryType::Link, "target")], "hard link");
        refused(&[("pipe", EntryType::Fifo, "x")], "neither");
        for (name, why) in [(&b"../x"[..], "'..'"), (b"a/../../x", "'..'"), (b"a\\..\\x", "'..'"), (b"/x", "absolute")] {
            assert!(check_name(name).unwrap_err().contains(why));
        }
        assert!(check_name(b"..a/b..").is_ok());
        assert!(passed(b"").unwrap_err().contains("empty"));
        assert!(passed(&packed(&[("f", EntryType::Regular, "content")])[..600]).is_err(), "cut short");
    }

    #[test]
    fn archives_come_in_one_member_as_asked() {
        let plain = packed(&[("f", EntryType::Regular, "content")]);
        let member = |part: &[u8]| {
            let mut member = GzEncoder::new(Vec::new(), Compression::fast());
            member.write_all(part).unwrap();
            member.finish().unwrap()
        };
        let many = [member(&plain[..100]), member(&plain[100..])].concat();
        let repacked = |compression| {
            let mut out = Vec::new();
            repack(&many[..], compression, &mut out).unwrap();
            out
        };
        assert_eq!(repacked(TarCompression::None), plain);
        let mut one = Vec::new();
        flate2::read::GzDecoder::new(&repacked(TarCompression::Unspecified)[..]).read_to_end(&mut one).unwrap();
        assert_eq!(one, plain);
        assert_eq!(zstd::decode_all(&repacked(TarCompression::Zstd)[..]).unwrap(), plain);
        assert!(repack(&many[..many.len() - 3], TarCompression::None, Vec::new()).is_err());
    }
}
