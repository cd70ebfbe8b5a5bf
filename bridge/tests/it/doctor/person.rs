//! Somebody who wants to compile: an environment, a few directories, and what doctor says to it.

use crate::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// A user who is nobody.
const NOBODY: u32 = 65_534;

/// Whether these tests are root's; then doctor always finds that, too.
pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// See the module.
pub(crate) struct Person {
    dir: tempfile::TempDir,
    pub(crate) variables: BTreeMap<String, String>,
    is_nobody: bool,
}

/// What doctor said.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) code: Option<i32>,
    findings: Vec<Value>,
}

impl Seen {
    fn finding(&self, id: &str) -> &Value {
        let found = self.findings.iter().find(|finding| finding["id"] == id);
        found.unwrap_or_else(|| panic!("no {id} among {:#?}", self.findings))
    }

    fn text(&self, id: &str, field: &str) -> String {
        self.finding(id)[field].as_str().unwrap().to_owned()
    }

    /// Ids of what is wrong or doubtful, but for root.
    pub(crate) fn ids(&self) -> Vec<&str> {
        let grave = self.findings.iter().filter(|finding| finding["severity"] != "harmless");
        grave.filter_map(|finding| finding["id"].as_str()).filter(|id| *id != "root").collect()
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding["id"] == id)
    }

    /// The finding is there; what is so.
    pub(crate) fn problem(&self, id: &str) -> String {
        self.text(id, "problem")
    }

    pub(crate) fn severity(&self, id: &str) -> String {
        self.text(id, "severity")
    }

    pub(crate) fn fix(&self, id: &str) -> String {
        self.text(id, "fix")
    }

    pub(crate) fn finding_why(&self, id: &str) -> String {
        self.text(id, "why")
    }

    /// All of it, as it came.
    pub(crate) fn words(&self) -> String {
        format!("{:?}", self.findings)
    }

    /// Nothing is wrong or doubtful, and the exit code says so.
    pub(crate) fn is_in_order(&self) {
        assert_eq!(self.ids(), Vec::<&str>::new(), "{:#?}", self.findings);
        assert_eq!(self.code, Some(i32::from(self.has("root"))));
    }

    /// It is wrong, and the exit code says so.
    pub(crate) fn is_wrong(&self, id: &str) {
        assert_eq!((self.severity(id).as_str(), self.code), ("wrong", Some(1)));
    }
}

impl Person {
    /// Who has done nothing yet.
    pub(crate) fn unprepared() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "bin", "tmp", "run/goma_nils", "logs"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path().join("run/goma_nils"), fs::Permissions::from_mode(0o700)).unwrap();
        let mut person = Self { dir, variables: BTreeMap::new(), is_nobody: false };
        for (name, below) in [("HOME", "home"), ("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run"), ("GLOG_log_dir", "logs")]
        {
            let path = person.path(below).display().to_string();
            person.set(name, path);
        }
        let path = format!("{}:{}:/usr/bin:/bin", person.path("bin").display(), programs().display());
        // Ports on which nobody listens: the usual ones may be somebody's on this machine.
        for (name, value) in [("GOMA_COMPILER_PROXY_PORT", "2"), ("GOMACTL_PROXY_PORT", "1"), ("USER", "nils")] {
            person.set(name, value);
        }
        person.set("PATH", path).set("SHELL", "/bin/bash");
        person
    }

    /// Who has done what the guide says for the bridge at `address`.
    pub(crate) async fn prepared(address: &str) -> Self {
        let mut person = Self::unprepared();
        person.shell(&format!("eval \"$(mote-bridge env --bridge {address})\"")).await;
        person
    }

    /// Everything of theirs is nobody's, and they are that. `None`: only root can do so.
    pub(crate) fn nobodys(mut self) -> Option<Self> {
        let mut all = vec![self.dir.path().to_owned()];
        while let Some(path) = all.pop() {
            chown(&path, Some(NOBODY), Some(NOBODY)).ok()?;
            all.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        self.is_nobody = true;
        let can_start = std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                program::program().get_program().to_str()?,
                "--version",
            ])
            .output();
        can_start.is_ok_and(|ran| ran.status.success()).then_some(self)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn unset(&mut self, name: &str) -> &mut Self {
        self.variables.remove(name);
        self
    }

    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A script on their PATH.
    pub(crate) fn program(&self, name: &str, text: &str) {
        self.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{text}\n"), 0o755);
    }

    /// The client's script, as far as stopping goes: it ends what it started, by its number.
    pub(crate) fn goma_ctl(&self) {
        let files = "\"$XDG_RUNTIME_DIR\"/goma_nils/http_proxy.pid \"$XDG_RUNTIME_DIR\"/goma_nils/http_proxy.host";
        self.program("goma_ctl.py", &format!("test \"$1\" != ensure_stop || rm -f {files}"));
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.variables).current_dir(self.dir.path());
        if self.is_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    async fn doctor(&self, args: &[&str]) -> std::process::Output {
        let bridge = Path::new(env!("CARGO_BIN_EXE_mote-bridge"));
        self.command(bridge).arg("doctor").args(args).output().await.unwrap()
    }

    /// Asks doctor.
    pub(crate) async fn look(&self, args: &[&str]) -> Seen {
        let ran = self.doctor(&[&["--json"], args].concat()).await;
        let findings =
            serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", program::words(&ran)));
        Seen { code: ran.status.code(), findings }
    }

    /// Asks doctor for words.
    pub(crate) async fn listen(&self, args: &[&str]) -> String {
        program::words(&self.doctor(args).await)
    }

    /// Types a line into their shell, and keeps what it does to the environment. What it said.
    pub(crate) async fn shell(&mut self, line: &str) -> String {
        let script = format!("exec 3>&1 >said\n{line}\nenv -0 >&3");
        let ran = self.command(Path::new("/bin/sh")).arg("-c").arg(script).output().await.unwrap();
        assert!(ran.status.success(), "{line}: {}", program::words(&ran));
        let text = String::from_utf8(ran.stdout).unwrap();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        let own = ["_", "PWD", "OLDPWD", "SHLVL"];
        let pairs = pairs.filter(|(name, _)| !own.contains(name));
        self.variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fs::read_to_string(self.path("said")).unwrap()
    }

    /// Does what doctor told them to do about this finding; it is not found again.
    pub(crate) async fn mend(&mut self, seen: &Seen, id: &str) -> Seen {
        self.shell(&seen.fix(id)).await;
        let after = self.look(&[]).await;
        assert!(!after.has(id), "{} did not mend {}: {}", seen.fix(id), seen.problem(id), after.problem(id));
        after
    }
}

/// Where the bridge's program is.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_mote-bridge")).parent().unwrap().to_owned()
}
