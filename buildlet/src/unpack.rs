//! An archive unpacked into a directory.
//!
//! The archive comes from anybody and the directory belongs to anybody. Nothing is written outside
//! it: names are checked as text, opened part by part below the directory's descriptor, and no link
//! is followed, be it the archive's or one that was there. What an honest archive has no need of is
//! refused with the entry named; what came before that entry stays. Each file is old or new, never
//! torn. Blocks on its reader.
//!
//! **Absent on purpose:** instances, where the archive comes from.

mod error;
mod input;
mod limits;
mod members;
mod names;
mod pax;
mod write;

pub(crate) use error::UnpackError;
pub(crate) use limits::UnpackLimits;

use crate::staging::Staging;
use input::Input;
use members::{Kind, Members};
use motefarm_core::Timestamp;
use names::{Clash, DirMeta, NodeKind};
use std::io::Read;
use std::os::fd::OwnedFd;
use write::Writer;

/// What unpacking did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) dirs: u64,
    pub(crate) links: u64,
}

/// Unpacks `archive` into `dir`. Files are staged in `staging`, on the same file system. Nothing
/// gets a modification time after `now`.
pub(crate) fn unpack(
    archive: impl Read,
    dir: OwnedFd,
    staging: &Staging,
    limits: UnpackLimits,
    now: Timestamp,
) -> Result<Unpacked, UnpackError> {
    let mut members = Members::new(Input::open(archive, limits)?);
    let mut writer = Writer::new(dir, staging, limits.entries, now);
    let mut count = 0;
    let mut last_name = Vec::new();
    while let Some(member) = members.next().map_err(|error| write::about("after entry", &last_name, error))? {
        let refuse = |problem: String| UnpackError::entry(&member.name, problem);
        count += 1;
        if count > limits.entries {
            return Err(clash(&member.name)(Clash::Bound(format!("more than {} entries", limits.entries))));
        }
        let parts = names::parts(&member.name).map_err(refuse)?;
        let (last, above) = match parts.split_last() {
            Some((last, above)) => (*last, above),
            // The directory itself, as in `tar c .`: it is there, and is its owner's.
            None if matches!(member.kind, Kind::Directory) => {
                last_name = member.name;
                continue;
            }
            None => return Err(refuse("it would take the place of the directory unpacked into".to_owned())),
        };
        let parent = writer.directories(above, &member.name)?;
        match &member.kind {
            Kind::Directory => {
                let id = writer.directories(&parts, &member.name)?;
                writer.names.set_meta(id, DirMeta { mode: member.mode, modified: member.modified });
            }
            Kind::File(size) => {
                if member.name.ends_with(b"/") {
                    return Err(refuse("its name is a directory's and it is a file".to_owned()));
                }
                if *size > limits.bytes {
                    let problem = format!("{size} bytes; an archive unpacks to {} at most", limits.bytes);
                    return Err(clash(&member.name)(Clash::Bound(problem)));
                }
                writer.names.add(parent, last, NodeKind::File).map_err(clash(&member.name))?;
                writer.file(&member, last, *size, &mut members)?;
            }
            Kind::Symlink(target) => {
                names::check_target(&parts, target).map_err(refuse)?;
                writer.names.add(parent, last, NodeKind::Link).map_err(clash(&member.name))?;
                writer.symlink(&member, last, target)?;
            }
            Kind::HardLink(target) => {
                let target_parts =
                    names::parts(target).map_err(|why| refuse(format!("the target of the link: {why}")))?;
                if writer.names.find(&target_parts) != Some(NodeKind::File) {
                    return Err(refuse(format!(
                        "it is a link to {:?}, no earlier file of the archive",
                        error::shown(target)
                    )));
                }
                writer.names.add(parent, last, NodeKind::File).map_err(clash(&member.name))?;
                writer.hard_link(&member, above, last, &target_parts)?;
            }
        }
        last_name = member.name;
    }
    writer.finish()
}

fn clash(name: &[u8]) -> impl FnOnce(Clash) -> UnpackError + '_ {
    move |clash| match clash {
        Clash::Refused(problem) => UnpackError::entry(name, problem),
        Clash::Bound(problem) => UnpackError::Bound(format!("entry {:?}: {problem}", error::shown(name))),
    }
}

#[cfg(test)]
mod tests;
