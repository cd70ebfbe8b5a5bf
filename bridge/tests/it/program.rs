//! The program itself: from its command line to its end, killed in between.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::Client;
use crate::goma_client::blob::Blob;
use crate::goma_client::wire::{Fields, Message};
use crate::harness::{Project, apart, lists_files};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Barrier};

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

/// The service manager waits for the port, not for a server that takes connections and says nothing.
#[test]
fn it_is_ready_whatever_its_server_does() {
    let dir = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = std::os::unix::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut child = program()
        .args(["serve", "--listen", "127.0.0.1:0", "--backend", &silent.local_addr().unwrap().to_string()])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = [0; 64];
    let received = manager.recv(&mut said);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said[..received.unwrap()].starts_with(b"READY=1"));
}

/// What is meant is not what would be taken instead.
#[test]
fn a_farm_that_can_not_be_is_told_and_not_replaced_by_another() {
    let ran = program().arg("check-config").env("MOTE_FARM", "../x").output().unwrap();
    let words = words(&ran);
    assert_eq!(ran.status.code(), Some(64), "{words}");
    assert!(words.contains("\"../x\"") && words.contains("MOTE_FARM"), "{words}");
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

/// What an operator is promised of memory, in the whole program and its allocator.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_requests_at_once_stay_within_memory() {
    const REQUESTS: u8 = 64;
    const CHUNKS: u8 = 4;
    const CHUNK_BYTES: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    fake.state().discards = true;
    let (data_dir, backend) = (dir.path().join("data"), fake.url());
    let peak = apart(move || {
        let serving = Serving::start(&data_dir, &backend);
        let begin = Arc::new(Barrier::new(usize::from(REQUESTS)));
        let requests: Vec<_> = (0..REQUESTS)
            .map(|n| {
                let (address, begin) = (serving.address.clone(), begin.clone());
                std::thread::spawn(move || {
                    let chunk = |offset: u8| Blob {
                        kind: 3,
                        offset: Some(i64::from(offset) * CHUNK_BYTES as i64),
                        content: Some(vec![n * CHUNKS + offset; CHUNK_BYTES]),
                        size: CHUNK_BYTES as i64,
                        keys: vec![],
                    };
                    let body = Message::default().all(1, (0..CHUNKS).map(|offset| chunk(offset).encode())).0;
                    begin.wait();
                    let mut stream = TcpStream::connect(address).unwrap();
                    let head = "POST /cxx-compiler-service/s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
                    write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
                    stream.write_all(&body).unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    let at = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
                    let keys = Fields::read(&answer[at..]).unwrap().texts(1);
                    assert!(keys.len() == usize::from(CHUNKS) && keys.iter().all(|key| key.len() == 64), "{keys:?}");
                })
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().unwrap());
        let status = std::fs::read_to_string(format!("/proc/{}/status", serving.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() / 1024
    })
    .await;
    assert_eq!(fake.state().written.len(), usize::from(REQUESTS) * usize::from(CHUNKS));
    assert!(peak < 150, "{peak} MiB were resident");
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
