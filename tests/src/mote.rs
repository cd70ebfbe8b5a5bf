//! Running `mote` (or any program) with a deadline, with what it writes kept in files.

use crate::processes;
use crate::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest any ordinary call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call of a program, to be shaped.
#[must_use]
pub struct Mote {
    command: Command,
    shown: String,
    stdin: Option<Vec<u8>>,
    to_null: bool,
    patience: Duration,
    /// Where its output goes; `.stdout` and `.stderr` are added.
    kept: PathBuf,
}

impl Mote {
    /// A call of `program`, whose output is kept under the name `kept`.
    pub fn new(program: &Path, kept: PathBuf) -> Self {
        let shown = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { command: Command::new(program), shown, stdin: None, to_null: false, patience: PATIENCE, kept }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        if self.shown.len() < 300 {
            self.shown.push(' ');
            self.shown.push_str(&arg.as_ref().to_string_lossy());
        }
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// A variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Only these variables.
    pub fn only_env(mut self, vars: &[(String, String)]) -> Self {
        self.command.env_clear().envs(vars.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Where to run.
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it reads; otherwise nothing.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Throws its stdout away.
    pub fn stdout_to_null(mut self) -> Self {
        self.to_null = true;
        self
    }

    /// How long it may take.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let (stdout, stderr) = (self.kept.with_extension("stdout"), self.kept.with_extension("stderr"));
        let create = |path: &Path| File::create(path).expect("a file for what a program writes");
        let stdout_to = if self.to_null { Stdio::null() } else { create(&stdout).into() };
        self.command.stdout(stdout_to).stderr(create(&stderr));
        self.command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("can not start {}: {error}", self.shown),
        };
        if let (Some(bytes), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            // Ends with the program, which closes the pipe.
            std::thread::spawn(move || pipe.write_all(&bytes));
        }
        Running { child, shown: self.shown, stdout, stderr, begin: Instant::now(), patience: self.patience, over: None }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Ran {
        self.spawn().wait()
    }

    /// Runs it to a successful end.
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.run().ok()
    }
}

/// A program that runs. Killed when dropped.
pub struct Running {
    child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
    begin: Instant,
    patience: Duration,
    over: Option<ExitStatus>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// `kill -9`.
    pub fn kill9(&self) {
        processes::kill9(self.pid());
    }

    /// Another signal.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        if self.over.is_none() {
            self.over = self.child.try_wait().expect("a child can be waited for");
        }
        self.over.is_some()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits until its stderr holds `text`.
    #[track_caller]
    pub fn until_stderr(&mut self, text: &str, within: Duration) {
        let found = wait::maybe(within, || self.stderr().contains(text).then_some(()));
        assert!(found.is_some(), "{} did not say {text:?} within {within:?}: {}", self.shown, self.stderr());
    }

    /// Waits until its stdout holds `text`.
    #[track_caller]
    pub fn until_stdout(&mut self, text: &str, within: Duration) {
        let found = wait::maybe(within, || self.stdout().contains(text).then_some(()));
        assert!(
            found.is_some(),
            "{} did not write {text:?} within {within:?}: {} {}",
            self.shown,
            tail(&self.stdout(), 20),
            self.stderr()
        );
    }

    /// Waits for its end; kills it and panics when its time is over.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        while !self.is_over() {
            if self.begin.elapsed() > self.patience {
                self.kill9();
                panic!("{} did not end within {:?}: {}", self.shown, self.patience, tail(&self.stderr(), 20));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let took = self.begin.elapsed();
        let status = self.over.expect("it is over");
        Ran {
            shown: std::mem::take(&mut self.shown),
            status,
            stdout: fs::read(&self.stdout).unwrap_or_default(),
            stderr: self.stderr(),
            took,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The end of a text, in lines.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A program that has run.
#[derive(Debug)]
pub struct Ran {
    /// Its command line, for messages.
    pub shown: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Its exit code; minus the signal that ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| -self.status.signal().unwrap_or(255))
    }

    /// Its stdout as text, without the last newline.
    pub fn out(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// The last line of its stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.out();
        let line = text.lines().last().unwrap_or_default();
        match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{}: {line:?} is no JSON: {error}", self.shown),
        }
    }

    /// Panics unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails(0)
    }

    /// Panics unless it ended with this code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert!(
            self.code() == code,
            "{}\n  ended with {} instead of {code} after {:?}\n  stdout: {}\n  stderr: {}",
            self.shown,
            self.code(),
            self.took,
            tail(&self.out(), 20),
            tail(&self.stderr, 20)
        );
        self
    }

    /// Panics unless its stderr holds all of these.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{}: no {text:?} in: {}", self.shown, self.stderr);
        }
        self
    }
}
