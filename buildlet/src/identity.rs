//! Who this buildlet is, and that it is the only one with its data directory.

use crate::layout::DataDir;
use motefarm_net::private_file;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A successor may come while its predecessor still dies.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Stable over restarts.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: Uuid,
    pub(crate) hostname: String,
}

/// Held for as long as the process lives.
pub(crate) struct DataLock {
    _file: File,
}

/// Makes the directory (0700) and takes it. `WouldBlock` if another buildlet has it.
pub(crate) fn lock(data: &DataDir) -> io::Result<DataLock> {
    private_file::create_dir(data.root())?;
    let file = File::options().write(true).create(true).truncate(false).open(data.lock())?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(DataLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Identity {
    /// As results of actions tell who made them.
    pub(crate) fn worker(&self) -> String {
        format!("{}/{}", self.hostname, self.id)
    }

    /// Reads the buildlet's id, or makes it at first start.
    pub(crate) fn load_or_create(data: &DataDir) -> io::Result<Self> {
        let path = data.id();
        let id = match fs::read_to_string(&path) {
            Ok(text) => Uuid::try_parse(text.trim()).map_err(|e| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} holds no UUID ({e}): restore or remove it", path.display()),
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = Uuid::new_v4();
                private_file::write(&path, format!("{id}\n").as_bytes())?;
                id
            }
            Err(error) => return Err(error),
        };
        let uname = rustix::system::uname();
        Ok(Self { id, hostname: uname.nodename().to_string_lossy().into_owned() })
    }
}
