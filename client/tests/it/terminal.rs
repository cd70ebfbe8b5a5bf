//! Progress, which only a terminal sees.

use crate::fake_farm::FakeFarm;
use crate::mote::Home;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::Read as _;
use std::sync::mpsc;
use std::time::Duration;

const I: &str = "alice-linux-amd64-0";

/// What a command that does not end writes to a terminal, until it shows `until` or for `patience`.
fn shown(home: &Home, args: &[&str], no_color: bool, until: &str, patience: Duration) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::from(rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    let mut command = home.command(args);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let mut child = command.stderr(slave).spawn().unwrap();
    drop(command);
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut master = File::from(master);
        let mut buffer = [0; 4096];
        // EIO: the other side is closed.
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = Vec::new();
    let text = |seen: &[u8]| String::from_utf8_lossy(seen).into_owned();
    let end = std::time::Instant::now() + patience;
    while !text(&seen).contains(until) {
        match pieces.recv_timeout(end.saturating_duration_since(std::time::Instant::now())) {
            Ok(piece) => seen.extend(piece),
            Err(_) => break,
        }
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
    text(&seen)
}

#[test]
fn a_terminal_sees_that_something_moves_unless_it_is_to_be_quiet() {
    let farm = FakeFarm::start();
    farm.state().ahead = u64::MAX;
    let home = farm.home();
    let ten = Duration::from_secs(10);
    let moving = shown(&home, &["create", "linux-amd64"], true, "linux-amd64", ten);
    assert!(moving.contains("linux-amd64"), "{moving:?}");
    assert!(!moving.contains("\x1b[3"), "no colours: {moving:?}");
    // The five seconds' word is a message too, so a bar would show before it.
    let quiet = shown(&home, &["-quiet", "create", "linux-amd64"], false, "linux-amd64", Duration::from_secs(2));
    assert_eq!(quiet, "");
}

#[test]
fn a_terminal_sees_how_far_content_is() {
    let farm = FakeFarm::start();
    farm.state().stalls = true;
    let home = farm.home();
    std::fs::create_dir(home.path("proj")).unwrap();
    std::fs::write(home.path("proj/a.txt"), "one").unwrap();
    std::fs::write(home.path("x.tar"), vec![7; 3_000_000]).unwrap();
    let commands: [(&[&str], &str); 4] = [
        (&["push", "-C", "proj", I], "upload ["),
        (&["put", I, "x.tar"], "of 3.0 MB"),
        (&["puttar", I, "x.tar"], "of 3.0 MB"),
        (&["gettar", I], "1.0 MB"),
    ];
    for (args, bar) in commands {
        let seen = shown(&home, args, true, bar, Duration::from_secs(10));
        assert!(seen.contains(bar), "{args:?}: {seen:?}");
    }
}

#[test]
fn errors_are_red_on_a_terminal_unless_colours_are_not_wanted() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let red = shown(&home, &["create", "nonsense"], false, "host type", Duration::from_secs(10));
    assert!(red.contains("\x1b[1;31merror:\x1b[0m"), "{red:?}");
    let plain = shown(&home, &["create", "nonsense"], true, "host type", Duration::from_secs(10));
    assert!(plain.contains("# error:") && !plain.contains("\x1b[1;31m"), "{plain:?}");
}
