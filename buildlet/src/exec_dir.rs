//! One execution's directory: what it was asked, where it stands.

use crate::claim::{Claim, Holder};
use crate::error::AgentError;
use crate::layout::exec;
use crate::spool::reader::{ReadError, SpoolReader};
use crate::supervisor::outcome;
use motefarm_core::exec::{Ending, ExecOutcome};
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use motefarm_proto::mote::{self, SupervisorSpec};
use prost::Message as _;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An open execution directory.
pub(crate) struct ExecDir {
    path: PathBuf,
    fd: OwnedFd,
}

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// Written down but never started.
    Waiting,
    /// Started, and watched by a supervisor.
    Running,
    /// Ended.
    Ended(Box<mote::ExecOutcome>),
}

impl ExecDir {
    /// Opens it; `None` if there is no such execution.
    pub(crate) fn open(path: PathBuf) -> Result<Option<Self>, AgentError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { path, fd })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(AgentError::io(format!("can not open {}", path.display()))(error.into())),
        }
    }

    /// Makes it, whole or not at all.
    pub(crate) fn create(path: PathBuf, spec: &SupervisorSpec) -> Result<Self, AgentError> {
        let failed = || AgentError::io(format!("can not make {}", path.display()));
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let make = || {
            match fs::create_dir(&temporary) {
                // Left by a crash.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            fs::write(temporary.join(exec::SPEC), spec.encode_to_vec())?;
            fs::rename(&temporary, &path)
        };
        make().map_err(failed())?;
        Self::open(path.clone())?.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn failed(&self, what: &str) -> impl FnOnce(io::Error) -> AgentError {
        AgentError::io(format!("can not {what} in {}", self.path.display()))
    }

    pub(crate) fn spec(&self) -> Result<SupervisorSpec, AgentError> {
        let bytes = fs::read(self.path.join(exec::SPEC)).map_err(self.failed("read the spec"))?;
        SupervisorSpec::decode(bytes.as_slice())
            .map_err(|e| self.failed("read the spec")(io::Error::new(io::ErrorKind::InvalidData, e)))
    }

    pub(crate) fn outcome(&self) -> Result<Option<mote::ExecOutcome>, AgentError> {
        outcome::load(self.fd()).map_err(self.failed("read the outcome"))
    }

    /// Where it stands. If its supervisor is gone without a word, this writes the word.
    pub(crate) fn standing(&self) -> Result<Standing, AgentError> {
        if let Some(outcome) = self.outcome()? {
            return Ok(Standing::Ended(Box::new(outcome)));
        }
        match Claim::holder(self.fd()).map_err(self.failed("look at the claim"))? {
            Holder::Nobody => Ok(Standing::Waiting),
            Holder::Alive => Ok(Standing::Running),
            Holder::Gone => {
                // It may have written it and gone between our two looks.
                if self.outcome()?.is_none() {
                    self.write_lost()?;
                }
                let outcome =
                    self.outcome()?.ok_or_else(|| self.failed("find the outcome")(io::ErrorKind::NotFound.into()))?;
                Ok(Standing::Ended(Box::new(outcome)))
            }
        }
    }

    fn write_lost(&self) -> Result<(), AgentError> {
        let output_end = SpoolReader::end_offset(self.owned_fd()?)?;
        let lost = ExecOutcome {
            ending: Ending::Lost,
            reason: "its host was restarted or its supervisor was killed".to_owned(),
            started_at: self.started_at().unwrap_or(Timestamp::EPOCH),
            ended_at: SystemClock.now(),
            user_cpu: Duration::ZERO,
            system_cpu: Duration::ZERO,
            max_rss_bytes: 0,
            output_end,
            left_running: false,
        };
        outcome::save(self.fd(), &lost).map_err(self.failed("write the outcome"))
    }

    /// When it was claimed, if it was.
    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        let stat = rustix::fs::statat(&self.fd, exec::CLAIM, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let nanos = i64::try_from(stat.st_mtime_nsec).ok()?;
        Some(Timestamp::from_millis(stat.st_mtime.saturating_mul(1000).saturating_add(nanos / 1_000_000)))
    }

    /// A reader from `offset`; `None` while there is no spool.
    pub(crate) fn reader(&self, offset: u64, most_chunk: usize) -> Result<Option<SpoolReader>, AgentError> {
        Ok(SpoolReader::open(self.owned_fd()?, offset, most_chunk)?)
    }

    /// Offset one past the output so far.
    pub(crate) fn output_end(&self) -> Result<u64, AgentError> {
        Ok(SpoolReader::end_offset(self.owned_fd()?)?)
    }

    fn owned_fd(&self) -> Result<OwnedFd, ReadError> {
        Ok(self.fd.try_clone()?)
    }
}
