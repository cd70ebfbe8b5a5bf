//! Archives out of and into a Go agent's work directory.
//!
//! The agent packs what it sends as gzip, of many members, and takes gzip only. It leaves out links without
//! a word and follows those that are there, so what goes in is taken apart and checked entry by entry first.

use super::client::{Client, LONG, encoded};
use super::tar_in::{self, Flow, Problem};
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

/// Writes an archive of the agent's anew, as a buildlet would: who owned a file there means nothing here,
/// and not every reader knows Go's extended headers or gzip of many members.
fn repack(archive: impl Read, compression: TarCompression, sink: impl Write) -> Result<(), Problem> {
    match compression {
        TarCompression::None => repack_plain(archive, sink).map(drop),
        TarCompression::Zstd => {
            let encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
            Ok(repack_plain(archive, encoder)?.finish().map(drop)?)
        }
        TarCompression::Gzip | TarCompression::Unspecified => {
            let encoder = GzEncoder::new(sink, Compression::fast());
            Ok(repack_plain(archive, encoder)?.finish().map(drop)?)
        }
    }
}

fn repack_plain<W: Write>(archive: impl Read, sink: W) -> Result<W, Problem> {
    let mut out = tar::Builder::new(sink);
    tar_in::each(gunzipped(archive), |member| {
        // As a buildlet does, which archives no sockets or pipes.
        if matches!(member.kind, EntryType::Regular | EntryType::Directory | EntryType::Symlink) {
            tar_out::copy(&mut out, member)?;
        }
        Ok(Flow::On)
    })?;
    Ok(out.into_inner()?)
}

fn gunzipped(archive: impl Read) -> impl Read {
    MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, archive))
}

/// The content of the one file that an archive of a file has, under no name.
pub(super) fn single_file(archive: impl Read, path: &str, sink: &mut impl Write) -> Result<(), Problem> {
    let mut found = false;
    tar_in::each(gunzipped(archive), |mut member| {
        found = member.kind == EntryType::Regular && member.name.is_empty();
        if found {
            io::copy(&mut member.content, sink)?;
        }
        Ok(Flow::Stop)
    })?;
    if found { Ok(()) } else { Err(Problem::Archive(format!("{path} is no file any more"))) }
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

/// Writes an archive of its files and directories anew, or says why it is not taken. What came before a bad
/// entry is on its way then.
fn check(archive: impl Read + Send, sink: &mut impl Write) -> Result<PutTarResponse, Problem> {
    let mut out = tar::Builder::new(GzEncoder::new(sink, Compression::fast()));
    let mut done = PutTarResponse::default();
    tar_in::each(tar_in::decompressed(archive)?, |member| {
        let refuse = |problem: &str| member.refused(problem);
        check_name(&member.name).map_err(refuse)?;
        match member.kind {
            EntryType::Directory => done.dirs_made += 1,
            EntryType::Regular => {
                done.files_written += 1;
                done.bytes_written += member.size;
            }
            EntryType::Symlink => {
                return Err(refuse(
                    "it is a symbolic link, which a Go agent does not make (tar -h packs what links name)",
                ));
            }
            EntryType::Link => {
                return Err(refuse(
                    "it is a hard link, which a Go agent does not make (tar --hard-dereference packs files)",
                ));
            }
            _ => return Err(refuse("it is neither a file nor a directory")),
        }
        // The directory unpacked into needs no entry.
        let is_top = member.name.iter().all(|byte| matches!(byte, b'.' | b'/'));
        if !is_top {
            tar_out::copy(&mut out, member)?;
        }
        Ok(Flow::On)
    })?;
    out.into_inner()?.finish()?;
    Ok(done)
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
        for (name, why) in [(&b"../x"[..], "'..'"), (b"a/../../x", "'..'"), (b"a\\..\\x", "'..'"), (b"/x", "absolute")]
        {
            assert!(check_name(name).unwrap_err().contains(why));
        }
        assert!(check_name(b"..a/b..").is_ok());
        assert!(passed(b"").unwrap_err().contains("empty"));
        assert!(passed(&packed(&[("f", EntryType::Regular, "content")])[..600]).is_err(), "cut short");
    }

    #[test]
    fn archives_come_in_one_member_as_asked() {
        let plain = packed(&[("f", EntryType::Regular, "content"), ("link", EntryType::Symlink, "f")]);
        let member = |part: &[u8]| {
            let mut member = GzEncoder::new(Vec::new(), Compression::fast());
            member.write_all(part).unwrap();
            member.finish().unwrap()
        };
        let many = [member(&plain[..600]), member(&plain[600..])].concat();
        let repacked = |compression| {
            let mut out = Vec::new();
            repack(&many[..], compression, &mut out).unwrap();
            out
        };
        let unpacked = repacked(TarCompression::None);
        let mut archive = tar::Archive::new(&unpacked[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), entry.link_name_bytes().is_some(), text)
        });
        let expected = [("f".to_owned(), false, "content".to_owned()), ("link".to_owned(), true, String::new())];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
        let mut one = Vec::new();
        flate2::read::GzDecoder::new(&repacked(TarCompression::Unspecified)[..]).read_to_end(&mut one).unwrap();
        assert!(one == unpacked, "one member");
        assert!(zstd::decode_all(&repacked(TarCompression::Zstd)[..]).unwrap() == unpacked);
        assert!(repack(&many[..many.len() / 2], TarCompression::None, Vec::new()).is_err());
    }
}
