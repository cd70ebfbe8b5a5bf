//! `run`, `attach`, `logs`, `cancel`.

use crate::fake_farm::{FakeFarm, lines};
use crate::mote::{Home, Ran};
use motefarm_proto::mote::exec_outcome::Ending;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

const I: &str = "alice-linux-amd64-0";

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// The child's first line on stdout: the command has begun.
fn first_line(child: &mut Child) -> (String, BufReader<std::process::ChildStdout>) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    (line, out)
}

fn rest(mut child: Child, mut out: BufReader<std::process::ChildStdout>) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    out.read_to_end(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ran { code: child.wait().unwrap().code(), stdout, stderr }
}

#[test]
fn the_commands_output_and_code_come_through() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["run", I, "/lines", "3", "7"]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert_eq!(ran.text(), "line 0\nline 1\nline 2\n");
    assert!(ran.stderr.contains("# output in ") && ran.stderr.contains("# the command exited with 7\n"), "{ran:?}");
    assert_eq!(home.only_output(), ran.stdout);
    let state = farm.state();
    assert_eq!(state.calls, ["execute"], "one call is all it takes");
    let spec = &state.execs.values().next().unwrap().spec;
    assert!(spec.system_level && !spec.merge_output, "stdout and stderr are different pipes here");
}

#[test]
fn each_line_lands_once_however_often_the_connection_breaks() {
    let farm = FakeFarm::start();
    farm.state().cut_every = Some(400_000);
    let home = farm.home();
    let ran = home.mote(&["run", "-o", "out.txt", I, "/lines", "200000"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let expected = lines(200_000);
    assert!(ran.stdout == expected, "stdout has {} bytes of {}", ran.stdout.len(), expected.len());
    assert!(std::fs::read(home.path("out.txt")).unwrap() == expected);
    assert!(ran.stderr.contains("# lost the farm, trying again...\n# reconnected\n"), "{}", ran.stderr);
    let state = farm.state();
    assert!(state.calls.iter().filter(|call| **call == "attach").count() >= 4, "{:?}", state.calls);
    assert_eq!(state.execs.len(), 1);
}

#[test]
fn a_killed_client_leaves_the_command_and_attach_goes_on_exactly() {
    let farm = FakeFarm::start();
    let home = farm.home();
    // A stdout that nobody reads: the client is somewhere in the middle when it is killed.
    let mut child = home.command(["run", I, "/lines", "1000000", "3"]).spawn().unwrap();
    let (line, out) = first_line(&mut child);
    assert_eq!(line, "line 0\n");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(out);
    let before = home.only_output();
    let expected = lines(1_000_000);
    assert!(!before.is_empty() && expected.starts_with(&before));
    let ran = home.mote(&["attach"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(home.only_output() == expected);
    assert!(ran.stdout == expected[before.len()..], "the terminal goes on where the file ended");
    assert_eq!(farm.state().execs.len(), 1);
    let again = home.mote(&["attach"]);
    assert_eq!(again.code, Some(2), "nothing is interrupted any more: {}", again.stderr);
    let logs = home.mote(&["logs"]);
    assert!(logs.stdout == expected && logs.code == Some(0));
}

#[test]
fn a_first_ctrl_c_is_the_commands_and_a_second_ends_it() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let mut child = home.command(["run", I, "/sleep"]).spawn().unwrap();
    let (line, out) = first_line(&mut child);
    assert_eq!(line, "sleeping\n");
    signal(&child, Signal::INT);
    let heard =
        farm.wait_for("the signal", |s| s.execs.values().next().map(|e| e.signals.clone()).filter(|s| !s.is_empty()));
    assert_eq!(heard, [2]);
    signal(&child, Signal::INT);
    let ran = rest(child, out);
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stderr.contains("# the command was cancelled"), "{ran:?}");
}

#[test]
fn a_client_told_to_go_leaves_the_command_running() {
    for asked in [Signal::TERM, Signal::HUP] {
        let farm = FakeFarm::start();
        let home = farm.home();
        let mut child = home.command(["run", I, "/sleep"]).spawn().unwrap();
        let (_, out) = first_line(&mut child);
        signal(&child, asked);
        let ran = rest(child, out);
        assert_eq!(ran.code, Some(255), "{ran:?}");
        assert!(ran.stderr.contains("# still running; mote attach "), "{ran:?}");
        assert!(!farm.state().calls.contains(&"cancel"));
        let state = farm.state();
        state.execs.values().next().unwrap().end(Ending::Exited, 4);
        drop(state);
        assert_eq!(home.mote(&["attach", I]).code, Some(4));
    }
}

#[test]
fn a_reader_that_goes_away_is_told_to_the_command() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let mut child = home.command(["run", I, "/flood"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(128 + 13));
    assert_eq!(home.only_output().len(), 16 * 1024 * 1024, "the file has what the terminal lost");
}

#[test]
fn output_in_bulk_is_acknowledged() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let mut child = home.command(["run", "-json", I, "/flood"]).spawn().unwrap();
    farm.wait_for("an acknowledgement", |s| (s.acked >= 4 * 1024 * 1024).then_some(()));
    farm.state().execs.values().next().unwrap().end(Ending::Exited, 0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn stdin_arrives_whole_through_a_small_pipe_and_cuts() {
    let farm = FakeFarm::start();
    farm.state().cut_every = Some(usize::MAX);
    let home = farm.home();
    let sent = lines(40_000);
    let mut child = home.command(["run", "--stdin", I, "/cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&sent).unwrap();
    drop(stdin);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let state = farm.state();
    let exec = state.execs.values().next().unwrap();
    assert!(exec.stdin == sent, "{} of {} bytes", exec.stdin.len(), sent.len());
    assert!(exec.spec.stdin);
}

#[test]
fn the_two_outputs_stay_apart_unless_they_are_one_place() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["-quiet", "run", I, "/mixed"]);
    assert_eq!((ran.text(), ran.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(home.only_output(), b"out\nerr\n", "the file has both in order");
    let (read, write) = std::io::pipe().unwrap();
    let mut child =
        home.command(["-quiet", "run", I, "/sleep"]).stdout(write.try_clone().unwrap()).stderr(write).spawn().unwrap();
    let merged = farm
        .wait_for("the run", |s| s.execs.values().find(|e| e.spec.program == "/sleep").map(|e| e.spec.merge_output));
    assert!(merged);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(read);
}

#[test]
fn a_program_reads_one_object() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["run", "--json", I, "/lines", "2", "5"]);
    let body = ran.json();
    assert_eq!(
        (body["ending"].as_str(), body["code"].as_i64(), body["exit_code"].as_i64()),
        (Some("exited"), Some(5), Some(5))
    );
    assert_eq!(std::fs::read(body["output_file"].as_str().unwrap()).unwrap(), lines(2));
    assert_eq!(ran.code, Some(5));
    let refused = home.mote(&["run", "--json", "nobody", "/lines"]);
    assert_eq!((refused.code, refused.json()["error"]["kind"].as_str()), (Some(255), Some("not_found")));
    let killed = home.mote(&["run", I, "/killed"]);
    assert_eq!(killed.code, Some(137));
    assert!(killed.stderr.contains("signal 9 (SIGKILL)"), "{killed:?}");
    let absent = home.mote(&["run", I, "/absent"]);
    assert_eq!(absent.code, Some(127));
    assert!(absent.stderr.contains("could not be started: no such file"), "{absent:?}");
}

#[test]
fn what_never_began_leaves_no_record() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let refused = home.mote(&["run", "nobody", "/lines", "1"]);
    assert_eq!(refused.code, Some(255));
    assert!(refused.stderr.contains("no instance \"nobody\""), "{refused:?}");
    assert_eq!(std::fs::read_dir(home.path("cache/runs")).unwrap().count(), 0);
    let gone = Home::new("127.0.0.1:1", &farm.ca_pem);
    assert_eq!(gone.mote(&["run", I, "/lines"]).code, Some(255));
    assert_eq!(std::fs::read_dir(gone.path("cache/runs")).unwrap().count(), 0);
}

#[test]
fn a_detached_run_is_attached_to_by_id_or_instance() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["run", "-detach", I, "/lines", "4", "6"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let attached = home.mote(&["attach", ran.text().trim()]);
    assert_eq!((attached.code, attached.stdout), (Some(6), lines(4)));
    // From another machine: nothing is known there.
    let elsewhere = farm.home();
    let attached = elsewhere.mote(&["attach", I]);
    assert_eq!((attached.code, attached.stdout), (Some(6), lines(4)));
    assert_eq!(elsewhere.only_output(), lines(4));
    let logs = elsewhere.mote(&["logs", "--json", I]);
    let last: serde_json::Value = serde_json::from_str(logs.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["exit_code"], 6);
}

#[test]
fn cancel_takes_an_instance_for_all_that_runs_there() {
    let farm = FakeFarm::start();
    let home = farm.home();
    for _ in 0..2 {
        home.mote(&["run", "-detach", I, "/sleep"]);
    }
    home.mote(&["run", "-detach", I, "/lines", "1"]);
    let cancelled = home.mote(&["cancel", "--json", I]);
    assert_eq!(cancelled.json()["instances"][0]["cancelled"].as_array().unwrap().len(), 2, "{cancelled:?}");
    assert_eq!(home.mote(&["attach"]).code, Some(0), "the newest interrupted one is /lines");
    assert_eq!(home.mote(&["attach"]).code, Some(130));
}
