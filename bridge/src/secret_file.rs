//! A file with a secret in it that somebody replaces now and then: nobody else's to read, understood when it is
//! opened, read again when it changed, and kept as it was when what it became is no use.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use std::{fs, io};
use tokio::time::Instant;

/// How often a file is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a file can not be used. What is in it is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It can not be read.
    #[error("can not read the token file {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the token file {0} is open to others: chmod 600 {0}")]
    Open(String),
    /// It does not hold what it should.
    #[error("the token file {}, {problem}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// See the module.
pub struct SecretFile<T> {
    path: PathBuf,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

type Parse<T> = fn(&str) -> Result<T, String>;
type Stamp = Option<(SystemTime, u64)>;

struct State<T> {
    value: Arc<T>,
    stamp: Stamp,
    looked: Instant,
}

impl<T> SecretFile<T> {
    /// Reads it now. `parse` says what is wrong without repeating what is there.
    pub fn open(path: &Path, parse: Parse<T>) -> Result<Self, SecretFileError> {
        let (value, stamp) = read(path, parse)?;
        let state = Mutex::new(State { value: Arc::new(value), stamp, looked: Instant::now() });
        Ok(Self { path: path.to_owned(), parse, state })
    }

    /// What it holds.
    pub fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            if stamp(&self.path) != state.stamp {
                match read(&self.path, self.parse) {
                    Ok((value, stamp)) => {
                        tracing::info!(path = %self.path.display(), "the token file was read again");
                        (state.value, state.stamp) = (Arc::new(value), stamp);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the token file is no use now; what it held before stays good")
                    }
                }
            }
        }
        state.value.clone()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn read<T, E: Display>(path: &Path, parse: fn(&str) -> Result<T, E>) -> Result<(T, Stamp), SecretFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    let stamp = stamp(path);
    if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(SecretFileError::Open(path.display().to_string()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let value = parse(&text)
        .map_err(|problem| SecretFileError::Content { path: path.to_owned(), problem: problem.to_string() })?;
    Ok((value, stamp))
}
