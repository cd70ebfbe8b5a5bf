//! An archive of a directory in an instance.
//!
//! Everything is opened below the directory's descriptor and no link is followed. Names are
//! relative to the directory and in byte order, so equal trees make equal archives. Blocks on its
//! sink, which is how a slow reader slows it.

use motefarm_proto::mote::TarCompression;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// zstd's fast end: on a network the level hardly matters, on this machine's processors it does.
const ZSTD_LEVEL: i32 = 1;
/// Deeper trees are refused rather than run out of descriptors.
const MOST_DEPTH: usize = 400;
/// What GNU tar calls a header that holds the long name of the next one.
const LONG_NAME: &[u8] = b"././@LongLink";

/// Writes the archive of `dir` to `sink`.
pub(crate) fn write(dir: OwnedFd, compression: TarCompression, sink: impl Write) -> io::Result<()> {
    match compression {
        TarCompression::None => archive(dir, sink).map(drop),
        TarCompression::Zstd => archive(dir, zstd::Encoder::new(sink, ZSTD_LEVEL)?)?.finish().map(drop),
        TarCompression::Gzip | TarCompression::Unspecified => {
            archive(dir, flate2::write::GzEncoder::new(sink, flate2::Compression::fast()))?.finish().map(drop)
        }
    }
}

fn archive<W: Write>(dir: OwnedFd, sink: W) -> io::Result<W> {
    let mut builder = tar::Builder::new(sink);
    let mut stack = vec![Level { names: names(dir.as_fd())?.into_iter(), dir, path: PathBuf::new() }];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.next() else {
            stack.pop();
            continue;
        };
        let path = level.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match add(&mut builder, level.dir.as_fd(), &name, &path) {
            Ok(None) => {}
            Ok(Some(below)) if stack.len() < MOST_DEPTH => {
                let names = names(below.as_fd()).map_err(about)?.into_iter();
                stack.push(Level { dir: below, names, path });
            }
            Ok(Some(_)) => return Err(about(io::Error::other(format!("more than {MOST_DEPTH} directories deep")))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(path = %path.display(), "vanished while it was archived");
            }
            Err(error) => return Err(about(error)),
        }
    }
    builder.into_inner()
}

struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<CString>,
    path: PathBuf,
}

fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Adds one entry; answers an opened directory to go into.
fn add<W: Write>(
    builder: &mut tar::Builder<W>,
    dir: BorrowedFd<'_>,
    name: &CStr,
    path: &Path,
) -> io::Result<Option<OwnedFd>> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let below = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let header = header(&stat, tar::EntryType::Directory, 0);
            let with_slash = [path.as_os_str().as_bytes(), b"/"].concat();
            append(builder, header, &with_slash, b"", io::empty())?;
            Ok(Some(below))
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
            let header = header(&stat, tar::EntryType::Symlink, 0);
            append(builder, header, path.as_os_str().as_bytes(), target.to_bytes(), io::empty())?;
            Ok(None)
        }
        FileType::RegularFile => {
            // Not blocking, in case a FIFO has taken its place since.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
            let stat = rustix::fs::fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let header = header(&stat, tar::EntryType::Regular, size);
                let content = Exactly { file, left: size, path };
                append(builder, header, path.as_os_str().as_bytes(), b"", content)?;
            }
            Ok(None)
        }
        other => {
            tracing::debug!(path = %path.display(), kind = ?other, "not archived: neither file, directory nor link");
            Ok(None)
        }
    }
}

/// Appends an entry under names of any bytes and any length. The `tar` crate's own way of doing it
/// refuses long names that begin with bytes that are not UTF-8.
fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    mut header: tar::Header,
    name: &[u8],
    link: &[u8],
    content: impl Read,
) -> io::Result<()> {
    let fields = header.as_old_mut();
    for (field, value, kind) in [
        (&mut fields.linkname, link, tar::EntryType::GNULongLink),
        (&mut fields.name, name, tar::EntryType::GNULongName),
    ] {
        if value.len() > field.len() {
            let mut long = tar::Header::new_gnu();
            long.as_old_mut().name[..LONG_NAME.len()].copy_from_slice(LONG_NAME);
            long.set_entry_type(kind);
            long.set_mode(0o644);
            long.set_uid(0);
            long.set_gid(0);
            long.set_mtime(0);
            long.set_size(value.len() as u64 + 1);
            long.set_cksum();
            builder.append(&long, value.chain(&b"\0"[..]))?;
        }
        let fits = value.len().min(field.len());
        field[..fits].copy_from_slice(&value[..fits]);
    }
    header.set_cksum();
    builder.append(&header, content)
}

fn header(stat: &Stat, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// A file as long as its header says: one that grew is cut, one that shrank is filled with zeros,
/// as tar(1) does it.
struct Exactly<'a> {
    file: File,
    left: u64,
    path: &'a Path,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let mut got = self.file.read(&mut buffer[..most])?;
        if got == 0 {
            tracing::warn!(path = %self.path.display(), missing_bytes = self.left, "shrank while it was archived; filled with zeros");
            buffer[..most].fill(0);
            got = most;
        }
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use motefarm_core::WorkPath;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path().join("d");
        fs::create_dir_all(d.join("sub")).unwrap();
        fs::write(d.join("b"), "bee").unwrap();
        fs::write(d.join("sub/script"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(d.join("sub/script"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("../b", d.join("sub/link")).unwrap();
        symlink("/etc/passwd", d.join("outside")).unwrap();
        fs::write(d.join("n".repeat(150)), "long name").unwrap();
        std::os::unix::net::UnixListener::bind(d.join("socket")).unwrap();
        dir
    }

    fn list(bytes: &[u8]) -> Vec<(String, String)> {
        tar::Archive::new(bytes)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let link = entry.link_name().unwrap().map(|l| l.display().to_string());
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (path, link.unwrap_or(text))
            })
            .collect()
    }

    #[test]
    fn a_tree_is_archived_in_order_with_links_kept_and_sockets_left_out() {
        let dir = tree();
        let open = || files::dir(dir.path(), "dir", &WorkPath::parse("d").unwrap()).unwrap();
        let mut plain = Vec::new();
        write(open(), TarCompression::None, &mut plain).unwrap();
        let long = "n".repeat(150);
        let expected = [
            ("b", "bee"),
            (&long, "long name"),
            ("outside", "/etc/passwd"),
            ("sub/", ""),
            ("sub/link", "../b"),
            ("sub/script", "#!/bin/sh\n"),
        ];
        assert_eq!(list(&plain), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let mode = tar::Archive::new(&plain[..]).entries().unwrap().last().unwrap().unwrap().header().mode().unwrap();
        assert_eq!(mode, 0o750);
        let mut gzip = Vec::new();
        write(open(), TarCompression::Unspecified, &mut gzip).unwrap();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
        let mut zstd_bytes = Vec::new();
        write(open(), TarCompression::Zstd, &mut zstd_bytes).unwrap();
        assert_eq!(zstd::decode_all(&zstd_bytes[..]).unwrap(), plain);
    }

    #[test]
    fn long_names_may_be_any_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = [&[0xff_u8][..], &[b'n'; 99], &[0x80; 100]].concat();
        for length in [100, 101, 200] {
            let name = std::ffi::OsStr::from_bytes(&bytes[..length]);
            fs::write(dir.path().join(name), "x").unwrap();
            symlink(name, dir.path().join(format!("to-{length}"))).unwrap();
        }
        let mut packed = Vec::new();
        let top = files::dir(dir.path(), "dir", &WorkPath::root()).unwrap();
        write(top, TarCompression::None, &mut packed).unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(&packed[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let link = entry.link_name_bytes().map(|link| link.into_owned());
            found.push((entry.path_bytes().into_owned(), link));
        }
        let names = [100, 101, 200].map(|length| bytes[..length].to_vec());
        let links = names.iter().map(|name| (format!("to-{}", name.len()).into_bytes(), Some(name.clone())));
        let expected: Vec<_> = links.chain(names.iter().map(|name| (name.clone(), None))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_shrank_is_filled_and_one_that_grew_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "abcdef").unwrap();
        for (said, expected) in [(9, "abcdef\0\0\0"), (3, "abc")] {
            let file = File::open(dir.path().join("f")).unwrap();
            let mut text = String::new();
            Exactly { file, left: said, path: Path::new("f") }.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }
}
