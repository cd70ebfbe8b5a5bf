//! The relay as a program: in the place and under the name of `http_proxy`, for its user and for others.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::Client;
use crate::harness::{Bridge, Project, apart, lists_files};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that serves; killed with this.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    /// Waits until it says where it serves.
    fn start(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let address =
                line.split_once(" serves address=").map(|(_, rest)| rest.split(' ').next().unwrap().to_owned());
            said.push(line);
            address
        });
        let address = address.unwrap_or_else(|| panic!("{said:?}"));
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("/bin/sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn bridge() -> (tempfile::TempDir, Bridge) {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "inputs.read_local = true\n").await;
    (dir, bridge)
}

/// As goma_ctl.py starts it: with a host whose port it has cut off. Where the server really is, the environment
/// says.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_client_s_directory_stands_in_for_http_proxy() {
    let (dir, bridge) = bridge().await;
    let link = dir.path().join("http_proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mote-bridge"), &link).unwrap();
    let upstream = format!("http://{}", bridge.address);
    let project = Project::new(&[("a.c", b"int a;"), ("b.h", &b"int b; ".repeat(500))]);
    let task = project.task(&["a.c", "b.h"], &["a.o"]);
    apart(move || {
        let args = ["--server-host", "127.0.0.1", "--port", "0"];
        let mut serving = Serving::start(&link, &args, &[("MOTE_BRIDGE_UPSTREAM", &upstream)]);
        assert!(serving.address.starts_with("127.0.0.1:"), "{}", serving.address);
        let mut client = Client::new(&serving.address);
        client.files_are_new = false;
        // Through a relay of its own user's, the bridge still reads what that user may read.
        assert_eq!(client.compile(&task).unwrap().attempts, 1);
        // An interrupt of the build is not for it.
        serving.signal("INT");
        assert!(Client::new(&serving.address).ping().is_ok());
        assert!(serving.child.try_wait().unwrap().is_none());
        serving.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&serving.address).is_ok() {
            assert!(Instant::now() < deadline, "it goes on accepting");
            std::thread::yield_now();
        }
        drop(client);
        assert!(serving.child.wait().unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_service_runs_beside_it_and_env_leads_there() {
    let (dir, bridge) = bridge().await;
    let upstream = bridge.address.to_string();
    apart(move || {
        let program = Path::new(env!("CARGO_BIN_EXE_mote-bridge"));
        let context = dir.path().join("luci.json");
        let context = context.to_str().unwrap();
        let args = ["relay", "-server-host", &upstream, "-port=0", "--local-auth", context];
        let serving = Serving::start(program, &args, &[]);
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(context).unwrap()).unwrap();
        assert!(file["local_auth"]["rpc_port"].as_u64().is_some_and(|port| port > 0), "{file}");
        let asked = Command::new(program).args(["env", "--bridge", &serving.address, "--local-auth", context]).output();
        let lines = String::from_utf8(asked.unwrap().stdout).unwrap();
        assert!(lines.contains(&format!("export LUCI_CONTEXT='{context}'\n")), "{lines}");
        assert!(lines.contains("unset GOMA_HTTP_AUTHORIZATION_FILE\n"), "{lines}");
        serving.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(60);
        while Path::new(context).exists() {
            assert!(Instant::now() < deadline, "the file stays");
            std::thread::sleep(Duration::from_millis(20));
        }
    })
    .await;
}

#[test]
fn a_bridge_gives_tokens_too_where_its_own_user_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mote-bridge"));
    let (context, data, file) = (dir.path().join("luci.json"), dir.path().join("data"), dir.path().join("bridge.toml"));
    let [context, data, file] = [&context, &data, &file].map(|path| path.to_str().unwrap());
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", "--data-dir", data, "--local-auth", context];
    let serving = Serving::start(program, &args, &[]);
    assert!(std::fs::metadata(context).is_ok());
    // What is given there is as good as nothing shown.
    let mut client = Client::new(&serving.address);
    client.http.authorization = Some("Bearer own-user".to_owned());
    assert!(client.ping().unwrap().contains("auth=own-user"));

    motefarm_net::private_file::write(&dir.path().join("tokens"), b"alice s3cret\n").unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(file, format!("[auth]\nanonymous = \"nobody\"\ntoken_file = {tokens:?}\n")).unwrap();
    let ran = Command::new(program).args(args).args(["--config", file]).env_clear().output().unwrap();
    let words = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.code() == Some(64) && words.contains("auth.local_auth"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_of_the_machine_get_nothing_of_the_relay_s_user() {
    const OTHER: u32 = 65_534;
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED: only root can be somebody else");
        return;
    }
    let (_dir, bridge) = bridge().await;
    let upstream = format!("http://{}", bridge.address);
    apart(move || {
        let program = Path::new(env!("CARGO_BIN_EXE_mote-bridge"));
        let serving = Serving::start(program, &["relay", "--server-host", &upstream, "--port", "0"], &[]);
        let (host, port) = serving.address.split_once(':').unwrap();
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; \
             printf 'POST /cxx-compiler-service/ping HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
             cat <&3"
        );
        let ping = |uid: u32| {
            let ran = Command::new("/bin/bash").args(["-c", &script]).uid(uid).gid(uid).current_dir("/").output().unwrap();
            String::from_utf8_lossy(&ran.stdout).lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(ping(0), "HTTP/1.1 200 OK");
        assert_eq!(ping(OTHER), "HTTP/1.1 401 Unauthorized");
    })
    .await;
}

#[test]
fn a_wrong_command_line_is_told_before_a_port_opens() {
    let program = env!("CARGO_BIN_EXE_mote-bridge");
    for (args, expected) in [
        (&["relay"][..], "no server is named"),
        (&["relay", "-server-host", "ftp://x"], "ftp:// is not spoken"),
        (&["relay", "-server-host", "localhost:19080"], "is the relay itself"),
        (&["relay", "-server-host", "h", "--token-file", "/nowhere/token"], "/nowhere/token"),
        (&["relay", "-server-host", "h", "--ca-file", "/nowhere/ca"], "can not read /nowhere/ca"),
    ] {
        let ran = Command::new(program).args(args).env_clear().output().unwrap();
        let words = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(64), "{words}");
        assert!(words.contains(expected), "{args:?}: {words}");
    }
}

/// A client that was told to speak TLS to the relay gets an end, not a hang.
#[tokio::test(flavor = "multi_thread")]
async fn tls_to_the_relay_ends_at_once() {
    let (_dir, bridge) = bridge().await;
    let upstream = format!("http://{}", bridge.address);
    apart(move || {
        let program = Path::new(env!("CARGO_BIN_EXE_mote-bridge"));
        let serving = Serving::start(program, &["relay", "--server-host", &upstream, "--port", "0"], &[]);
        let mut stream = TcpStream::connect(&serving.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
        let mut answer = Vec::new();
        // A reset is an end as well: what we sent was not read.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    })
    .await;
}
