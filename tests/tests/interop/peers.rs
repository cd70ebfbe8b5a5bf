//! Where `scripts/interop.sh` put what it got, and peers that run.

use motefarm_tests::wait;
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program below the folder of peers, or on PATH; says aloud why a test does nothing without it.
pub(crate) fn peer(what: &str, below: &str, command: &str) -> Option<PathBuf> {
    let Some(peers) = std::env::var_os("MOTE_INTEROP_PEERS") else {
        wait::skipped(what, "`make interop` runs this, with the peers it gets");
        return None;
    };
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(Path::new(&peers).join(below))
        .chain(std::env::split_paths(&on_path).map(|dir| dir.join(command)))
        .find(|path| path.is_file());
    if found.is_none() {
        wait::skipped(what, &format!("there is no {command}; scripts/interop.sh says why"));
    }
    found
}

/// A peer that runs, ended with this: in order if it can, else not.
pub(crate) struct Peer {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Peer {
    /// Starts it; what it says goes to `log`, and its standard input stays open as long as it.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let name = command.get_program().display().to_string();
        let file = || std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let child = command.stdin(Stdio::piped()).stdout(file()).stderr(file()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name, child, log: log.to_owned() }
    }

    /// Waits until it listens.
    #[track_caller]
    pub(crate) fn until_it_listens(&mut self, address: &str) {
        let serves = wait::maybe(Duration::from_secs(40), || {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                panic!("{} ended with {status}: {}", self.name, self.said());
            }
            TcpStream::connect(address).ok()
        });
        assert!(serves.is_some(), "{} does not listen on {address}: {}", self.name, self.said());
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        motefarm_tests::mote::tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 20)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            wait::say(&format!("--- {}\n{}", self.name, self.said()));
        }
        drop(self.child.stdin.take());
        motefarm_tests::processes::signal(i32::try_from(self.child.id()).unwrap_or(i32::MAX), Signal::SIGTERM);
        let gone = || self.child.try_wait().ok().flatten();
        if wait::maybe(Duration::from_secs(10), gone).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
