//! Running `mote` with a home of its own.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// A home whose profile names the farm at `address`.
    pub(crate) fn new(address: &str, ca_pem: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let farms = dir.path().join("config/farms");
        std::fs::create_dir_all(&farms).unwrap();
        let profile = farms.join("local.toml");
        let text =
            format!("server = {address:?}\nuser = \"alice\"\ntoken = \"mote_t\"\nca_pem = \"\"\"\n{ca_pem}\"\"\"\n");
        motefarm_net::private_file::write(&profile, text.as_bytes()).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mote"));
        for name in [
            "MOTE_SERVER",
            "MOTE_TOKEN",
            "MOTE_CA",
            "MOTE_FARM",
            "MOTE_GROUP",
            "GOMOTE_GROUP",
            "GOROOT",
            "GOROOT_BOOTSTRAP",
        ] {
            command.env_remove(name);
        }
        command
            .env("MOTE_CONFIG_DIR", self.path("config"))
            .env("MOTE_CACHE_DIR", self.path("cache"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .args(args);
        command
    }

    /// Runs to the end.
    pub(crate) fn mote(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// The same in a group of the environment.
    pub(crate) fn mote_in(&self, group: &str, args: &[&str]) -> Ran {
        Ran::from(self.command(args).env("GOMOTE_GROUP", group).output().unwrap())
    }

    /// Runs to the end with something on stdin.
    pub(crate) fn mote_fed(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // One that ends without reading all of it closes the pipe.
            scope.spawn(move || drop(pipe.write_all(stdin)));
            Ran::from(child.wait_with_output().unwrap())
        })
    }

    /// The one output file in the cache.
    pub(crate) fn only_output(&self) -> Vec<u8> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.path("cache/runs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension() == Some(OsStr::new("out")))
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::read(files.remove(0)).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The one JSON object on stdout.
    pub(crate) fn json(&self) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_slice(&self.stdout).unwrap();
        assert_eq!(value["version"], 1, "{value}");
        value
    }
}

pub(crate) fn write_tree(root: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
