//! Every request and its answer.

use super::attributes::{self, Attributes};
use super::fields::{Fields, Malformed, Reply};
use super::{MOST_CONTENT_BYTES, MOST_PACKET_BYTES, listing};
use std::ffi::OsStr;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const VERSION: u32 = 3;
/// Open files and directories at once; less than what the system allows a process.
const MOST_HANDLES: usize = 512;
/// Names in one answer.
const MOST_NAMES: u32 = 256;
/// An answer with names is full beyond this: one more entry still fits a packet.
const FULL: usize = MOST_PACKET_BYTES - 16 * 1024;

/// Types of packets.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED: u8 = 200;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

/// Codes of `STATUS`.
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const EOF: u32 = 1;
    pub(super) const NO_SUCH_FILE: u32 = 2;
    pub(super) const PERMISSION_DENIED: u32 = 3;
    pub(super) const FAILURE: u32 = 4;
    pub(super) const BAD_MESSAGE: u32 = 5;
    pub(super) const UNSUPPORTED: u32 = 8;
}

/// Extensions, with the versions OpenSSH gives them.
const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Why a request is answered with a status other than OK.
enum Refusal {
    Malformed,
    End,
    Unsupported,
    Failed(io::Error),
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Refusal {
    fn status(&self) -> (u32, String) {
        match self {
            Self::Malformed => (code::BAD_MESSAGE, "the request is malformed".to_owned()),
            Self::End => (code::EOF, "end of file".to_owned()),
            Self::Unsupported => (code::UNSUPPORTED, "not supported here".to_owned()),
            Self::Failed(error) => {
                let code = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => code::NO_SUCH_FILE,
                    io::ErrorKind::PermissionDenied => code::PERMISSION_DENIED,
                    _ => code::FAILURE,
                };
                (code, error.to_string())
            }
        }
    }
}

fn failed<T>(kind: io::ErrorKind, problem: &str) -> Result<T, Refusal> {
    Err(io::Error::new(kind, problem.to_owned()).into())
}

enum Open {
    File(File),
    Dir { path: PathBuf, entries: ReadDir },
}

/// The state of one client: what it has open.
#[derive(Default)]
pub(super) struct Server {
    open: Vec<Option<Open>>,
}

impl Server {
    /// Answers a request, whatever it holds.
    pub(super) fn answer(&mut self, mut fields: Fields<'_>, reply: &mut Reply<'_>) {
        let Ok(kind) = fields.byte() else { return };
        if kind == kind::INIT {
            reply.begin(kind::VERSION).number(VERSION);
            for (name, version) in EXTENSIONS {
                reply.bytes(name.as_bytes()).bytes(version.as_bytes());
            }
            return reply.end();
        }
        // Without an id nobody could be answered; 0 is what others answer then.
        let id = fields.number();
        let answered = match id {
            Ok(id) => self.answer_one(kind, id, &mut fields, reply),
            Err(malformed) => Err(malformed.into()),
        };
        if let Err(refusal) = answered {
            let (code, text) = refusal.status();
            status(reply, id.unwrap_or(0), code, &text);
        }
        reply.end();
    }

    fn answer_one(&mut self, kind: u8, id: u32, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        match kind {
            kind::READ => return self.read(id, fields, reply),
            kind::WRITE => {
                let file = self.file(fields.bytes()?)?;
                let (offset, data) = (fields.long()?, fields.bytes()?);
                file.write_all_at(data, offset)?;
            }
            kind::OPEN => {
                let (path, flags, attributes) = (path(fields)?, fields.number()?, Attributes::read(fields)?);
                let file = open_file(&path, flags, attributes.mode_or(0o666))?;
                return self.give_handle(id, Open::File(file), reply);
            }
            kind::CLOSE => {
                let at = self.position(fields.bytes()?)?;
                self.open[at] = None;
            }
            kind::LSTAT => return attributes_of(id, &fs::symlink_metadata(path(fields)?)?, reply),
            kind::STAT => return attributes_of(id, &fs::metadata(path(fields)?)?, reply),
            kind::FSTAT => return attributes_of(id, &self.file(fields.bytes()?)?.metadata()?, reply),
            kind::SETSTAT => {
                let path = path(fields)?;
                Attributes::read(fields)?.set_on_path(&path)?;
            }
            kind::FSETSTAT => {
                let file = self.file(fields.bytes()?)?;
                Attributes::read(fields)?.set_on_file(file)?;
            }
            kind::OPENDIR => {
                let path = path(fields)?;
                let entries = fs::read_dir(&path)?;
                return self.give_handle(id, Open::Dir { path, entries }, reply);
            }
            kind::READDIR => return self.read_dir(id, fields, reply),
            kind::REMOVE => fs::remove_file(path(fields)?)?,
            kind::MKDIR => {
                let path = path(fields)?;
                let mode = Attributes::read(fields)?.mode_or(0o777);
                fs::DirBuilder::new().mode(mode).create(path)?;
            }
            kind::RMDIR => fs::remove_dir(path(fields)?)?,
            kind::REALPATH => return one_name(id, &real_path(&path(fields)?)?, reply),
            kind::READLINK => return one_name(id, &fs::read_link(path(fields)?)?, reply),
            kind::RENAME => rename_to_nothing(&path(fields)?, &path(fields)?)?,
            // OpenSSH has them in this order, whatever the draft says.
            kind::SYMLINK => {
                let (target, link) = (path(fields)?, path(fields)?);
                std::os::unix::fs::symlink(target, link)?;
            }
            kind::EXTENDED => return self.extended(id, fields, reply),
            _ => return Err(Refusal::Unsupported),
        }
        status(reply, id, code::OK, "");
        Ok(())
    }

    fn extended(&mut self, id: u32, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        match fields.bytes()? {
            b"posix-rename@openssh.com" => fs::rename(path(fields)?, path(fields)?)?,
            b"hardlink@openssh.com" => fs::hard_link(path(fields)?, path(fields)?)?,
            b"fsync@openssh.com" => self.file(fields.bytes()?)?.sync_all()?,
            b"lsetstat@openssh.com" => {
                let path = path(fields)?;
                Attributes::read(fields)?.set_on_link(&path)?;
            }
            b"statvfs@openssh.com" => {
                let found = rustix::fs::statvfs(path(fields)?).map_err(io::Error::from)?;
                return space(id, &found, reply);
            }
            b"fstatvfs@openssh.com" => {
                let found = rustix::fs::fstatvfs(self.file(fields.bytes()?)?).map_err(io::Error::from)?;
                return space(id, &found, reply);
            }
            b"limits@openssh.com" => {
                let long = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
                reply.begin(kind::EXTENDED_REPLY).number(id).long(long(MOST_PACKET_BYTES));
                reply.long(long(MOST_CONTENT_BYTES)).long(long(MOST_CONTENT_BYTES)).long(long(MOST_HANDLES));
                return Ok(());
            }
            b"expand-path@openssh.com" => return one_name(id, &real_path(&expand(path(fields)?)?)?, reply),
            _ => return Err(Refusal::Unsupported),
        }
        status(reply, id, code::OK, "");
        Ok(())
    }

    fn read(&mut self, id: u32, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let file = self.file(fields.bytes()?)?;
        let (offset, wanted) = (fields.long()?, usize::try_from(fields.number()?).unwrap_or(usize::MAX));
        reply.begin(kind::DATA).number(id);
        match reply.filled(wanted.min(MOST_CONTENT_BYTES), |place| file.read_at(place, offset))? {
            0 if wanted > 0 => Err(Refusal::End),
            _ => Ok(()),
        }
    }

    fn read_dir(&mut self, id: u32, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let at = self.position(fields.bytes()?)?;
        let Some(Open::Dir { path, entries }) = &mut self.open[at] else {
            return failed(io::ErrorKind::InvalidInput, "the handle is not a directory's");
        };
        reply.begin(kind::NAME).number(id);
        let count_at = reply.len();
        reply.number(0);
        let mut count = 0;
        while count < MOST_NAMES && reply.len() < FULL {
            let Some(entry) = entries.next() else { break };
            let name = entry?.file_name();
            // What vanished meanwhile is not there.
            let Ok(meta) = fs::symlink_metadata(path.join(&name)) else { continue };
            reply.bytes(name.as_bytes()).bytes(&listing::line(name.as_bytes(), &meta));
            attributes::write(reply, &meta);
            count += 1;
        }
        if count == 0 {
            return Err(Refusal::End);
        }
        reply.set_number(count_at, count);
        Ok(())
    }

    fn give_handle(&mut self, id: u32, open: Open, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let at = match self.open.iter().position(Option::is_none) {
            Some(at) => at,
            None if self.open.len() >= MOST_HANDLES => {
                return failed(io::ErrorKind::QuotaExceeded, "too many files are open");
            }
            None => {
                self.open.push(None);
                self.open.len() - 1
            }
        };
        self.open[at] = Some(open);
        reply.begin(kind::HANDLE).number(id).bytes(&u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes());
        Ok(())
    }

    fn position(&self, handle: &[u8]) -> Result<usize, Refusal> {
        let at = <[u8; 4]>::try_from(handle).ok().and_then(|at| usize::try_from(u32::from_be_bytes(at)).ok());
        match at.filter(|at| self.open.get(*at).is_some_and(Option::is_some)) {
            Some(at) => Ok(at),
            None => failed(io::ErrorKind::InvalidInput, "there is no such handle"),
        }
    }

    fn file(&self, handle: &[u8]) -> Result<&File, Refusal> {
        match &self.open[self.position(handle)?] {
            Some(Open::File(file)) => Ok(file),
            _ => failed(io::ErrorKind::InvalidInput, "the handle is not a file's"),
        }
    }
}

fn status(reply: &mut Reply<'_>, id: u32, code: u32, text: &str) {
    reply.begin(kind::STATUS).number(id).number(code).bytes(text.as_bytes()).bytes(b"en");
}

fn attributes_of(id: u32, meta: &fs::Metadata, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    attributes::write(reply.begin(kind::ATTRS).number(id), meta);
    Ok(())
}

fn one_name(id: u32, path: &Path, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    let name = path.as_os_str().as_bytes();
    reply.begin(kind::NAME).number(id).number(1).bytes(name).bytes(name);
    attributes::write_none(reply);
    Ok(())
}

fn space(id: u32, found: &rustix::fs::StatVfs, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    /// Bits of the flags, on the wire.
    const READ_ONLY: u64 = 1;
    const NO_SET_USER: u64 = 2;
    let has = |flag, bit| if found.f_flag.contains(flag) { bit } else { 0 };
    let flags =
        has(rustix::fs::StatVfsMountFlags::RDONLY, READ_ONLY) | has(rustix::fs::StatVfsMountFlags::NOSUID, NO_SET_USER);
    reply.begin(kind::EXTENDED_REPLY).number(id).long(found.f_bsize).long(found.f_frsize);
    reply.long(found.f_blocks).long(found.f_bfree).long(found.f_bavail);
    reply.long(found.f_files).long(found.f_ffree).long(found.f_favail);
    reply.long(found.f_fsid).long(flags).long(found.f_namemax);
    Ok(())
}

fn path(fields: &mut Fields<'_>) -> Result<PathBuf, Malformed> {
    match fields.bytes()? {
        b"" => Ok(PathBuf::from(".")),
        name => Ok(PathBuf::from(OsStr::from_bytes(name))),
    }
}

fn open_file(path: &Path, flags: u32, mode: u32) -> io::Result<File> {
    let has = |flag: u32| flags & flag != 0;
    let (write, append, create, truncate, exclusive) = (has(2), has(4), has(8), has(16), has(32));
    let mut options = File::options();
    // Content comes with offsets: "append" only says that nothing there is to go.
    options.read(has(1)).write(write || append).mode(mode);
    options.create(create).create_new(create && exclusive).truncate(truncate && (write || append));
    options.open(path)
}

/// A path without links and dots, whose last part need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        found => found,
    }
}

/// A path with `~` for the home directory.
fn expand(path: PathBuf) -> io::Result<PathBuf> {
    let Ok(rest) = path.strip_prefix("~") else {
        return match path.as_os_str().as_bytes() {
            [b'~', ..] => Err(io::Error::new(io::ErrorKind::NotFound, "there is no other user here")),
            _ => Ok(path),
        };
    };
    let home = std::env::var_os("HOME").ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no home"))?;
    Ok(Path::new(&home).join(rest))
}

/// Renames, but over nothing: version 3 has it so. A link first, for then nobody's file is lost in a
/// race; directories have no links, and renaming over one works only if it is empty.
fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        if fs::symlink_metadata(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        return fs::rename(from, to);
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}
