//! Unix sockets in directories of any depth.
//!
//! A socket's address holds at most 107 bytes, less than many a data directory's path. Longer
//! ones are reached through `/proc/self/fd/<directory>/<name>`.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net as std_unix;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

const MOST_ADDRESS_BYTES: usize = 107;

/// A path that fits an address, and what must stay open while it is used.
struct ShortPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

fn shorten(path: &Path) -> io::Result<ShortPath> {
    if path.as_os_str().len() <= MOST_ADDRESS_BYTES {
        return Ok(ShortPath { path: path.to_owned(), _directory: None });
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket's path needs a name"));
    };
    let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(ShortPath { path, _directory: Some(directory) })
}

/// Binds and listens at `path`, replacing a dead socket file. `AddrInUse` if somebody answers there.
pub fn bind(path: &Path) -> io::Result<std_unix::UnixListener> {
    let short = shorten(path)?;
    match std_unix::UnixListener::bind(&short.path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std_unix::UnixStream::connect(&short.path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(&short.path)?;
            std_unix::UnixListener::bind(&short.path)
        }
        bound => bound,
    }
}

/// Connects to `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let short = shorten(path)?;
    UnixStream::connect(&short.path).await
}

/// Connects to `path`, blocking.
pub fn connect_blocking(path: &Path) -> io::Result<std_unix::UnixStream> {
    let short = shorten(path)?;
    std_unix::UnixStream::connect(&short.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deep_directory_is_no_obstacle_and_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("sock");
        drop(bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        connect(&path).await.unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(connect_blocking(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
