//! Programs that say when they are ready, as systemd would hear it.

use std::io::Error;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A socket at a path, removed with this.
struct Socket(UnixDatagram, PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
    }
}

/// Why a program is not ready.
#[derive(Debug)]
pub enum NotReady {
    /// It could not be started.
    Start(Error),
    /// It ended instead.
    Ended(ExitStatus),
    /// It said nothing in time.
    Late,
}

/// Starts it and waits until it says that it is ready; `socket` is a path that is free.
pub fn start(command: &mut Command, socket: &Path, within: Duration) -> Result<Child, NotReady> {
    let ready = UnixDatagram::bind(socket).map_err(NotReady::Start)?;
    ready.set_read_timeout(Some(Duration::from_millis(50))).map_err(NotReady::Start)?;
    let ready = Socket(ready, socket.to_owned());
    let mut child = command.env("NOTIFY_SOCKET", socket).spawn().map_err(NotReady::Start)?;
    let begin = Instant::now();
    let mut message = [0; 512];
    loop {
        if ready.0.recv(&mut message).is_ok_and(|n| message[..n].starts_with(b"READY=1")) {
            return Ok(child);
        }
        if let Some(status) = child.try_wait().map_err(NotReady::Start)? {
            return Err(NotReady::Ended(status));
        }
        if begin.elapsed() > within {
            let _ = child.kill();
            let _ = child.wait();
            return Err(NotReady::Late);
        }
    }
}
