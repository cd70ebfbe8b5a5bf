//! Groups: who is acted on, and how each is told of.

use crate::fake_farm::FakeFarm;

const NAMES: [&str; 2] = ["alice-linux-amd64-0", "alice-linux-amd64-1"];

/// A farm with two instances in the group `g`.
fn two() -> FakeFarm {
    let farm = FakeFarm::start();
    let created = farm.home().mote_in("g", &["create", "-count=2", "linux-amd64"]);
    assert_eq!(created.code, Some(0), "{created:?}");
    assert_eq!(farm.state().groups["g"], NAMES);
    farm.state().calls.clear();
    farm
}

#[test]
fn groups_are_managed_and_listed_as_gomote_does() {
    let farm = two();
    let home = farm.home();
    assert_eq!(home.mote(&["group", "create", "h"]).code, Some(0));
    let again = home.mote(&["group", "create", "h"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(
        home.mote(&["group", "list"]).text(),
        "Name\tInstances\ng\talice-linux-amd64-0\n\talice-linux-amd64-1\nh\t(none)\n"
    );
    assert_eq!(home.mote(&["-group", "h", "group", "add", NAMES[1]]).code, Some(0));
    assert_eq!(
        home.mote(&["list"]).text(),
        "alice-linux-amd64-0 (g)\tlinux-amd64\tbox\texpires in 30m0s\n\
         alice-linux-amd64-1 (g, h)\tlinux-amd64\tbox\texpires in 30m0s\n"
    );
    let unknown = home.mote(&["-group=h", "group", "add", "nobody-linux-0"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("nobody-linux-0"), "{unknown:?}");
    let removed = home.mote(&["group", "remove", "-group=h", NAMES[0], NAMES[1]]);
    assert_eq!(removed.code, Some(1));
    assert!(removed.stderr.contains("# alice-linux-amd64-0 was not in the group \"h\"\n"), "{removed:?}");
    assert_eq!(home.mote(&["group", "destroy", "h"]).code, Some(0));
    assert_eq!(home.mote(&["group", "add", NAMES[0]]).code, Some(2), "no group is active");
    assert_eq!(farm.state().groups.len(), 1);
}

#[test]
fn the_flags_group_must_exist_and_the_environments_need_not() {
    let farm = two();
    let home = farm.home();
    for args in [&["-group", "x", "ping"][..], &["-group", "x", "ping", NAMES[0]], &["-group", "x", "run", "/lines"]] {
        let refused = home.mote(args);
        assert!(refused.stderr.contains("there is no group \"x\""), "{refused:?}");
        assert_eq!(refused.code, Some(2));
    }
    let without = home.mote_in("gone", &["ping", NAMES[0]]);
    assert_eq!(without.code, Some(0), "{without:?}");
    let run = home.mote_in("gone", &["run", NAMES[0], "/lines", "1"]);
    assert_eq!((run.code, run.text()), (Some(0), "line 0\n"), "{run:?}");
    let lost = home.mote_in("gone", &["ping"]);
    assert!(lost.code == Some(2) && lost.stderr.contains("there is no group \"gone\" (GOMOTE_GROUP)"), "{lost:?}");
    let mut own = home.command(["ping"]);
    let own = crate::mote::Ran::from(own.env("GOMOTE_GROUP", "gone").env("MOTE_GROUP", "g").output().unwrap());
    assert!(own.code == Some(0) && own.stderr.contains("# Using group \"g\" from MOTE_GROUP\n"), "{own:?}");
    assert_eq!(farm.state().calls.iter().filter(|call| **call == "ping").count(), 3);
}

#[test]
fn the_first_word_is_an_instance_if_the_farm_says_so() {
    let farm = two();
    let home = farm.home();
    let one = home.mote_in("g", &["run", NAMES[1], "/lines", "1"]);
    assert_eq!((one.code, one.text()), (Some(0), "line 0\n"), "{one:?}");
    let others = home.mote_in("g", &["run", "bob-linux-amd64-7", "/lines", "1"]);
    assert_eq!(others.text(), "line 0\n", "an admin's view of another's: {others:?}");
    let both = home.mote_in("g", &["run", "/lines", "1"]);
    let mut lines: Vec<&str> = both.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["alice-linux-amd64-0: line 0", "alice-linux-amd64-1: line 0"]);
    let typed = home.mote_in("g", &["ls", "go"]);
    assert!(typed.text().starts_with("# alice-linux-amd64-0\ndrwxr-xr-x\tgo/\n"), "{typed:?}");
    assert!(typed.text().contains("\n\n# alice-linux-amd64-1\n") && typed.text().ends_with("\n\n"), "{typed:?}");
    let state = farm.state();
    let dirs: Vec<&str> = state.lists.iter().map(|l| l.list.as_ref().unwrap().dir.as_str()).collect();
    assert_eq!(dirs, ["go", "go"]);
    assert_eq!(state.execs.len(), 4);
}

#[test]
fn one_members_failure_is_its_own_and_ended_members_are_said() {
    let farm = two();
    let home = farm.home();
    farm.state().groups.get_mut("g").unwrap().push("nobody".into());
    farm.state().groups.get_mut("g").unwrap().push("alice-linux-amd64-9".into());
    let rm = home.mote_in("g", &["rm", "a", "b/c"]);
    assert_eq!(rm.code, Some(0), "{rm:?}");
    for gone in ["nobody", "alice-linux-amd64-9"] {
        let said = format!("# {gone} of the group \"g\" has ended or is not known; going without\n");
        assert!(rm.stderr.contains(&said), "{rm:?}");
    }
    assert_eq!(farm.state().removed.len(), 2);
    // Several named: one refusal does not stop the others.
    let put = home.mote(&["destroy", "nobody", NAMES[0]]);
    assert_eq!(put.code, Some(1));
    assert!(put.stderr.contains("# error: 1 of 2 failed\n"), "{put:?}");
    assert_eq!(farm.state().destroyed, [NAMES[0]]);
}

#[test]
fn a_group_goes_with_its_instances_if_asked() {
    let farm = two();
    let home = farm.home();
    let bare = home.mote(&["destroy"]);
    assert_eq!(bare.code, Some(2));
    assert!(bare.stderr.contains("yours: alice-linux-amd64-0 alice-linux-amd64-1"), "{bare:?}");
    let destroyed = home.mote_in("g", &["destroy", "-destroy-group"]);
    assert_eq!(destroyed.code, Some(0), "{destroyed:?}");
    let mut names = farm.state().destroyed.clone();
    names.sort();
    assert_eq!(names, NAMES);
    assert!(farm.state().groups.is_empty());
    farm.state().destroyed.clear();
    assert_eq!(home.mote(&["destroy", "--all"]).code, Some(0));
    assert_eq!(farm.state().destroyed.len(), 2);
}

#[test]
fn several_runs_are_named_kept_apart_and_summed_up() {
    let farm = two();
    let home = farm.home();
    let ran = home.mote_in("g", &["run", "/noisy", "3"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let mut lines: Vec<&str> = ran.text().lines().collect();
    lines.sort_unstable();
    let expected = NAMES.map(|name| [format!("{name}: from {name}"), format!("{name}: half")]).concat();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    for name in NAMES {
        assert!(ran.stderr.contains(&format!("{name}: oops\n")), "{ran:?}");
        assert!(ran.stderr.contains(&format!("# the command on {name} exited with 3\n")), "{ran:?}");
    }
    let place = ran.stderr.lines().find_map(|line| line.strip_prefix("# output of each in ")).unwrap();
    for name in NAMES {
        let kept = std::fs::read_to_string(format!("{place}/{name}.stdout")).unwrap();
        assert_eq!(kept, format!("from {name}\nhalfoops\n"));
    }
    let json = home.mote_in("g", &["run", "-json", "/lines", "1"]);
    assert_eq!(json.json()["runs"].as_array().unwrap().len(), 2);
    let detached = home.mote_in("g", &["run", "-detach", "/sleep"]);
    let started: Vec<(&str, &str)> = detached.text().lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!([started[0].0, started[1].0], NAMES);
    for refused in [&["run", "-stdin", "/cat"][..], &["run", "-t", "/cat"], &["run", "-o", "x", "/lines"]] {
        assert_eq!(home.mote_in("g", refused).code, Some(2));
    }
}

#[test]
fn a_killed_client_of_several_goes_on_with_all() {
    let farm = two();
    let home = farm.home();
    let mut child = home.command(["run", "/sleep"]).env("GOMOTE_GROUP", "g").spawn().unwrap();
    farm.wait_for("both runs", |s| (s.execs.len() == 2).then_some(()));
    // The records are there before the farm is asked.
    child.kill().unwrap();
    child.wait().unwrap();
    for exec in farm.state().execs.values() {
        exec.end(motefarm_proto::mote::exec_outcome::Ending::Exited, 0);
    }
    let ran = home.mote(&["attach"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stderr.matches("# attached to ").count(), 2, "{ran:?}");
    assert_eq!(home.mote(&["attach"]).code, Some(2), "nothing is left");
}
