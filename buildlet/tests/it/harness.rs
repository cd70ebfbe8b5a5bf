//! The real program on a directory of its own, and nothing left of it afterwards.

use motefarm_net::dial::{Target, channel};
use motefarm_proto::mote::buildlet_client::BuildletClient;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::*;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

pub(crate) type Client = BuildletClient<Channel>;

/// For anything that should take a moment, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A buildlet under test.
pub(crate) struct Buildlet {
    pub(crate) dir: tempfile::TempDir,
    args: Vec<String>,
    child: Option<Child>,
    pub(crate) instances: Vec<String>,
}

impl Buildlet {
    /// Started, with whatever sandbox this machine has.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut buildlet = Self { dir, args, child: None, instances: Vec::new() };
        buildlet.run().await;
        buildlet
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the program (again).
    pub(crate) async fn run(&mut self) {
        // Measurements may name another build of the program.
        let program = std::env::var_os("MOTE_BUILDLET_UNDER_TEST");
        let child = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_mote-buildlet").into()))
            .args(["serve", "--data-dir"])
            .arg(self.data())
            .args(&self.args)
            .env("MOTE_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.client().await;
    }

    /// As a power cut would, but for the processes it leaves.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let until = Instant::now() + PATIENCE;
        loop {
            match channel(Target::Unix(self.data().join("buildlet.sock"))).await {
                Ok(channel) => return BuildletClient::new(channel).max_decoding_message_size(8 << 20),
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes an instance.
    pub(crate) async fn instance(&mut self) -> String {
        self.instance_with(|_| {}).await
    }

    pub(crate) async fn instance_with(&mut self, change: impl FnOnce(&mut BuildletCreateInstanceRequest)) -> String {
        let id = Uuid::new_v4().to_string();
        let terms = LeaseTerms { idle_timeout_ms: 600_000, max_lifetime_ms: 0, unwatched_limit_ms: 600_000 };
        let mut request = BuildletCreateInstanceRequest {
            instance_id: id.clone(),
            name: "tester-linux-0".into(),
            terms: Some(terms),
            ..Default::default()
        };
        change(&mut request);
        self.client().await.create_instance(request).await.unwrap();
        self.instances.push(id.clone());
        id
    }

    pub(crate) fn instance_dir(&self, id: &str) -> PathBuf {
        self.data().join("instances").join(id)
    }

    pub(crate) async fn end(&self, id: &str) {
        self.client().await.end_instance(EndInstanceRequest { instance_id: id.into() }).await.unwrap();
    }

    /// Ends everything in order, and makes sure that it is.
    pub(crate) async fn finish(mut self) {
        if self.child.is_none() {
            self.run().await;
        }
        for id in std::mem::take(&mut self.instances) {
            self.end(&id).await;
        }
        for wiping in ["wiping", "actions/wiping"].map(|name| self.data().join(name)) {
            eventually("everything is wiped", || fs::read_dir(&wiping).unwrap().count() == 0).await;
        }
        let mut child = self.child.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "SIGTERM does not stop it"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(status.code(), Some(0));
        let path = self.dir.path().to_str().unwrap().to_owned();
        eventually("no process is left", || processes(&path).is_empty()).await;
    }
}

impl Drop for Buildlet {
    /// After a failed test: every keeper goes, and with it what it keeps.
    fn drop(&mut self) {
        self.kill();
        let Ok(instances) = fs::read_dir(self.data().join("instances")) else { return };
        for instance in instances.flatten() {
            let Ok(socket) = motefarm_net::unix::connect_blocking(&instance.path().join("keeper.sock")) else {
                continue;
            };
            let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials);
            // Without a sandbox what it keeps would live on: everything below it goes first.
            let mut doomed: Vec<i32> = peer.map(|peer| peer.pid()).into_iter().collect();
            let mut next = 0;
            while next < doomed.len() {
                let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", doomed[next])).unwrap_or_default();
                doomed.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
                next += 1;
            }
            for pid in doomed.into_iter().rev() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// Processes whose command line or (where it may be read) environment has `text` in it.
pub(crate) fn processes(text: &str) -> Vec<i32> {
    let own = std::process::id() as i32;
    let has = |file: PathBuf| {
        fs::read(file).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<i32>().ok()?, entry.path())))
        .filter(|(pid, path)| *pid != own && (has(path.join("cmdline")) || has(path.join("environ"))))
        .map(|(pid, _)| pid)
        .collect()
}

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A shell script as a command.
pub(crate) fn sh(script: &str) -> ExecSpec {
    ExecSpec { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..Default::default() }
}

/// All that came of an execution.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Offset one past the last byte received.
    pub(crate) next: u64,
    pub(crate) outcome: Option<ExecOutcome>,
    pub(crate) error: Option<Status>,
}

impl Ran {
    pub(crate) fn ending(&self) -> (exec_outcome::Ending, i32) {
        let outcome = self.outcome.as_ref().unwrap_or_else(|| panic!("no outcome: {:?}", self.error));
        (outcome.ending(), outcome.code)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn code(&self) -> Option<Code> {
        self.error.as_ref().map(Status::code)
    }
}

pub(crate) fn execute_request(instance: &str, exec: &str, spec: &ExecSpec, offset: u64) -> BuildletExecuteRequest {
    BuildletExecuteRequest { instance_id: instance.into(), exec_id: exec.into(), spec: Some(spec.clone()), offset }
}

/// Starts a command and gives its stream.
pub(crate) async fn begin(client: &mut Client, instance: &str, spec: &ExecSpec) -> (String, Streaming<ExecEvent>) {
    let exec = Uuid::new_v4().to_string();
    let stream = client.execute(execute_request(instance, &exec, spec, 0)).await.unwrap().into_inner();
    (exec, stream)
}

/// Reads a stream to its end, checking that offsets follow each other.
pub(crate) async fn collect(mut stream: Streaming<ExecEvent>, from: u64) -> Ran {
    let mut ran = Ran { next: from, ..Default::default() };
    loop {
        match tokio::time::timeout(PATIENCE, stream.message()).await.expect("the stream hangs") {
            Ok(Some(event)) => take(&mut ran, event),
            Ok(None) => return ran,
            Err(status) => {
                ran.error = Some(status);
                return ran;
            }
        }
    }
}

/// Reads until stdout holds `text`.
pub(crate) async fn read_until(stream: &mut Streaming<ExecEvent>, text: &str) -> Ran {
    read_until_from(stream, text, 0).await
}

/// The same for a stream that begins at an offset.
pub(crate) async fn read_until_from(stream: &mut Streaming<ExecEvent>, text: &str, from: u64) -> Ran {
    let mut ran = Ran { next: from, ..Default::default() };
    while !ran.text().contains(text) {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await.expect("the stream hangs").unwrap();
        let event = event.unwrap_or_else(|| panic!("ended before {text:?}: {}", ran.text()));
        take(&mut ran, event);
    }
    ran
}

fn take(ran: &mut Ran, event: ExecEvent) {
    match event.event.unwrap() {
        Event::Started(_) => {}
        Event::Output(chunk) => {
            assert_eq!(chunk.offset, ran.next, "a gap or an overlap");
            assert!(!chunk.data.is_empty() && chunk.data.len() <= 256 * 1024);
            assert!(ran.outcome.is_none());
            ran.next += chunk.data.len() as u64;
            match chunk.stream() {
                output_chunk::Stream::Stderr => ran.stderr.extend_from_slice(&chunk.data),
                _ => ran.stdout.extend_from_slice(&chunk.data),
            }
        }
        Event::Outcome(outcome) => ran.outcome = Some(outcome),
        Event::LeaseEnding(_) => panic!("a buildlet warns nobody"),
    }
}

/// Runs a command to its end.
pub(crate) async fn run(client: &mut Client, instance: &str, spec: &ExecSpec) -> Ran {
    let (_, stream) = begin(client, instance, spec).await;
    collect(stream, 0).await
}

pub(crate) async fn attach(client: &mut Client, instance: &str, exec: &str, offset: u64, follow: bool) -> Ran {
    let request = BuildletAttachExecRequest { instance_id: instance.into(), exec_id: exec.into(), offset, follow };
    match client.attach_exec(request).await {
        Ok(stream) => collect(stream.into_inner(), offset).await,
        Err(status) => Ran { error: Some(status), ..Default::default() },
    }
}
