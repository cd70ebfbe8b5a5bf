//! Leases: granted, queued, renewed, expired, ended; and what `mote` says when it can not be.

use crate::{farm, seconds};
use motefarm_tests::{TestFarm, files, processes, wait};
use std::net::TcpListener;
use std::time::{Duration, Instant};

fn named(farm: &TestFarm, n: u32) -> String {
    format!("{}-{}-{n}", farm.user(), TestFarm::host_type())
}

#[test]
fn a_lease_is_created_listed_pinged_and_destroyed() {
    let farm = farm().start();
    let host_type = TestFarm::host_type();
    let created = farm.mote(["create", &host_type]).ok();
    assert_eq!(created.out(), named(&farm, 0), "stdout holds the name and nothing else");
    assert_eq!(farm.mote(["create", &host_type]).ok().out(), named(&farm, 1));
    let list = farm.mote(["list"]).ok().out();
    assert!(
        list.contains(&named(&farm, 0)) && list.contains(&named(&farm, 1)) && list.contains("expires in"),
        "{list}"
    );
    farm.mote(["ping", &named(&farm, 0), &named(&farm, 1)]).ok().says(&["alive"]);
    let types = farm.mote(["create"]).ok().out();
    assert!(types.contains(&host_type), "without a type the types are listed: {types}");

    farm.mote(["destroy", &named(&farm, 0)]).ok();
    farm.until_gone(&named(&farm, 0), seconds(10));
    farm.mote(["ping", &named(&farm, 0)]).run().fails(1).says(&["dead", &named(&farm, 0)]);
    assert_eq!(farm.mote(["create", &host_type]).ok().out(), named(&farm, 0), "a name is used again");
    farm.mote(["destroy", &named(&farm, 0), &named(&farm, 1)]).ok();
    farm.finish();
}

#[test]
fn a_farm_on_any_free_port_is_found_by_its_profile() {
    let farm = farm().listen("127.0.0.1:0").start();
    let port: u16 = farm.address().rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address");
    assert_ne!(port, 0, "the profile tells the port that was found");
    for profile in [farm.profile(), farm.dir().join("config/farms/local.toml")] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&profile).expect("a profile was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{} holds a token", profile.display());
        farm.mote(["list", "--profile"]).arg(&profile).ok();
    }
    farm.finish();
}

#[test]
fn an_idle_lease_expires_and_takes_everything_along() {
    let farm = farm().idle("2s").start();
    let mote = farm.create();
    let mark = format!("86400.{}", farm.secret().len());
    let mark = format!("{mark}{}", std::process::id());
    farm.sh(&mote, &format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo $HOME > kept; mkdir -p a/b/c"));
    assert!(mote.work().join("kept").exists());
    let used = Instant::now();
    // Listing renews nothing, or this would never end.
    farm.until_gone(&mote.name, seconds(15));
    let took = used.elapsed();
    assert!(took > Duration::from_millis(900), "it went after {took:?}, long before its time");
    assert!(took < seconds(8), "it went after {took:?}");
    wait::until_true("the background process ended", seconds(5), || processes::with_arg(&mark).is_empty());
    farm.run(&mote, "true").run().fails(255);
    farm.finish();
}

#[test]
fn a_lease_with_a_short_ttl_of_its_own_expires_first() {
    let farm = farm().start();
    let host_type = TestFarm::host_type();
    let long = farm.create();
    let short = farm.mote(["create", "--ttl", "2s", &host_type]).ok().out();
    farm.until_gone(&short, seconds(15));
    assert_eq!(farm.state(&long.name).as_deref(), Some("ready"));
    farm.mote(["create", "--ttl", "48h", &host_type]).run().fails(1).says(&["longer"]);
    farm.destroy(&[&long]);
    farm.finish();
}

#[test]
fn what_runs_keeps_its_lease_though_nobody_watches() {
    let farm = farm().idle("2s").start();
    let (watched, alone) = (farm.create(), farm.create());
    let begin = Instant::now();
    farm.detach(&alone, "sleep 6; echo done > done; sleep 1");
    let ran = farm.run(&watched, "sleep 6; echo done").ok();
    assert_eq!(ran.out(), "done");
    assert!(begin.elapsed() >= seconds(6), "three times the idle time");
    assert_eq!(farm.state(&watched.name).as_deref(), Some("ready"), "its end is a use too");
    wait::until_true("the run that nobody watched was kept to its end", seconds(3), || {
        alone.work().join("done").exists()
    });
    farm.until_gone(&watched.name, seconds(10));
    farm.until_gone(&alone.name, seconds(10));
    farm.finish();
}

#[test]
fn the_longest_lifetime_ends_what_runs() {
    let farm = farm().config("[leases]\nidle_timeout = '60s'\nmax_lifetime = '4s'").start();
    let mote = farm.create();
    let begin = Instant::now();
    let ran = farm.run(&mote, "echo begun; exec sleep 1000").run().fails(255);
    assert!(ran.out().contains("begun"));
    assert!(begin.elapsed() < seconds(12), "ended after {:?}", begin.elapsed());
    farm.finish();
}

#[test]
fn a_lease_that_ended_while_the_coordinator_was_down_is_over() {
    let farm = farm().idle("3s").start();
    let (idle, busy) = (farm.create(), farm.create());
    let exec = farm.detach(&busy, "sleep 7; echo survived");
    farm.kill_coordinator();
    // Its lease ends in here, and nobody is there to see it.
    std::thread::sleep(seconds(5));
    farm.start_coordinator();
    farm.until_gone(&idle.name, seconds(10));
    // What ran meanwhile was in use, though nobody was there to write it down.
    let attached = farm.mote(["attach", "--quiet", &exec]).ok();
    assert_eq!(attached.out(), "survived");
    assert_eq!(farm.state(&busy.name).as_deref(), Some("ready"));
    farm.until_gone(&busy.name, seconds(15));
    farm.finish();
}

#[test]
fn a_full_farm_queues_in_order_and_a_full_queue_refuses() {
    let farm = farm().slots(1).config("[limits]\nqueue = 2").start();
    let host_type = TestFarm::host_type();
    let first = farm.create();
    let mut second = farm.mote(["create", &host_type]).spawn();
    second.until_stderr("0 requests ahead", seconds(10));
    let mut third = farm.mote(["create", &host_type]).spawn();
    third.until_stderr("1 request ahead", seconds(10));
    let refused = farm.mote(["create", &host_type]).run().fails(1);
    assert!(refused.took < seconds(5) && refused.stderr.contains('2'), "the bound is named: {}", refused.stderr);
    let queued = farm.list().iter().filter(|i| i["state"] == "queued").count();
    assert_eq!(queued, 2);

    farm.mote(["destroy", &first.name]).ok();
    let second = second.wait().ok().out();
    third.until_stderr("0 requests ahead", seconds(10));
    assert!(!third.is_over(), "one slot, one instance");
    // The queue and the place in it outlive the coordinator.
    farm.kill_coordinator();
    farm.start_coordinator();
    farm.mote(["destroy", &second]).ok();
    let third = third.wait().ok().out();
    assert_ne!(second, third);
    farm.mote(["destroy", &third]).ok();
    farm.finish();
}

#[test]
fn ctrl_c_withdraws_a_request_that_waits() {
    let farm = farm().slots(1).start();
    let first = farm.create();
    let mut waiting = farm.mote(["create", &TestFarm::host_type()]).spawn();
    waiting.until_stderr("ahead", seconds(10));
    waiting.signal(nix::sys::signal::Signal::SIGINT);
    waiting.wait().fails(130);
    assert_eq!(farm.list().len(), 1, "the request is gone");
    farm.destroy(&[&first]);
    farm.finish();
}

#[test]
fn destroying_ends_everything_that_runs() {
    let farm = farm().start();
    let mote = farm.create();
    let mark = format!("7777.{}", std::process::id());
    let script = format!(
        "trap '' TERM HUP INT\n(setsid sh -c '(trap \"\" TERM; sleep {mark}; true) & (sleep {mark}; true) &' &)\n\
         echo begun\nwhile :; do sleep {mark}; done"
    );
    let mut running = farm.run(&mote, &script).spawn();
    running.until_stdout("begun", seconds(10));
    wait::until_true("its processes run", seconds(5), || processes::with_arg(&mark).len() >= 3);
    let begin = Instant::now();
    farm.mote(["destroy", &mote.name]).ok();
    assert!(begin.elapsed() < seconds(3), "destroy answers at once, not after {:?}", begin.elapsed());
    wait::until_true("its processes have ended", seconds(5), || processes::with_arg(&mark).is_empty());
    running.wait().fails(255).says(&[&mote.name]);
    farm.finish();
}

#[test]
fn a_stop_in_order_leaves_leases_and_runs_as_they_are() {
    let farm = farm().start();
    let mote = farm.create();
    let output = farm.fresh("output");
    let script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; exit 3";
    let running = farm.run_into(&mote, &output, script).spawn();
    wait::until_true("it writes", seconds(10), || std::fs::read(&output).is_ok_and(|bytes| bytes.len() > 30));
    let status = farm.stop_coordinator();
    assert!(status.success(), "{status}");
    farm.start_coordinator();
    running.wait().fails(3);
    let wanted: String = (1..=40).map(|i| format!("line {i}\n")).collect();
    assert_eq!(std::fs::read_to_string(&output).expect("output"), wanted);
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn one_data_directory_has_one_coordinator() {
    let farm = farm().start();
    let mote = farm.create();
    let second = farm.coordinator(&["serve", "--listen", "127.0.0.1:0"]).run().fails(1);
    assert!(second.took < seconds(10));
    second.says(&["another", farm.data().join("cas").to_str().expect("a plain path")]);
    farm.mote(["ping", &mote.name]).ok();
    assert_eq!(farm.sh(&mote, "echo unharmed").out(), "unharmed");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn what_does_not_exist_is_named() {
    let farm = farm().start();
    let host_type = TestFarm::host_type();
    farm.mote(["ping", "nobody-linux-0"]).run().fails(1).says(&["nobody-linux-0"]);
    farm.mote(["destroy", "nobody-linux-0"]).run().fails(1).says(&["nobody-linux-0"]);
    farm.mote(["run", "nobody-linux-0", "/bin/true"]).run().fails(255).says(&["nobody-linux-0"]);
    farm.mote(["gettar", "-o", "-", "nobody-linux-0"]).run().fails(1).says(&["nobody-linux-0"]);
    let tree = farm.fresh("tree");
    files::write(&tree, "file", "content");
    farm.mote(["push", "-C"]).arg(&tree).arg("nobody-linux-0").run().fails(1).says(&["nobody-linux-0"]);
    farm.mote(["attach", "nobody-linux-0"]).run().fails(255).says(&["nobody-linux-0"]);
    // An unknown type is answered with the types there are.
    farm.mote(["create", "plan9-mips"]).run().fails(1).says(&["plan9-mips", &host_type]);
    farm.mote(["create", "No Such Type"]).run().fails(1).says(&["No Such Type"]);
    for wrong in [
        &["create", "--no-such-flag"][..],
        &["no-such-verb"],
        &["run"],
        &["run", "somewhere"],
        &["run", "--timeout", "soon", "somewhere", "/bin/true"],
        &["run", "-e", "NOVALUE", "somewhere", "/bin/true"],
        &["ping"],
        &["push", "--to", "../outside", "-C", "/tmp", "somewhere"],
        &["gettar", "--dir", "../outside", "somewhere"],
    ] {
        let ran = farm.mote(wrong).run();
        assert_eq!(ran.code(), 2, "{wrong:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{wrong:?} is told why");
    }
    let refused = farm.mote(["--json", "ping", "nobody-linux-0"]).run().fails(1).json();
    assert_eq!(refused["version"], 1, "{refused}");
    let refused = farm.mote(["--json", "destroy", "nobody-linux-0"]).run().fails(1).json();
    assert_eq!(refused["error"]["kind"], "not_found", "{refused}");
    farm.finish();
}

#[test]
fn a_server_that_can_not_be_reached_is_named_within_five_seconds() {
    let farm = farm().start();
    let closed = motefarm_tests::farm::free_port();
    let ran = farm.mote(["--server", &closed, "list"]).run().fails(4).says(&[&closed, "refused"]);
    assert!(ran.took < seconds(2), "a refusal is told at once, not after {:?}", ran.took);
    // One that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("a bound address").to_string();
    let ran = farm.mote(["--server", &address, "list"]).run().fails(4).says(&[&address, "no answer"]);
    assert!(ran.took < seconds(5), "told after {:?}", ran.took);
    let ran = farm.mote(["--server", "no-such-host.invalid:1", "list"]).run().fails(4);
    assert!(ran.took < seconds(5), "told after {:?}", ran.took);
    ran.says(&["no-such-host.invalid:1"]);
    // `run` keeps its own codes apart from the command's.
    farm.mote(["--server", &closed, "run", "somewhere", "/bin/true"]).run().fails(255).says(&[&closed]);
    farm.finish();
}

#[test]
fn without_a_profile_the_way_to_one_is_told() {
    let farm = farm().start();
    let empty = farm.fresh("no-config");
    farm.mote(["list"]).env("MOTE_CONFIG_DIR", &empty).run().fails(3).says(&["profile", "mote-coordinator serve"]);
    farm.mote(["list", "--profile"]).arg(&empty).run().fails(3);
    farm.finish();
}
