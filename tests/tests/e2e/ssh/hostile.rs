//! Peers that do not speak ssh, or speak it badly: an end, a log line, nothing kept.

use super::Reached;
use crate::seconds;
use motefarm_tests::{Dice, wait};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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

/// A packet of the connection protocol, as `ssh -O proxy` takes and gives them: uncompressed, in the clear, unpadded.
fn packet(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let payload: Vec<u8> = fields.concat();
    let length = u32::try_from(payload.len() + 2).unwrap();
    [&length.to_be_bytes(), &[0, kind], &payload[..]].concat()
}

#[test]
fn channels_of_unknown_types_are_refused_and_the_connection_goes_on() {
    const CHANNEL_OPEN: u8 = 90;
    const OPEN_FAILURE: u8 = 92;
    let Some(reached) = Reached::new() else { return };
    let socket = format!("ControlPath={}/master", reached.farm.dir().display());
    let master = reached.program("ssh").args(["-o", &socket, "-M", "-N"]).arg(reached.host()).spawn();
    wait::until_true("a connection stands", seconds(20), || reached.farm.dir().join("master").exists());
    let before = held(&reached).0;
    // The master passes on what it is given, and keeps the encryption to itself.
    let mut proxy = std::process::Command::new("ssh")
        .env_clear()
        .envs(reached.farm.env())
        .args(["-o", &socket, "-O", "proxy", "any"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asks, mut hears) = (proxy.stdin.take().unwrap(), proxy.stdout.take().unwrap());
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    for (n, kind) in [&b"nonsense@example.org"[..], b"x11", b"auth-agent@openssh.com", &[0xff; 900]].iter().enumerate()
    {
        let length = u32::try_from(kind.len()).unwrap().to_be_bytes();
        let ours = u32::try_from(n).unwrap();
        asks.write_all(&packet(CHANNEL_OPEN, &[&length, kind, &numbers(&[ours, 1 << 20, 1 << 15])])).unwrap();
        let mut head = [0; 6];
        hears.read_exact(&mut head).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize - 2];
        hears.read_exact(&mut rest).unwrap();
        assert_eq!((head[5], &rest[..4]), (OPEN_FAILURE, &ours.to_be_bytes()[..]), "{}", kind.escape_ascii());
    }
    let ran = reached.farm.program("ssh".as_ref()).args(["-o", &socket, "any", "echo goes on"]).ok();
    assert_eq!(ran.out(), "goes on");
    wait::until_true("no file is kept open", seconds(10), || held(&reached).0 <= before);
    drop((asks, hears));
    proxy.wait().unwrap();
    master.kill9();
    drop(master);
    reached.finish();
}
