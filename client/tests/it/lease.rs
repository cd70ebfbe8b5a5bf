//! `create`, `list`, `ping`, `destroy`, `admin`, and farms that can not be reached.

use crate::fake_farm::FakeFarm;
use crate::mote::{Home, Ran};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _};
use std::time::{Duration, Instant};

#[test]
fn stdout_has_the_name_alone_and_the_queue_is_told_on_stderr() {
    let farm = FakeFarm::start();
    farm.state().ahead = 2;
    let ran = farm.home().mote(&["create", "linux-amd64"]);
    assert_eq!((ran.code, ran.text()), (Some(0), "alice-linux-amd64-0\n"), "{ran:?}");
    assert!(!ran.stderr.contains("still creating"), "nothing in the first 5 s: {ran:?}");
    let created = &farm.state().created;
    assert_eq!(created.len(), 3, "each event came over a stream of its own");
    assert!(created.iter().all(|c| c.instance_id == created[0].instance_id), "and all under one id");
}

#[test]
fn every_five_seconds_it_is_said_what_is_waited_for() {
    let farm = FakeFarm::start();
    farm.state().ahead = u64::MAX;
    let home = farm.home();
    let mut silent = home.command(["create", "-status=false", "linux-amd64"]).spawn().unwrap();
    let mut child = home.command(["create", "linux-amd64"]).spawn().unwrap();
    let begin = Instant::now();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "# still creating linux-amd64 (1) after 5s; 3 requests ahead of you\n");
    assert!(begin.elapsed() > Duration::from_millis(4_500));
    for child in [&child, &silent] {
        kill_process(Pid::from_child(child), Signal::INT).unwrap();
    }
    child.wait().unwrap();
    let mut said = String::new();
    silent.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "# the request was withdrawn\n# error: interrupted\n");
    silent.wait().unwrap();
}

#[test]
fn several_are_created_together_and_survivors_are_named() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let three = home.mote(&["create", "-count=3", "linux-amd64"]);
    assert_eq!(
        (three.code, three.text()),
        (Some(0), "alice-linux-amd64-0\nalice-linux-amd64-1\nalice-linux-amd64-2\n")
    );
    for n in 0..3 {
        assert!(three.stderr.contains(&format!("# Creating alice-linux-amd64-{n}...\n")), "{three:?}");
    }
    let farm = FakeFarm::start();
    farm.state().refuses = vec![2];
    let home = farm.home();
    let some = home.mote(&["create", "-count", "3", "-new-group", "g", "--ttl=10m", "--from=snap", "linux-amd64"]);
    assert_eq!((some.code, some.text()), (Some(1), "alice-linux-amd64-0\nalice-linux-amd64-2\n"), "{some:?}");
    assert!(some.stderr.contains("the queue of linux-amd64 is full"), "{some:?}");
    let kept = "1 of 3 failed; kept in the group \"g\": alice-linux-amd64-0, alice-linux-amd64-2";
    assert!(some.stderr.contains(kept), "{some:?}");
    let state = farm.state();
    assert_eq!(state.groups["g"], ["alice-linux-amd64-0", "alice-linux-amd64-2"]);
    assert!(state.created.iter().all(|c| c.idle_timeout_ms == 600_000 && c.from_snapshot == "snap"));
    drop(state);
    farm.state().refuses = (1..100).collect();
    let none = home.mote(&["create", "-new-group=h", "linux-amd64"]);
    assert_eq!(none.code, Some(1));
    assert!(!farm.state().groups.contains_key("h"), "so that the same can be asked for again");
}

#[test]
fn ctrl_c_withdraws_the_request() {
    let farm = FakeFarm::start();
    farm.state().ahead = u64::MAX;
    let home = farm.home();
    let child = home.command(["create", "linux-amd64"]).spawn().unwrap();
    let id = farm.wait_for("the request", |s| s.created.first().map(|c| c.instance_id.clone()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.text()), (Some(130), ""), "{ran:?}");
    assert_eq!(farm.state().destroyed, [id]);
}

#[test]
fn host_types_are_listed_without_a_type() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let bare = home.mote(&["create"]);
    assert_eq!(bare.text(), "HOST TYPE    FREE  SLOTS  WAITING  MACHINES\nlinux-amd64  15    16     0        0\n");
    assert_eq!(home.mote(&["create", "-list"]).stdout, bare.stdout);
    assert_eq!(home.mote(&["create", "-list", "-json"]).json()["host_types"][0]["free_slots"], 15);
    let unknown = home.mote(&["create", "nonsense"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("there are: linux-amd64"), "{unknown:?}");
}

#[test]
fn lists_and_pings_tell_what_is_left() {
    let farm = FakeFarm::start();
    let home = farm.home();
    assert_eq!(home.mote(&["list"]).text(), "alice-linux-amd64-0\tlinux-amd64\tbox\texpires in 30m0s\n");
    assert!(home.mote(&["list", "-long"]).text().contains("ready"));
    let renewed = home.mote(&["renew", "alice-linux-amd64-0"]);
    assert_eq!(renewed.stderr, "# alice-linux-amd64-0: renewed, expires in 30m0s\n");
    assert_eq!(home.mote(&["list", "--json"]).json()["instances"][0]["name"], "alice-linux-amd64-0");
    let alive = home.mote(&["ping", "alice-linux-amd64-0"]);
    assert_eq!((alive.code, alive.text()), (Some(0), ""));
    assert_eq!(alive.stderr, "# alice-linux-amd64-0: alive (0.4 ms, expires in 30m0s)\n");
    let one_dead = home.mote(&["ping", "alice-linux-amd64-0", "dead"]);
    assert_eq!(one_dead.code, Some(1));
    assert!(one_dead.stderr.contains("# dead: dead: its buildlet is out of contact"), "{one_dead:?}");
    let destroyed = home.mote(&["destroy", "a", "nobody", "b"]);
    assert_eq!(destroyed.code, Some(1));
    assert!(
        destroyed.stderr.contains("# destroyed b") && destroyed.stderr.contains("# error: 1 of 3 failed"),
        "{destroyed:?}"
    );
}

#[test]
fn a_wrong_token_is_a_matter_of_settings() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = Ran::from(home.command(["list"]).env("MOTE_TOKEN", "mote_wrong").output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("the token is not known; the token in the profile"), "{ran:?}");
}

#[test]
fn a_farm_that_is_not_there_is_an_error_within_five_seconds() {
    let farm = FakeFarm::start();
    let begin = Instant::now();
    let refused = Home::new("127.0.0.1:1", &farm.ca_pem).mote(&["list"]);
    assert_eq!(refused.code, Some(4));
    assert_eq!(
        refused.stderr,
        "# error: can not reach the farm at 127.0.0.1:1: connection refused; is mote-coordinator running?\n"
    );
    // A server that accepts and never says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let silent = Home::new(&address, &farm.ca_pem).mote(&["list"]);
    assert_eq!(silent.code, Some(4));
    assert!(silent.stderr.contains(&address) && silent.stderr.contains("no answer within 4 s"), "{silent:?}");
    // Somebody else's farm.
    let other = FakeFarm::start();
    let stranger = Home::new(&other.address.to_string(), &farm.ca_pem).mote(&["list"]);
    assert_eq!(stranger.code, Some(4), "{stranger:?}");
    assert!(begin.elapsed() < Duration::from_secs(9));
}

#[test]
fn an_invitation_is_one_line() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["admin", "invite", "-host-type", "linux-arm64"]);
    assert_eq!(
        ran.text(),
        "(umask 077 && printf '%s\\n' 'id.secret.hash' > mote-join-token) && mote-buildlet join --coordinator 'farm:8119' \
         --token-file mote-join-token --host-type 'linux-arm64'\n"
    );
    assert_eq!(home.mote(&["admin", "token", "create", "--user", "bob"]).text(), "mote_new\n");
    assert!(home.mote(&["admin", "token", "list"]).text().contains("never"));
    let refused = home.mote(&["admin", "user", "list"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("alice is no admin; this needs an admin's token"), "{refused:?}");
}

#[test]
fn help_and_mistakes() {
    let home = Home::new("127.0.0.1:1", "");
    assert!(home.mote(&["help", "exit-codes"]).text().contains("255  "));
    assert_eq!(home.mote(&["--version"]).text(), concat!("mote ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(home.mote(&["help", "run"]).code, Some(0));
    for mistake in [&["nonsense"][..], &["run"], &["run", "i"], &["run", "i", "-e", "A=1", "x"], &["list", "-nonsense"]]
    {
        let ran = home.mote(mistake);
        assert_eq!((ran.code, ran.text()), (Some(2), ""), "{mistake:?}: {ran:?}");
    }
    std::fs::remove_file(home.path("config/farms/local.toml")).unwrap();
    let lost = home.mote(&["list"]);
    assert_eq!(lost.code, Some(3));
    assert!(lost.stderr.contains("config/farms/local.toml; start a farm on this machine"), "{lost:?}");
}
