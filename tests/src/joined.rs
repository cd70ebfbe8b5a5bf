//! A buildlet that joins a farm from elsewhere: from behind a proxy, or from another network.

use crate::farm::TestFarm;
use crate::mote::tail;
use crate::processes;
use crate::wait;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What it offers.
pub const HOST_TYPE: &str = "far-linux";

/// See the module. Killed with its farm.
pub struct Joined {
    command: Vec<String>,
    env: Vec<(String, String)>,
    data: PathBuf,
    child: Option<Child>,
}

impl Joined {
    /// Makes a join token and starts a buildlet that dials `coordinator`. `wrapper` stands before
    /// its program (`ip netns exec NAME`).
    #[track_caller]
    pub fn start(farm: &TestFarm, coordinator: &str, wrapper: &[&str]) -> Self {
        let token = farm.mote(["admin", "join-token", "create", "--host-type", HOST_TYPE]).ok().out();
        Self::start_with(farm, coordinator, wrapper, &token)
    }

    /// The same with a token that is there.
    #[track_caller]
    pub fn start_with(farm: &TestFarm, coordinator: &str, wrapper: &[&str], token: &str) -> Self {
        let mut joined = Self::with_token(farm, coordinator, wrapper, token);
        joined.restart();
        joined
    }

    /// One that is not started yet, to be shaped.
    #[track_caller]
    pub fn prepare(farm: &TestFarm, coordinator: &str) -> Self {
        let token = farm.mote(["admin", "join-token", "create", "--host-type", HOST_TYPE]).ok().out();
        Self::with_token(farm, coordinator, &[], &token)
    }

    #[track_caller]
    fn with_token(farm: &TestFarm, coordinator: &str, wrapper: &[&str], token: &str) -> Self {
        let data = farm.fresh("joined");
        fs::create_dir(&data).expect("a data directory");
        let token_file = farm.fresh("join-token");
        fs::write(&token_file, token).expect("a token file");
        crate::files::chmod(&token_file, 0o600);
        let program = farm.programs().buildlet.display().to_string();
        let text = |path: &Path| path.display().to_string();
        let mut command: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        command.extend([program, "join".to_owned(), "--coordinator".to_owned(), coordinator.to_owned()]);
        command.extend(["--token-file".to_owned(), text(&token_file), "--data-dir".to_owned(), text(&data)]);
        command.extend(["--host-type".to_owned(), HOST_TYPE.to_owned(), "--slots".to_owned(), "4".to_owned()]);
        Self { command, env: farm.env(), data, child: None }
    }

    /// One more argument.
    pub fn arg(&mut self, arg: &str) {
        self.command.push(arg.to_owned());
    }

    /// Starts it, again.
    #[track_caller]
    pub fn restart(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear().envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the buildlet starts"));
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&fs::read_to_string(self.log_path()).unwrap_or_default(), 30)
    }

    /// Its process id.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in order, and checks that no instance is left with it.
    #[track_caller]
    pub fn finish(mut self, farm: &TestFarm) {
        wait::until_true("no directory of an instance is left", Duration::from_secs(20), || {
            farm.directories_left(&self.data).is_empty()
        });
        let mut child = self.child.take().expect("the buildlet runs");
        processes::signal(i32::try_from(child.id()).expect("process ids are small"), Signal::SIGTERM);
        let ended = wait::maybe(Duration::from_secs(15), || child.try_wait().expect("a child can be waited for"));
        if ended.is_none() {
            let _ = child.kill();
            panic!("the joined buildlet did not stop within 15 s of SIGTERM: {}", self.log());
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            wait::say(&format!("--- joined buildlet's log\n{}", self.log()));
        }
        self.kill9();
    }
}
