//! Go's own agent (golang.org/x/build/cmd/buildlet), unmodified, as a machine of a farm.
//!
//! The program is `MOTE_TEST_GO_AGENT`, or is installed with `go` at the version named here.
//! It is only ever started with `-halt=false`: left to itself it powers the machine off.

use crate::farm::TestFarm;
use crate::mote::tail;
use crate::wait;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What it offers.
pub const HOST_TYPE: &str = "go-linux";
/// What is installed: what all this was tried with.
const MODULE: &str = "golang.org/x/build/cmd/buildlet@v0.0.0-20260918145456-c0ee0fbd16a3";
/// The name that the farm's certificates carry whatever address it has.
const SERVER: &str = "server.motefarm.internal:443";

/// The agent's program, found or installed once below `dir`.
pub fn program(dir: &Path) -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(|| find(dir)) {
        Ok(path) => Some(path.clone()),
        Err(why) => {
            wait::skipped("the Go agent buildlet", why);
            None
        }
    }
}

fn find(dir: &Path) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("MOTE_TEST_GO_AGENT") {
        return Ok(path.into());
    }
    let installed = dir.join("go-agent-c0ee0fbd16a3");
    if installed.join("buildlet").is_file() {
        return Ok(installed.join("buildlet"));
    }
    let ran = Command::new("go").args(["install", MODULE]).env("GOBIN", &installed).output();
    let ran = ran.map_err(|error| format!("go is not there ({error})"))?;
    if ran.status.success() {
        Ok(installed.join("buildlet"))
    } else {
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        Err(format!("go could not install {MODULE}: {}", said.lines().last().unwrap_or_default()))
    }
}

/// One machine: an agent that its supervisor starts again whenever it ends. Killed when dropped.
pub struct GoAgent {
    /// For a shell: the program is its $0, the work directory its $1.
    script: String,
    program: PathBuf,
    env: Vec<(String, String)>,
    work: PathBuf,
    log: PathBuf,
    supervisor: Option<Child>,
}

impl GoAgent {
    /// Starts one that knows the farm by its CA and reaches it by CONNECT.
    #[track_caller]
    pub fn start(farm: &TestFarm, program: &Path, name: &str) -> Self {
        let token = farm.mote(["admin", "join-token", "create", "--host-type", HOST_TYPE]).ok().out();
        let work = farm.fresh("go-work");
        fs::create_dir(&work).expect("a work directory");
        let text = |text: &str| text.to_owned();
        let ca = farm.data().join("tls/ca.pem");
        let env = vec![
            (text("GOMOTEID"), format!("{HOST_TYPE}/{name}")),
            (text("GO_BUILDLET_TOKEN"), token),
            (text("HTTPS_PROXY"), format!("http://{}", farm.address())),
            (text("SSL_CERT_FILE"), ca.display().to_string()),
            (text("PATH"), text("/usr/local/bin:/usr/bin:/bin")),
            (text("HOME"), work.display().to_string()),
        ];
        let log = work.with_extension("log");
        let flags = format!(
            "-swarming-bot -coordinator=farmer.golang.org -gomote-server-addr={SERVER} -halt=false \
             -health-addr=127.0.0.1:0 -workdir=\"$1\""
        );
        let script = format!("while :; do \"$0\" {flags}; sleep 0.2; done");
        let mut agent = Self { script, program: program.to_owned(), env, work, log, supervisor: None };
        agent.restart();
        agent
    }

    /// Starts one by the line that the farm prints.
    #[track_caller]
    pub fn invited(farm: &TestFarm, program: &Path) -> Self {
        let line = farm.mote(["admin", "invite", "--go-agent", "--host-type", HOST_TYPE]).ok().out();
        assert!(line.contains("-halt=false"), "never without it: {line}");
        let (bin, home) = (farm.fresh("bin"), farm.fresh("home"));
        fs::create_dir(&bin).expect("a directory");
        fs::create_dir(&home).expect("a directory");
        std::os::unix::fs::symlink(program, bin.join("buildlet")).expect("a link");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        let env = vec![("PATH".to_owned(), path), ("HOME".to_owned(), home.display().to_string())];
        let (script, work) = (format!("cd && {{ {line}; }}"), home.join("mote-workdir"));
        let log = home.with_extension("log");
        let mut agent = Self { script, program: program.to_owned(), env, work, log, supervisor: None };
        agent.restart();
        agent
    }

    /// What it shows.
    #[track_caller]
    pub fn token(&self) -> &str {
        let token = self.env.iter().find(|(name, _)| name == "GO_BUILDLET_TOKEN");
        token.map(|(_, value)| value.as_str()).expect("it has a token")
    }

    /// Another value for a variable of its own.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill9();
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &self.script]);
        command.arg(&self.program).arg(&self.work).env_clear().envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).process_group(0);
        self.supervisor = Some(command.spawn().expect("a shell starts"));
    }

    /// Its work directory, which is the instance's.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default(), 40)
    }

    /// How often it registered.
    pub fn registrations(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches("Connected to gomote server").count()
    }

    /// Waits until it has registered so often.
    #[track_caller]
    pub fn until_registered(&self, times: usize) {
        let enough = wait::maybe(Duration::from_secs(30), || (self.registrations() >= times).then_some(()));
        assert!(enough.is_some(), "the agent did not register {times} times:\n{}", self.log());
    }

    /// `kill -9` of the agent, its supervisor and what they started.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

impl Drop for GoAgent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            wait::say(&format!("--- Go agent's log\n{}", self.log()));
        }
        self.kill9();
    }
}
