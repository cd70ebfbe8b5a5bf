//! Commands and shells: what goes in, what comes out, how it ends.

use super::Reached;
use crate::seconds;
use motefarm_tests::{Dice, processes, wait};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

#[test]
fn commands_are_binary_clean_and_end_as_they_end() {
    let Some(reached) = Reached::new() else { return };
    let bytes = Dice::new(7).bytes(3_000_000);
    let ran = reached.ssh(&[], "cat").stdin(bytes.clone()).ok();
    assert!(ran.stdout == bytes, "{} bytes came back of {}", ran.stdout.len(), bytes.len());
    let ran = reached.ssh(&[], "echo out; echo err >&2; exit 7").run();
    assert_eq!((ran.status.code(), ran.out().as_str()), (Some(7), "out"));
    assert!(ran.stderr.contains("err"));
    reached.ssh(&[], "kill -KILL $$").run().fails(255);
    let ran = reached.ssh(&["-o", "SetEnv=MINE=yes"], "echo $MINE $PWD $HOME $USER; command -v sh").ok();
    assert!(ran.out().starts_with("yes "), "{}", ran.out());
    assert!(ran.out().contains(" mote\n"), "{}", ran.out());
    // Files of a push are where a command begins.
    std::fs::write(reached.instance.work().join("here"), "1").unwrap();
    assert_eq!(reached.ssh(&[], "cat here").ok().out(), "1");
    // What one reads and what another says do not wait for each other: far more comes than went in.
    let ran =
        reached.ssh(&[], "while read -r n; do head -c $n /dev/zero; done | wc -c").stdin("5000000\n".repeat(8)).ok();
    assert_eq!(ran.out(), "40000000");
    reached.finish();
}

#[test]
fn mote_ssh_runs_a_command_over_a_connection_that_stands() {
    let Some(reached) = Reached::new() else { return };
    let name = reached.instance.name.clone();
    for n in 0..3 {
        let ran = reached.farm.mote(["ssh", &name, "echo", "hello", &n.to_string()]).ok();
        assert_eq!(ran.out(), format!("hello {n}"));
    }
    reached.farm.mote(["ssh", &name, "exit 9"]).run().fails(9);
    reached.farm.mote(["ssh", "--no-reuse", &name, "exit 8"]).run().fails(8);
    reached.farm.mote(["ssh", "nobody-linux-0", "true"]).run().fails(255).says(&["nobody-linux-0"]);
    // The connection that stands is asked to go: it is a process that outlives its calls.
    for socket in std::fs::read_dir(reached.farm.dir().join("cache/ssh")).into_iter().flatten().flatten() {
        let path = format!("ControlPath={}", socket.path().display());
        reached.farm.program("ssh".as_ref()).args(["-F", "none", "-o", &path, "-O", "exit", "any"]).run();
    }
    reached.finish();
}

#[test]
fn a_shell_has_a_terminal_that_follows_its_window() {
    let Some(reached) = Reached::new() else { return };
    let size = |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size(30, 90)), None).unwrap();
    let end = || std::process::Stdio::from(pair.slave.as_fd().try_clone_to_owned().unwrap());
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(&reached.config).arg("-tt").arg(reached.host());
    ssh.env_clear().envs(reached.farm.env()).env("TERM", "vt100").stdin(end()).stdout(end()).stderr(end());
    let mut child = ssh.spawn().unwrap();
    drop(pair.slave);
    let screen = Arc::new(Mutex::new(String::new()));
    let (mut reads, mut types) =
        (File::from(pair.master.as_fd().try_clone_to_owned().unwrap()), File::from(pair.master));
    let shown = screen.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = reads.read(&mut buffer) {
            shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
    let until = |text: &str| {
        let found = wait::maybe(seconds(20), || screen.lock().unwrap().contains(text).then_some(()));
        assert!(found.is_some(), "{text:?} did not come: {:?}", screen.lock().unwrap());
    };
    types.write_all(b"stty size; echo $TERM; tty\n").unwrap();
    until("30 90");
    until("vt100");
    until("/dev/pts/");
    rustix::termios::tcsetwinsize(
        &types,
        rustix::termios::Winsize { ws_row: 41, ws_col: 123, ws_xpixel: 0, ws_ypixel: 0 },
    )
    .unwrap();
    // ssh hears of it by a signal, as from a terminal that it is the session of.
    processes::signal(i32::try_from(child.id()).unwrap(), nix::sys::signal::Signal::SIGWINCH);
    wait::until_true("the window is as large there", seconds(20), || {
        types.write_all(b"stty size\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        screen.lock().unwrap().contains("41 123")
    });
    // What speaks has the terminal: a Ctrl-C typed while the shell still starts it would be the shell's, as at any
    // terminal.
    types.write_all(b"sh -c 'echo sta''rted; exec sleep 1000'\n").unwrap();
    until("started");
    types.write_all(b"\x03").unwrap();
    types.write_all(b"echo a''fter; exit 6\n").unwrap();
    until("after");
    assert_eq!(child.wait().unwrap().code(), Some(6));
    reached.finish();
}

#[test]
fn what_runs_ends_with_its_connection_and_a_restart_invalidates_nothing() {
    let Some(reached) = Reached::new() else { return };
    let mark = format!("86401.{}", std::process::id());
    let mut running = reached.ssh(&[], &format!("echo up; exec sleep {mark}")).spawn();
    running.until_stdout("up", seconds(20));
    running.kill9();
    wait::until_true("the command ended", seconds(10), || processes::with_arg(&mark).is_empty());
    let before = std::fs::read(reached.certificate()).unwrap();
    let mut running = reached.ssh(&[], &format!("echo up; exec sleep {mark}")).spawn();
    running.until_stdout("up", seconds(20));
    reached.farm.kill_coordinator();
    reached.farm.start_coordinator();
    assert_eq!(running.wait().status.code(), Some(255));
    wait::until_true("the command ended", seconds(10), || processes::with_arg(&mark).is_empty());
    assert_eq!(reached.ssh(&[], "echo again").ok().out(), "again");
    assert!(std::fs::read(reached.certificate()).unwrap() == before, "the certificate is still good");
    reached.finish();
}

#[test]
fn fifty_sessions_at_once_leave_nothing_behind() {
    let Some(reached) = Reached::new() else { return };
    let running: Vec<_> = (0..50).map(|n| reached.ssh(&[], &format!("sleep 1; echo {n}")).spawn()).collect();
    for (n, running) in running.into_iter().enumerate() {
        assert_eq!(running.wait().ok().out(), n.to_string());
    }
    reached.finish();
}

#[test]
fn an_open_shell_keeps_the_lease_and_its_end_is_told() {
    let Some(reached) = Reached::of(crate::farm().idle("3s")) else { return };
    let mut running = reached.ssh(&[], "echo up; exec sleep 1000").spawn();
    running.until_stdout("up", seconds(20));
    std::thread::sleep(seconds(7));
    assert_eq!(reached.farm.state(&reached.instance.name).as_deref(), Some("ready"), "an open channel renews");
    reached.farm.mote(["destroy", &reached.instance.name]).ok();
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(255));
    assert!(ran.stderr.contains("has ended"), "{}", ran.stderr);
    let config = reached.certificate().with_file_name("config");
    assert!(!std::fs::read_to_string(config).unwrap().contains(&reached.host()), "destroy keeps the configuration");
    reached.finish();
}
