//! `run -until` and `run -collect`.

use crate::fake_farm::FakeFarm;
use crate::mote::Ran;
use motefarm_proto::mote::exec_outcome::Ending;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _};

const I: &str = "alice-linux-amd64-0";

#[test]
fn it_runs_until_the_output_matches_and_then_collects() {
    let farm = FakeFarm::start();
    let home = farm.home();
    std::fs::write(home.path(&format!("{I}.stdout")), "of another day").unwrap();
    let ran = home.mote(&["run", "-collect", "-until", "FAIL: Test", I, "/flaky", "3"]);
    assert_eq!(ran.code, Some(1), "the last attempt's: {ran:?}");
    assert!(ran.stderr.contains(&format!("# Writing output to {I}.stdout...\n")), "{ran:?}");
    let again = format!("# No match found on \"{I}\", running again...\n");
    assert_eq!(ran.stderr.matches(&again).count(), 2, "{ran:?}");
    assert!(ran.stderr.contains(&format!("# Match found on \"{I}\".\n")), "{ran:?}");
    assert!(ran.stderr.contains(&format!("# Downloading work dir tarball for \"{I}\" to \"{I}.tar.gz\"...\n")));
    assert_eq!(ran.text(), "run 1\nok\nrun 2\nok\nrun 3\n--- FAIL: TestFlaky\n");
    let kept = std::fs::read_to_string(home.path(&format!("{I}.stdout"))).unwrap();
    assert_eq!(kept, "run 3\n--- FAIL: TestFlaky\n", "the last attempt only");
    assert_eq!(std::fs::metadata(home.path(&format!("{I}.tar.gz"))).unwrap().len(), 2_000_000);
    assert_eq!(farm.state().execs.len(), 3, "each attempt is an execution of its own");
    assert_eq!(home.mote(&["attach"]).code, Some(2), "nothing is left to do");
    let json = home.mote(&["run", "-json", "-until=FAIL", I, "/flaky", "1"]).json();
    assert_eq!((json["matched"].as_bool(), json["exit_code"].as_i64()), (Some(true), Some(1)));
}

#[test]
fn a_failed_command_is_collected_too() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["run", "-collect", I, "/lines", "2", "7"]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert_eq!(std::fs::read_to_string(home.path(&format!("{I}.stdout"))).unwrap(), "line 0\nline 1\n");
    assert!(home.path(&format!("{I}.tar.gz")).exists());
    let absent = home.mote(&["run", "-until", "x", I, "/absent"]);
    assert_eq!(absent.code, Some(127), "what can not be started is not tried again: {absent:?}");
    assert_eq!(farm.state().execs.len(), 2);
    let wrong = home.mote(&["run", "-until", "(", I, "/lines"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("-until \"(\""), "{wrong:?}");
}

#[test]
fn members_loop_independently() {
    let farm = FakeFarm::start();
    let home = farm.home();
    assert_eq!(home.mote_in("g", &["create", "-count=2", "linux-amd64"]).code, Some(0));
    // One has failed before: its next run is its fourth.
    for _ in 0..3 {
        home.mote(&["run", "alice-linux-amd64-1", "/flaky", "4"]);
    }
    let ran = home.mote_in("g", &["run", "-collect", "-until", "FAIL", "/flaky", "4"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let again = |name: &str| ran.stderr.matches(&format!("No match found on \"{name}\"")).count();
    assert_eq!((again(I), again("alice-linux-amd64-1")), (3, 0), "{ran:?}");
    for name in [I, "alice-linux-amd64-1"] {
        let kept = std::fs::read_to_string(home.path(&format!("{name}.stdout"))).unwrap();
        assert_eq!(kept, "run 4\n--- FAIL: TestFlaky\n");
        assert!(home.path(&format!("{name}.tar.gz")).exists());
    }
}

#[test]
fn a_killed_client_goes_on_with_loop_and_archive() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let mut child = home.command(["run", "-collect", "-until", "never there", I, "/sleep"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "sleeping\n");
    child.kill().unwrap();
    child.wait().unwrap();
    // It ends without a match while nobody watches; its next attempt begins with `attach`.
    farm.state().execs.values().next().unwrap().end(Ending::Exited, 0);
    let mut attached = home.command(["attach"]).spawn().unwrap();
    farm.wait_for("the second attempt", |s| (s.execs.len() == 2).then_some(()));
    let mut said = BufReader::new(attached.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    // Ctrl-C is the command's, and ends the loop; the command ends by it.
    kill_process(Pid::from_child(&attached), Signal::INT).unwrap();
    farm.wait_for("the signal", |s| s.execs.values().any(|e| !e.signals.is_empty()).then_some(()));
    farm.state().execs.values().for_each(|exec| exec.end(Ending::Signaled, 2));
    let mut stderr = String::new();
    attached.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(attached.wait().unwrap().code(), Some(130), "{stderr}");
    assert!(stderr.contains("No match found") && stderr.contains("goes on running it"), "{stderr}");
    assert_eq!(farm.state().execs.len(), 2, "the loop ended");
    assert!(!home.path(&format!("{I}.tar.gz")).exists());
    // And goes on with the next attach.
    let mut third = home.command(["attach"]).spawn().unwrap();
    farm.wait_for("the third attempt", |s| (s.execs.len() == 3).then_some(()));
    third.kill().unwrap();
    third.wait().unwrap();
}

#[test]
fn an_archive_that_was_cut_off_is_collected_by_attach() {
    let farm = FakeFarm::start();
    let home = farm.home();
    // Its directory can not be written: nothing to collect to.
    let folder = home.path("work");
    std::fs::create_dir(&folder).unwrap();
    let mut command = home.command(["run", "-collect", I, "/sleep"]);
    let mut child = command.current_dir(&folder).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    std::fs::rename(&folder, home.path("moved")).unwrap();
    farm.state().execs.values().next().unwrap().end(Ending::Exited, 0);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(255), "{ran:?}");
    assert!(ran.stderr.contains("mote attach"), "{ran:?}");
    std::fs::rename(home.path("moved"), &folder).unwrap();
    let attached = home.mote(&["attach"]);
    assert_eq!(attached.code, Some(0), "{attached:?}");
    assert_eq!(std::fs::metadata(folder.join(format!("{I}.tar.gz"))).unwrap().len(), 2_000_000);
    assert_eq!(std::fs::read_to_string(folder.join(format!("{I}.stdout"))).unwrap(), "sleeping\n");
}
