//! What the real program tells systemd.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends what it started, also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let size = socket.recv(&mut buffer).expect("no word within its time");
    String::from_utf8(buffer[..size].to_vec()).unwrap()
}

#[test]
fn it_is_ready_when_it_serves_and_says_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "listen = '127.0.0.1:0'\n[local]\nenabled = false\n").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_mote-coordinator"));
    program.arg("serve").arg("--config").arg(&config).arg("--data-dir").arg(dir.path().join("data"));
    program.env("NOTIFY_SOCKET", dir.path().join("notify")).env("MOTE_CONFIG_DIR", dir.path().join("client"));
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running(program.spawn().unwrap());
    assert!(next(&socket).lines().any(|line| line == "READY=1"));
    // Ready means that its port answers.
    let profile = std::fs::read_to_string(dir.path().join("data/profile.toml")).unwrap();
    let server = profile.lines().find_map(|line| line.strip_prefix("server = ")).unwrap().trim_matches('"').to_owned();
    std::net::TcpStream::connect(server).unwrap();
    let pid = i32::try_from(running.0.id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(next(&socket).lines().any(|line| line == "STOPPING=1"));
    assert!(running.0.wait().unwrap().success());
}
