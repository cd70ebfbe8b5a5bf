//! A farm of the real programs, in a directory of its own.

use crate::mote::{Mote, Ran, tail};
use crate::processes::{self, Process};
use crate::ready;
use crate::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a coordinator may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long what was ended may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);
/// A variable of the coordinator's that no command may see.
pub const SECRET_VARIABLE: &str = "MOTE_TEST_PLANTED";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `mote-coordinator`.
    pub coordinator: PathBuf,
    /// `mote-buildlet`.
    pub buildlet: PathBuf,
    /// `mote`.
    pub mote: PathBuf,
    /// `mote-bridge`.
    pub bridge: PathBuf,
}

/// A farm to be.
#[must_use]
pub struct Builder {
    programs: Programs,
    base: PathBuf,
    top: String,
    local: String,
    ssh: String,
    sections: String,
    listen: Option<String>,
}

impl Builder {
    /// Configuration in sections of its own, as TOML.
    pub fn config(mut self, sections: &str) -> Self {
        self.sections.push_str(sections);
        self.sections.push('\n');
        self
    }

    /// Keys before the first section.
    pub fn top(mut self, keys: &str) -> Self {
        self.top.push_str(keys);
        self.top.push('\n');
        self
    }

    /// Lease slots of the resident buildlet.
    pub fn slots(mut self, slots: u64) -> Self {
        self.local.push_str(&format!("slots = {slots}\n"));
        self
    }

    /// More keys of the ssh gateway.
    pub fn ssh(mut self, keys: &str) -> Self {
        self.ssh.push_str(keys);
        self.ssh.push('\n');
        self
    }

    /// Without a resident buildlet.
    pub fn no_buildlet(mut self) -> Self {
        self.local.push_str("enabled = false\n");
        self
    }

    /// Ends leases after this long without use.
    pub fn idle(self, text: &str) -> Self {
        self.config(&format!("[leases]\nidle_timeout = '{text}'"))
    }

    /// Keeps everything below another directory than the machine's temporary one.
    pub fn below(mut self, base: &Path) -> Self {
        base.clone_into(&mut self.base);
        self
    }

    /// Where to listen; otherwise a free port of loopback that nobody is given by chance.
    pub fn listen(mut self, listen: &str) -> Self {
        self.listen = Some(listen.to_owned());
        self
    }

    /// Makes the directories and the configuration; starts nothing.
    pub fn prepare(self) -> TestFarm {
        let token = format!("mote-e2e-{:012x}", rand::random::<u64>() >> 16);
        let dir = self.base.join(&token);
        fs::DirBuilder::new().mode(0o700).create(&dir).expect("a directory for the farm");
        for name in ["home", "config", "cache", "tmp", "out"] {
            fs::create_dir(dir.join(name)).expect("a directory of the farm");
        }
        let program = self.programs.buildlet.display();
        // A port of its own: it must be the same after a restart.
        let ssh = format!("[ssh]\nlisten = '{}'\n{}", free_port(), self.ssh);
        let config =
            format!("{}\n[local]\nprogram = '{program}'\n{}\n{ssh}\n{}\n", self.top, self.local, self.sections);
        fs::write(dir.join("coordinator.toml"), config).expect("the farm's configuration");
        TestFarm {
            programs: self.programs,
            listen: self.listen.unwrap_or_else(free_port),
            secret: format!("planted-{:016x}", rand::random::<u64>()),
            dir,
            token,
            coordinator: Mutex::new(None),
            seen: Mutex::new(Vec::new()),
            counter: AtomicU64::new(0),
            done: false,
        }
    }

    /// Starts it.
    pub fn start(self) -> TestFarm {
        let farm = self.prepare();
        farm.start_coordinator();
        farm
    }
}

/// A port that the kernel hands to nobody (its own choices begin at 32768), so that a coordinator
/// that was killed finds it free again.
pub fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 16_000).unwrap_or(0);
    loop {
        let port = 16_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7)) % 16_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// An instance that is leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its directory, while it is on the resident buildlet.
    pub dir: PathBuf,
    /// The work directory as commands see it.
    pub work_dir: String,
}

impl Instance {
    /// The work directory as the test sees it.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }
}

/// See the module.
pub struct TestFarm {
    programs: Programs,
    dir: PathBuf,
    token: String,
    listen: String,
    secret: String,
    coordinator: Mutex<Option<Child>>,
    seen: Mutex<Vec<String>>,
    counter: AtomicU64,
    done: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl TestFarm {
    /// A farm to be shaped.
    pub fn builder(programs: Programs) -> Builder {
        Builder {
            programs,
            base: std::env::temp_dir(),
            top: String::new(),
            local: String::new(),
            ssh: String::new(),
            sections: String::new(),
            listen: None,
        }
    }

    /// Everything of the farm is below this.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The coordinator's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The resident buildlet's data directory.
    pub fn buildlet_data(&self) -> PathBuf {
        self.data().join("buildlet")
    }

    /// More configuration, for the next start.
    #[track_caller]
    pub fn add_config(&self, sections: &str) {
        let path = self.dir.join("coordinator.toml");
        let text = fs::read_to_string(&path).expect("the farm's configuration");
        fs::write(path, format!("{text}\n{sections}\n")).expect("the farm's configuration");
    }

    /// The profile that the coordinator wrote.
    pub fn profile(&self) -> PathBuf {
        self.data().join("profile.toml")
    }

    /// A value of the profile.
    #[track_caller]
    pub fn profile_value(&self, key: &str) -> String {
        crate::rpc::profile_value(&self.profile(), key)
    }

    /// `host:port` of the coordinator.
    pub fn address(&self) -> String {
        self.profile_value("server")
    }

    /// Who its first admin is: the system's user who runs it.
    pub fn user(&self) -> String {
        self.profile_value("user")
    }

    /// What stands in the coordinator's environment and home, and that no command may see.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A fresh path for a file of the test's.
    pub fn fresh(&self, name: &str) -> PathBuf {
        self.dir.join("out").join(format!("{name}-{}", self.counter.fetch_add(1, Ordering::Relaxed)))
    }

    /// The whole environment of the farm's programs.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut env = vec![
            ("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned())),
            ("HOME", path("home")),
            ("USER", "tester".to_owned()),
            ("TMPDIR", path("tmp")),
            ("XDG_CONFIG_HOME", path("home/.config")),
            ("XDG_DATA_HOME", path("home/.local/share")),
            ("XDG_CACHE_HOME", path("home/.cache")),
            ("MOTE_CONFIG_DIR", path("config")),
            ("MOTE_CACHE_DIR", path("cache")),
            ("RUST_BACKTRACE", "1".to_owned()),
        ];
        if let Ok(level) = std::env::var("MOTE_TEST_LOG") {
            env.push(("MOTE_LOG", level));
        }
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A call of one of the programs in the farm's environment.
    pub fn program(&self, program: &Path) -> Mote {
        Mote::new(program, self.fresh("call")).only_env(&self.env()).cwd(&self.dir)
    }

    /// A call of `mote`.
    pub fn mote<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Mote {
        self.program(&self.programs.mote).args(args)
    }

    /// A call of `mote` as another user of the farm.
    pub fn mote_as(&self, token: &str, args: &[&str]) -> Mote {
        self.mote(args).env("MOTE_TOKEN", token)
    }

    /// A call of `mote-coordinator VERB` on this farm's data.
    pub fn coordinator(&self, verb: &[&str]) -> Mote {
        self.program(&self.programs.coordinator)
            .args(verb)
            .args(["--config", &self.dir.join("coordinator.toml").display().to_string()])
            .args(["--data-dir", &self.data().display().to_string()])
    }

    /// Starts the coordinator and waits until it says that it is ready, as systemd would.
    #[track_caller]
    pub fn start_coordinator(&self) {
        let log = File::options().create(true).append(true).open(self.dir.join("coordinator.log")).expect("a log");
        let mut command = Command::new(&self.programs.coordinator);
        command.arg("serve").arg("--config").arg(self.dir.join("coordinator.toml"));
        command.arg("--data-dir").arg(self.data()).args(["--listen", &self.listen]);
        command.env_clear().envs(self.env()).env(SECRET_VARIABLE, &self.secret);
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = ready::start(&mut command, &self.fresh("ready"), READY_WITHIN);
        let child =
            child.unwrap_or_else(|why| panic!("the coordinator does not serve: {why:?}: {}", self.coordinator_log(20)));
        *lock(&self.coordinator) = Some(child);
    }

    /// The coordinator's process id, if it was started.
    pub fn coordinator_pid(&self) -> Option<i32> {
        lock(&self.coordinator).as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// `kill -9` of the coordinator.
    pub fn kill_coordinator(&self) {
        if let Some(mut child) = lock(&self.coordinator).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and its exit status.
    #[track_caller]
    pub fn stop_coordinator(&self) -> ExitStatus {
        let mut child = lock(&self.coordinator).take().expect("the coordinator runs");
        processes::signal(i32::try_from(child.id()).expect("process ids are small"), Signal::SIGTERM);
        let over = wait::maybe(Duration::from_secs(20), || child.try_wait().expect("a child can be waited for"));
        over.unwrap_or_else(|| {
            let _ = child.kill();
            panic!("the coordinator did not stop within 20 s of SIGTERM: {}", self.coordinator_log(20))
        })
    }

    /// The resident buildlet's process id.
    pub fn buildlet_pid(&self) -> Option<i32> {
        let data = self.buildlet_data().display().to_string();
        let serves = |p: &Process| p.args.get(1).is_some_and(|verb| verb == "serve") && p.has_pair("--data-dir", &data);
        processes::all().into_iter().find(serves).map(|p| p.pid)
    }

    /// `kill -9` of the resident buildlet; the coordinator starts another.
    pub fn kill_buildlet(&self) -> Option<i32> {
        let pid = self.buildlet_pid();
        pid.into_iter().for_each(processes::kill9);
        pid
    }

    /// The end of the coordinator's log.
    pub fn coordinator_log(&self, lines: usize) -> String {
        tail(&fs::read_to_string(self.dir.join("coordinator.log")).unwrap_or_default(), lines)
    }

    /// The end of the resident buildlet's log.
    pub fn buildlet_log(&self, lines: usize) -> String {
        tail(&fs::read_to_string(self.buildlet_data().join("log")).unwrap_or_default(), lines)
    }

    /// This machine's host type.
    pub fn host_type() -> String {
        motefarm_core::HostType::of_machine(std::env::consts::OS, std::env::consts::ARCH).to_string()
    }

    /// Leases an instance of this machine's type.
    #[track_caller]
    pub fn create(&self) -> Instance {
        self.create_of(&Self::host_type(), &self.buildlet_data())
    }

    /// Leases an instance of a type whose buildlet has its data in `data`.
    #[track_caller]
    pub fn create_of(&self, host_type: &str, data: &Path) -> Instance {
        self.instance(&self.mote(["create", "--json", host_type]).ok().json(), data)
    }

    /// An instance as `--json` tells it.
    #[track_caller]
    pub fn instance(&self, json: &Value, data: &Path) -> Instance {
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}")).to_owned();
        let id = text("instance_id");
        lock(&self.seen).push(id.clone());
        Instance { name: text("name"), dir: data.join("instances").join(&id), work_dir: text("work_dir"), id }
    }

    /// Every instance as `mote list --all --json` tells it.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        self.mote(["list", "--all", "--json"]).ok().json()["instances"].as_array().cloned().unwrap_or_default()
    }

    /// The state of an instance; `None` if it is not listed.
    #[track_caller]
    pub fn state(&self, name: &str) -> Option<String> {
        self.list().iter().find(|i| i["name"] == name).map(|i| i["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an instance is no longer listed.
    #[track_caller]
    pub fn until_gone(&self, name: &str, within: Duration) {
        wait::until_true(&format!("{name} is gone"), within, || self.state(name).is_none());
    }

    /// Runs a shell script on an instance to its successful end.
    #[track_caller]
    pub fn sh(&self, instance: &Instance, script: &str) -> Ran {
        self.run(instance, script).ok()
    }

    /// A run of a shell script on an instance.
    pub fn run(&self, instance: &Instance, script: &str) -> Mote {
        self.mote(["run", "--quiet", &instance.name, "/bin/sh", "-c", script])
    }

    /// A run of a shell script that keeps its output in a file.
    pub fn run_into(&self, instance: &Instance, output: &Path, script: &str) -> Mote {
        self.mote(["run", "--quiet", "--output"]).arg(output).args([&instance.name, "/bin/sh", "-c", script])
    }

    /// Starts a shell script, detached; answers its execution id.
    #[track_caller]
    pub fn detach(&self, instance: &Instance, script: &str) -> String {
        self.mote(["run", "--detach", &instance.name, "/bin/sh", "-c", script]).ok().out()
    }

    /// Pushes a directory to `to` on an instance.
    pub fn push(&self, tree: &Path, to: &str, instance: &Instance) -> Mote {
        self.mote(["push", "-C"]).arg(tree).args(["--to", to, &instance.name]).patience(Duration::from_secs(180))
    }

    /// Ends instances and waits until they are gone.
    #[track_caller]
    pub fn destroy(&self, instances: &[&Instance]) {
        self.mote(["destroy"]).args(instances.iter().map(|i| &i.name)).ok();
        instances.iter().for_each(|i| self.until_gone(&i.name, GONE_WITHIN));
    }

    /// Whether instances are kept apart by a sandbox; says so aloud if not.
    #[track_caller]
    pub fn has_sandbox(&self, instance: &Instance, what: &str) -> bool {
        let present = instance.work_dir == "/workdir";
        if !present {
            wait::skipped(what, "no sandbox on this machine: bubblewrap is missing or may not make user namespaces");
        }
        present
    }

    /// Every process of the farm but those that serve it: the coordinator, the resident buildlet, and the
    /// buildlet's runners, which wait for actions.
    pub fn others(&self) -> Vec<Process> {
        let serving = [self.coordinator_pid(), self.buildlet_pid()];
        let is_runner = |p: &Process| p.args.get(1).is_some_and(|verb| verb == "runner");
        self.everything().into_iter().filter(|p| !serving.contains(&Some(p.pid)) && !is_runner(p)).collect()
    }

    fn everything(&self) -> Vec<Process> {
        let mut found = processes::of_farm(&self.token);
        for id in lock(&self.seen).iter() {
            let more = processes::of_farm(&format!("MOTE_INSTANCE={id}"));
            found.extend(more.into_iter().filter(|p| !found.contains(p)).collect::<Vec<_>>());
        }
        found
    }

    /// What is left of instances on disk.
    pub fn directories_left(&self, data: &Path) -> Vec<PathBuf> {
        ["instances", "wiping"]
            .iter()
            .filter_map(|name| fs::read_dir(data.join(name)).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .collect()
    }

    /// Waits until no instance has left a process or a directory.
    #[track_caller]
    pub fn until_nothing_left(&self) {
        let data = self.buildlet_data();
        if wait::maybe(GONE_WITHIN, || {
            (self.others().is_empty() && self.directories_left(&data).is_empty()).then_some(())
        })
        .is_none()
        {
            panic!("left over: processes {:#?}, directories {:#?}", self.others(), self.directories_left(&data));
        }
    }

    /// Fails if an instance, a process or a directory is left, then stops everything in order.
    #[track_caller]
    pub fn finish(self) {
        self.finish_with(|| ());
    }

    /// The same, with something to be undone before the directory is removed.
    #[track_caller]
    pub fn finish_with(mut self, undo: impl FnOnce()) {
        let left = wait::maybe(GONE_WITHIN, || self.list().is_empty().then_some(()));
        assert!(left.is_some(), "instances are left: {:#?}", self.list());
        self.until_nothing_left();
        let status = self.stop_coordinator();
        assert!(status.success(), "the coordinator ended with {status}: {}", self.coordinator_log(20));
        self.stop_buildlet();
        // Runners notice the buildlet's end, and end.
        let left = wait::maybe(GONE_WITHIN, || self.everything().is_empty().then_some(()));
        assert!(left.is_some(), "processes are left: {:#?}", self.everything());
        self.done = true;
        undo();
        self.remove();
    }

    /// Ends the resident buildlet in order, with no coordinator there to start another.
    #[track_caller]
    pub fn stop_buildlet(&self) {
        if let Some(pid) = self.buildlet_pid() {
            processes::signal(pid, Signal::SIGTERM);
            let ended = wait::maybe(Duration::from_secs(15), || (!processes::is_alive(pid)).then_some(()));
            assert!(ended.is_some(), "the buildlet did not stop within 15 s of SIGTERM: {}", self.buildlet_log(20));
        }
    }

    fn remove(&self) {
        if wait::is_set("MOTE_TEST_KEEP") {
            return wait::say(&format!("kept: {}", self.dir.display()));
        }
        let open = |dir: &Path| fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
        let _ = open(&self.dir);
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && !std::thread::panicking()
        {
            panic!("{} can not be removed: {error}", self.dir.display());
        }
    }
}

/// A failed test still ends everything it started, and shows the logs.
impl Drop for TestFarm {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if std::thread::panicking() {
            let (coordinator, buildlet) = (self.coordinator_log(40), self.buildlet_log(40));
            show(&format!("--- coordinator's log\n{coordinator}\n--- buildlet's log\n{buildlet}"));
        }
        self.kill_coordinator();
        processes::kill_farm(&self.token);
        for id in lock(&self.seen).iter() {
            processes::kill_farm(&format!("MOTE_INSTANCE={id}"));
        }
        self.remove();
    }
}

/// Into what the test runner shows of a failed test.
#[expect(clippy::print_stderr, reason = "the test runner captures this, and shows it with the failure")]
fn show(text: &str) {
    eprintln!("{text}");
}
