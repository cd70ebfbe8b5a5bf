//! The program itself: from its command line to its end, killed in between.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::Client;
use crate::harness::{Project, apart, lists_files};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_mote-bridge"));
    program.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    program
}

pub(crate) fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A bridge that serves; ended with this.
pub(crate) struct Serving {
    child: Child,
    pub(crate) address: String,
}

impl Serving {
    fn start(data_dir: &Path, backend: &str) -> Self {
        Self::with(data_dir, &["--listen", "127.0.0.1:0", "--backend", backend])
    }

    /// With these arguments.
    pub(crate) fn with(data_dir: &Path, args: &[&str]) -> Self {
        let mut child =
            program().arg("serve").args(args).arg("--data-dir").arg(data_dir).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("the bridge serves address=")?.1.split(' ').next()?.to_owned()))
            .expect("it says where it serves");
        // Read on, so that it can go on talking.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_survives_the_death_of_the_bridge_and_can_be_explained() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let (data_dir, backend) = (dir.path().join("data"), fake.url());
    let project = Project::new(&[("a.c", b"int a;"), ("big.h", &b"int b; ".repeat(500))]);
    let task = project.task(&["a.c", "big.h"], &["a.o"]);
    apart(move || {
        let serving = Serving::start(&data_dir, &backend);
        let first = Client::new(&serving.address).compile(&task).unwrap();
        assert_eq!((first.attempts, first.cache_hit), (1, 0));

        let mut second = program();
        second.args(["serve", "--listen", "127.0.0.1:0", "--backend", &backend, "--data-dir"]);
        let refused = second.arg(&data_dir).output().unwrap();
        assert!(
            !refused.status.success() && words(&refused).contains("another mote-bridge uses"),
            "{}",
            words(&refused)
        );

        // By SIGKILL, in Drop.
        drop(serving);
        let serving = Serving::start(&data_dir, &backend);
        let mut client = Client::new(&serving.address);
        client.files_are_new = false;
        let again = client.compile(&task).unwrap();
        assert_eq!((again.attempts, again.cache_hit), (1, 1));

        let told = program().args(["explain", "test@host:8088/1/1", "--bridge", &serving.address]).output().unwrap();
        assert!(told.status.success() && words(&told).contains("outcome       cached"), "{}", words(&told));
        let unknown = program().args(["explain", "nothing", "--bridge", &serving.address]).output().unwrap();
        assert!(!unknown.status.success() && words(&unknown).contains("remembers no compile"), "{}", words(&unknown));
    })
    .await;
    assert_eq!(fake.state().ran.len(), 1);
}

#[test]
fn a_wrong_configuration_is_told_before_a_port_opens() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.toml");
    std::fs::write(&file, "backend.address = \"a:1\"\nlimits.deadline = \"20m\"\n").unwrap();
    for (args, expected) in [
        (&["serve"][..], "--backend"),
        (&["check-config", "--backend", "ftp://x:1"], "ftp:// is not spoken"),
        (&["check-config", "--config", file.to_str().unwrap()], "610 s"),
    ] {
        let ran = program().args(args).arg("--data-dir").arg(dir.path()).output().unwrap();
        assert_eq!(ran.status.code(), Some(64), "{}", words(&ran));
        assert!(words(&ran).contains(expected), "{}", words(&ran));
    }
    let good = program().args(["check-config", "--backend", "a:1", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert!(good.status.success() && words(&good).contains("backend: grpc://a:1 instance \"\""), "{}", words(&good));
}
