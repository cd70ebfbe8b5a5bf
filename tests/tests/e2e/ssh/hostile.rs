//! Peers that do not speak ssh, or speak it badly: an end, a log line, nothing kept.

use super::Reached;
use crate::seconds;
use motefarm_tests::{Dice, wait};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Open files and resident bytes of the coordinator.
fn held(reached: &Reached) -> (usize, u64) {
    let pid = reached.farm.coordinator_pid().unwrap();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (files, resident.trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024)
}

fn connect(reached: &Reached) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", reached.port())).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    stream.set_write_timeout(Some(seconds(20))).unwrap();
    stream
}

/// Reads to the end; the peer must close.
fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return heard,
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return heard,
            Err(error) => panic!("it is not closed: {error}"),
        }
    }
}

#[test]
fn rubbish_is_ended_and_leaves_nothing() {
    let Some(reached) = Reached::new() else { return };
    reached.ssh(&[], "true").ok();
    let (files, _) = held(&reached);
    let mut dice = Dice::new(11);
    for round in 0..60 {
        let mut stream = connect(&reached);
        let rubbish = match round % 4 {
            0 => dice.bytes(100_000),
            1 => b"GET / HTTP/1.1\r\n\r\n".repeat(2000),
            2 => [b"SSH-2.0-rubbish\r\n".as_slice(), &dice.bytes(2000)].concat(),
            // A packet of 4 GiB.
            _ => [b"SSH-2.0-rubbish\r\n".as_slice(), &[0xff; 64]].concat(),
        };
        let _ = stream.write_all(&rubbish);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        until_closed(stream);
    }
    reached.ssh(&[], "true").ok();
    wait::until_true("no file is kept open", seconds(10), || held(&reached).0 <= files);
    assert!(reached.farm.coordinator_log(400).contains("an ssh connection ended before anybody signed in"));
    reached.finish();
}

#[test]
fn half_open_connections_lock_nobody_out() {
    let Some(reached) = Reached::new() else { return };
    reached.ssh(&[], "true").ok();
    let (files, resident) = held(&reached);
    // More than there are places.
    let silent: Vec<_> = (0..400).map(|_| connect(&reached)).collect();
    for _ in 0..3 {
        assert_eq!(reached.ssh(&[], "echo in").ok().out(), "in");
    }
    let (_, now) = held(&reached);
    assert!(now < resident + 64 * 1024 * 1024, "{} MiB more", (now - resident) >> 20);
    wait::until_true("the oldest made way", seconds(10), || held(&reached).0 <= files + 256 + 8);
    drop(silent);
    wait::until_true("no file is kept open", seconds(10), || held(&reached).0 <= files);
    reached.finish();
}

#[test]
fn a_client_that_never_reads_holds_up_only_itself() {
    let Some(reached) = Reached::new() else { return };
    reached.ssh(&[], "true").ok();
    let (files, resident) = held(&reached);
    // ssh stops with all that is on its way to it.
    let stuck: Vec<_> = (0..8).map(|_| reached.ssh(&[], "cat /dev/zero").stdout_to_null().spawn()).collect();
    std::thread::sleep(seconds(2));
    for running in &stuck {
        running.signal(nix::sys::signal::Signal::SIGSTOP);
    }
    std::thread::sleep(seconds(2));
    for _ in 0..3 {
        let ran = reached.ssh(&[], "head -c 20000000 /dev/zero").patience(seconds(30)).ok();
        assert_eq!(ran.stdout.len(), 20_000_000);
    }
    assert!(reached.farm.sh(&reached.instance, "echo runs").out().contains("runs"), "nor do executions wait");
    let (_, now) = held(&reached);
    assert!(now < resident + 96 * 1024 * 1024, "{} MiB more", (now.saturating_sub(resident)) >> 20);
    for running in &stuck {
        running.kill9();
    }
    drop(stuck);
    wait::until_true("no file is kept open", seconds(20), || held(&reached).0 <= files);
    reached.finish();
}

/// A master of OpenSSH that passes on packets of the connection protocol as it is given them and keeps the encryption to
/// itself (its `PROTOCOL.mux`, section 3).
struct Proxy(UnixStream);

impl Proxy {
    const HELLO: u32 = 1;
    const VERSION: u32 = 4;
    const ASK_PROXY: u32 = 0x1000_000f;
    const PROXY: u32 = 0x8000_000f;

    fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(seconds(20))).unwrap();
        let mut proxy = Self(stream);
        proxy.send(&numbers(&[Self::HELLO, Self::VERSION]));
        assert_eq!(proxy.receive()[..4], Self::HELLO.to_be_bytes());
        proxy.send(&numbers(&[Self::ASK_PROXY, 0]));
        assert_eq!(proxy.receive(), numbers(&[Self::PROXY, 0]));
        proxy
    }

    fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap();
        self.0.write_all(&[&length.to_be_bytes(), message].concat()).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut message).unwrap();
        message
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

#[test]
fn channels_of_unknown_types_are_refused_and_the_connection_goes_on() {
    /// No padding, and the message's number.
    const CHANNEL_OPEN: [u8; 2] = [0, 90];
    const OPEN_FAILURE: [u8; 2] = [0, 92];
    let Some(reached) = Reached::new() else { return };
    reached.ssh(&[], "true").ok();
    let before = held(&reached).0;
    // The last one is known, and not served: it says where it comes from.
    let x11 = [&numbers(&[9])[..], b"127.0.0.1", &numbers(&[6000])].concat();
    let kinds = [(&b"nonsense@example.org"[..], &b""[..]), (&[b'x'; 900], b""), (b"x11", &x11)];
    for (n, (kind, more)) in kinds.into_iter().enumerate() {
        // A master for each: OpenSSH's own ends when a proxy leaves whose channel was refused.
        let socket = reached.farm.dir().join(format!("master-{n}"));
        let control = format!("ControlPath={}", socket.display());
        let master = reached.program("ssh").args(["-o", &control, "-M", "-N"]).arg(reached.host()).spawn();
        wait::until_true("a connection stands", seconds(20), || socket.exists());
        let mut proxy = Proxy::open(&socket);
        let length = numbers(&[u32::try_from(kind.len()).unwrap()]);
        proxy.send(&[&CHANNEL_OPEN[..], &length, kind, &numbers(&[0, 1 << 20, 1 << 15]), more].concat());
        assert_eq!(proxy.receive()[..2], OPEN_FAILURE, "{}", kind.escape_ascii());
        let ran = reached.farm.program("ssh".as_ref()).args(["-o", &control, "any", "echo goes on"]).ok();
        assert_eq!(ran.out(), "goes on");
        master.kill9();
    }
    wait::until_true("no file is kept open", seconds(10), || held(&reached).0 <= before);
    reached.finish();
}
