//! A `mote-bridge` of a test: on a port that it has again after a kill.

use crate::farm::free_port;
use crate::goma_client::Client;
use crate::mote::tail;
use crate::processes;
use crate::ready;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// How long it may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// See the module.
pub struct TestBridge {
    program: PathBuf,
    /// Its data, configuration and log.
    dir: PathBuf,
    env: Vec<(String, String)>,
    args: Vec<String>,
    address: String,
    child: Mutex<Option<Child>>,
}

impl TestBridge {
    /// Starts one with everything below `dir`: these variables, more flags of `serve`, and its configuration as TOML.
    #[track_caller]
    pub fn start(program: &Path, dir: &Path, env: &[(String, String)], args: &[&str], config: &str) -> Self {
        fs::create_dir_all(dir).expect("a directory for the bridge");
        fs::write(dir.join("bridge.toml"), config).expect("its configuration");
        let bridge = Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            env: env.to_vec(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            address: free_port(),
            child: Mutex::new(None),
        };
        bridge.start_again();
        bridge
    }

    /// Where it serves.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A `compiler_proxy` of its own, with a source of tokens, so that it waits for a server that comes back.
    pub fn client(&self) -> Client {
        let mut client = Client::new(&self.address);
        client.http.has_token_source = true;
        client
    }

    /// `kill -9`, and up again with what it has on disk.
    #[track_caller]
    pub fn kill_and_start(&self) {
        self.kill();
        self.start_again();
    }

    fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("nobody panics with it").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    #[track_caller]
    fn start_again(&self) {
        let log = File::options().create(true).append(true).open(self.dir.join("bridge.log")).expect("a log");
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(self.dir.join("bridge.toml")).arg("--data-dir");
        command.arg(self.dir.join("data")).args(["--listen", &self.address]).args(&self.args);
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = ready::start(&mut command, &self.dir.join("ready"), READY_WITHIN);
        let child = child.unwrap_or_else(|why| panic!("the bridge does not serve: {why:?}: {}", self.log(20)));
        *self.child.lock().expect("nobody panics with it") = Some(child);
    }

    /// The end of its log.
    pub fn log(&self, lines: usize) -> String {
        tail(&fs::read_to_string(self.dir.join("bridge.log")).unwrap_or_default(), lines)
    }

    /// SIGTERM; it ends in order.
    #[track_caller]
    pub fn stop(&self) {
        let mut child = self.child.lock().expect("nobody panics with it").take().expect("it runs");
        processes::signal(i32::try_from(child.id()).expect("process ids are small"), Signal::SIGTERM);
        let over = crate::wait::maybe(READY_WITHIN, || child.try_wait().expect("a child can be waited for"));
        let over = over.unwrap_or_else(|| {
            let _ = child.kill();
            panic!("the bridge did not stop within {READY_WITHIN:?} of SIGTERM: {}", self.log(20))
        });
        assert!(over.success(), "the bridge ended with {over}: {}", self.log(20));
    }
}

/// A failed test ends it, too, and shows what it said.
impl Drop for TestBridge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::wait::say(&format!("--- bridge's log\n{}", self.log(30)));
        }
        self.kill();
    }
}
