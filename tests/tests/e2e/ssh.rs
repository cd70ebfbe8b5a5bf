//! ssh to instances, with the system's OpenSSH.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test is a panic")]

mod files;
mod forwards;
mod hostile;
mod rights;
mod shell;

use crate::{farm, seconds};
use motefarm_tests::{Mote, TestFarm, wait};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whether a program is here; says SKIPPED if not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).spawn().is_ok_and(
        |mut child| {
            let _ = child.wait();
            true
        },
    );
    if !found {
        wait::skipped("ssh", &format!("{program} is not installed; scripts/setup.sh does"));
    }
    found
}

/// A farm with one instance, whose ssh configuration is in a file of the test's.
struct Reached {
    farm: TestFarm,
    instance: motefarm_tests::farm::Instance,
    config: PathBuf,
}

impl Reached {
    /// `None`: there is no OpenSSH here.
    fn new() -> Option<Self> {
        Self::of(farm())
    }

    fn of(builder: motefarm_tests::farm::Builder) -> Option<Self> {
        if !has("ssh") {
            return None;
        }
        let farm = builder.start();
        let instance = farm.create();
        let config = farm.dir().join("ssh_config");
        farm.mote(["ssh-config", "--user-config"]).arg(&config).ok();
        Some(Self { farm, instance, config })
    }

    /// `NAME.mote`.
    fn host(&self) -> String {
        format!("{}.mote", self.instance.name)
    }

    /// A program of OpenSSH that takes `-F`.
    fn program(&self, program: &str) -> Mote {
        // ssh calls mote, which finds the farm by the file alone.
        self.farm.program(program.as_ref()).arg("-F").arg(&self.config)
    }

    /// `ssh -F CONFIG OPTIONS NAME.mote COMMAND`.
    fn ssh(&self, options: &[&str], command: &str) -> Mote {
        self.program("ssh").args(options).arg(self.host()).arg(command)
    }

    /// The gateway's port.
    fn port(&self) -> u16 {
        let config = std::fs::read_to_string(self.farm.dir().join("coordinator.toml")).expect("the configuration");
        let line = config.split("[ssh]\nlisten = '127.0.0.1:").nth(1).expect("a port for ssh");
        line.split('\'').next().and_then(|port| port.parse().ok()).expect("a port for ssh")
    }

    /// Where `mote` keeps what it needs for ssh.
    fn keys(&self) -> PathBuf {
        self.farm.dir().join("config/ssh")
    }

    /// The certificate for the instance.
    fn certificate(&self) -> PathBuf {
        let name = self.farm.address().replace(['.', ':'], "_");
        self.keys().join("farms").join(name).join(format!("{}-cert.pub", self.instance.name))
    }

    fn finish(self) {
        for name in self.farm.list().iter().filter_map(|instance| instance["name"].as_str()) {
            // It may run out just now by itself.
            self.farm.mote(["destroy", name]).run();
            self.farm.until_gone(name, seconds(30));
        }
        self.farm.finish();
    }
}
