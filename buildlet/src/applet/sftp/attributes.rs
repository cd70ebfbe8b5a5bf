//! What a file is, on the wire: size, owner, mode and times, each there or not.

use super::fields::{Fields, Malformed, Reply};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 1 << 31;
/// Of a mode, what chmod takes.
const MODE_BITS: u32 = 0o7777;

/// See the module.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    size: Option<u64>,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let flags = fields.number()?;
        let has = |flag| flags & flag != 0;
        let read = Self {
            size: if has(SIZE) { Some(fields.long()?) } else { None },
            owner: if has(OWNER) { Some((fields.number()?, fields.number()?)) } else { None },
            mode: if has(MODE) { Some(fields.number()?) } else { None },
            times: if has(TIMES) { Some((fields.number()?, fields.number()?)) } else { None },
        };
        if has(EXTENDED) {
            for _ in 0..fields.number()? {
                fields.bytes()?;
                fields.bytes()?;
            }
        }
        Ok(read)
    }

    /// The mode for a file that is to be made.
    pub(super) fn mode_or(&self, usual: u32) -> u32 {
        self.mode.map_or(usual, |mode| mode & MODE_BITS)
    }

    /// Gives an open file what is there.
    pub(super) fn set_on_file(&self, file: &File) -> io::Result<()> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        if let Some(mode) = self.mode {
            file.set_permissions(Permissions::from_mode(mode & MODE_BITS))?;
        }
        if let Some(times) = self.times {
            rustix::fs::futimens(file, &timestamps(times))?;
        }
        match self.owner {
            Some((user, group)) => std::os::unix::fs::fchown(file, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Gives what is at a path what is there.
    pub(super) fn set_on_path(&self, path: &Path) -> io::Result<()> {
        if let Some(size) = self.size {
            File::options().write(true).open(path)?.set_len(size)?;
        }
        if let Some(mode) = self.mode {
            std::fs::set_permissions(path, Permissions::from_mode(mode & MODE_BITS))?;
        }
        if let Some(times) = self.times {
            rustix::fs::utimensat(CWD, path, &timestamps(times), AtFlags::empty())?;
        }
        match self.owner {
            Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Gives a link itself what links have: times and owner.
    pub(super) fn set_on_link(&self, path: &Path) -> io::Result<()> {
        if let Some(times) = self.times {
            rustix::fs::utimensat(CWD, path, &timestamps(times), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        match self.owner {
            Some((user, group)) => std::os::unix::fs::lchown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }
}

fn timestamps((accessed, modified): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Timestamps { last_access: at(accessed), last_modification: at(modified) }
}

/// Writes all that is known of a file.
pub(super) fn write(reply: &mut Reply<'_>, meta: &Metadata) {
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    reply.number(SIZE | OWNER | MODE | TIMES).long(meta.len()).number(meta.uid()).number(meta.gid());
    reply.number(meta.mode()).number(seconds(meta.atime())).number(seconds(meta.mtime()));
}

/// Writes that nothing is known.
pub(super) fn write_none(reply: &mut Reply<'_>) {
    reply.number(0);
}
