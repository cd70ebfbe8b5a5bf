//! Buildlets that dial in: joined, cut off, killed, left alone.

use crate::{farm, seconds};
use motefarm_tests::joined::{HOST_TYPE, Joined};
use motefarm_tests::proxy::Proxy;
use motefarm_tests::root::FarNetwork;
use motefarm_tests::{Instance, TestFarm, files, processes, wait};
use std::fs;
use std::time::{Duration, Instant};

/// How long the link is cut.
fn cut_time() -> Duration {
    if wait::is_set("MOTE_TEST_LONG") { seconds(120) } else { seconds(8) }
}

fn tree_of(farm: &TestFarm) -> std::path::PathBuf {
    let tree = farm.fresh("tree");
    files::write(&tree, "a/file", "content");
    files::write(&tree, "large", motefarm_tests::Dice::new(9).bytes(2_500_000));
    files::write_script(&tree, "say.sh", "echo said");
    files::link(&tree, "link", "a/file");
    tree
}

/// Everything a resident buildlet does, a joined one does.
#[test]
fn a_joined_buildlet_serves_as_a_resident_one_does() {
    let farm = farm().start();
    let proxy = Proxy::start(&farm.address());
    let joined = Joined::start(&farm, &proxy.address(), &[]);
    let mote = farm.create_of(HOST_TYPE, joined.data());
    let tree = tree_of(&farm);
    farm.push(&tree, "it", &mote).ok();
    files::assert_equal(&files::read(&mote.work().join("it"), &[]), &files::read(&tree, &[]));
    let first = proxy.passed();
    assert!(first > 2_000_000, "the content went over the link");
    assert_eq!(farm.mote(["run", "--quiet", &mote.name, "it/say.sh"]).ok().out(), "said");
    // Its own store has it now: a second instance costs no transfer.
    let second = farm.create_of(HOST_TYPE, joined.data());
    farm.push(&tree, "it", &second).ok();
    assert!(proxy.passed() - first < 500_000, "{} bytes for a second instance", proxy.passed() - first);
    files::assert_equal(&files::read(&second.work().join("it"), &[]), &files::read(&tree, &[]));
    let archive = farm.mote(["gettar", "--plain", "--dir", "it", "-o", "-", &mote.name]).ok().stdout;
    let out = farm.fresh("unpacked");
    fs::create_dir(&out).expect("a directory");
    let mut unpacker = tar::Archive::new(archive.as_slice());
    unpacker.set_preserve_permissions(true);
    unpacker.unpack(&out).expect("an archive");
    files::assert_equal(&files::read(&out, &[]), &files::read(&tree, &[]));
    let buildlets = farm.mote(["admin", "buildlets"]).ok().out();
    assert!(buildlets.contains(HOST_TYPE), "{buildlets}");
    farm.destroy(&[&mote, &second]);
    joined.finish(&farm);
    farm.finish();
}

/// A run that outlasts the cut, and what it is to have written.
fn lines_for(time: Duration) -> (String, String) {
    let count = (time.as_secs() + 4) * 10;
    let script =
        format!("echo $$ >> pids; i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; sleep 0.1; done; exit 7");
    (script, (1..=count).map(|i| format!("line {i}\n")).collect())
}

#[track_caller]
fn survive_a_cut(farm: &TestFarm, mote: &Instance, cut: impl FnOnce(), mend: impl FnOnce()) {
    let (script, wanted) = lines_for(cut_time());
    let output = farm.fresh("output");
    let patience = cut_time() + seconds(90);
    let running = farm.run_into(mote, &output, &script).patience(patience).spawn();
    wait::until_true("it writes", seconds(15), || fs::metadata(&output).is_ok_and(|meta| meta.len() > 0));
    cut();
    let begin = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let before = fs::metadata(&output).expect("output").len();
    std::thread::sleep(cut_time().saturating_sub(begin.elapsed()));
    assert_eq!(fs::metadata(&output).expect("output").len(), before, "the link is really cut");
    mend();
    running.wait().fails(7);
    assert_eq!(fs::read_to_string(&output).expect("output"), wanted, "every line once");
    assert_eq!(fs::read_to_string(mote.work().join("pids")).expect("pids").lines().count(), 1, "started once");
    farm.mote(["ping", &mote.name]).patience(seconds(90)).ok();
    assert_eq!(farm.sh(mote, "echo still here").out(), "still here");
}

#[test]
fn a_run_survives_a_link_that_is_silent_for_a_while() {
    let farm = farm().start();
    let proxy = Proxy::start(&farm.address());
    let joined = Joined::start(&farm, &proxy.address(), &[]);
    let mote = farm.create_of(HOST_TYPE, joined.data());
    survive_a_cut(&farm, &mote, || proxy.cut(), || proxy.mend());
    // And one whose connections break over and over.
    let (script, wanted) = lines_for(seconds(3));
    let output = farm.fresh("output");
    let _ = fs::remove_file(mote.work().join("pids"));
    let mut running = farm.run_into(&mote, &output, &script).patience(seconds(90)).spawn();
    for _ in 0..4 {
        let before = fs::metadata(&output).map_or(0, |meta| meta.len());
        proxy.drop_connections();
        wait::until_true("it goes on", seconds(30), || {
            running.is_over() || fs::metadata(&output).is_ok_and(|meta| meta.len() > before)
        });
    }
    running.wait().fails(7);
    assert_eq!(fs::read_to_string(&output).expect("output"), wanted, "every line once");
    farm.destroy(&[&mote]);
    joined.finish(&farm);
    farm.finish();
}

#[test]
fn a_run_survives_a_cable_that_is_pulled() {
    let far = match FarNetwork::make() {
        Ok(far) => far,
        Err(why) => return wait::skipped("a pulled cable between two networks", &why),
    };
    let near = far.near_address();
    let port = motefarm_tests::farm::free_port();
    let port = port.rsplit(':').next().expect("a port").to_owned();
    let farm = farm().top(&format!("names = ['{near}']")).listen(&format!("{near}:{port}")).start();
    let joined = Joined::start(&farm, &format!("{near}:{port}"), &far.wrapper());
    let mote = farm.create_of(HOST_TYPE, joined.data());
    let tree = tree_of(&farm);
    farm.push(&tree, "it", &mote).ok();
    survive_a_cut(&farm, &mote, || far.cut(), || far.mend());
    files::assert_equal(&files::read(&mote.work().join("it"), &[]), &files::read(&tree, &[]));
    farm.destroy(&[&mote]);
    joined.finish(&farm);
    farm.finish();
}

#[test]
fn a_joined_buildlet_that_is_killed_comes_back_with_everything() {
    let farm = farm().start();
    let mut joined = Joined::start(&farm, &farm.address(), &[]);
    let mote = farm.create_of(HOST_TYPE, joined.data());
    let (script, wanted) = lines_for(seconds(1));
    let output = farm.fresh("output");
    let running = farm.run_into(&mote, &output, &script).patience(seconds(90)).spawn();
    wait::until_true("it writes", seconds(15), || fs::metadata(&output).is_ok_and(|meta| meta.len() > 0));
    joined.kill9();
    wait::until_true("it is missed", seconds(10), || farm.state(&mote.name).as_deref() == Some("lost"));
    farm.kill_coordinator();
    joined.restart();
    farm.start_coordinator();
    running.wait().fails(7);
    assert_eq!(fs::read_to_string(&output).expect("output"), wanted, "every line once");
    assert_eq!(farm.state(&mote.name).as_deref(), Some("ready"));
    farm.destroy(&[&mote]);
    joined.finish(&farm);
    farm.finish();
}

#[test]
fn a_buildlet_whose_coordinator_never_returns_ends_its_instances() {
    // What runs may go on for as long as what nobody watches may.
    let farm = farm().config("[leases]\nidle_timeout = '3s'\ngrace = '2s'\nunwatched_limit = '2s'").start();
    let joined = Joined::start(&farm, &farm.address(), &[]);
    let far = farm.create_of(HOST_TYPE, joined.data());
    let near = farm.create();
    let mark = format!("6001.{}", std::process::id());
    for mote in [&far, &near] {
        farm.sh(mote, &format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo left"));
        farm.detach(mote, &format!("(setsid sh -c 'trap \"\" TERM; sleep {mark}; true' &); sleep {mark}"));
    }
    wait::until_true("they run", seconds(10), || processes::with_arg(&mark).len() >= 6);
    farm.kill_coordinator();
    let begin = Instant::now();
    wait::until_true("the cut-off buildlets have ended everything", seconds(25), || {
        processes::with_arg(&mark).is_empty()
            && farm.directories_left(joined.data()).is_empty()
            && farm.directories_left(&farm.buildlet_data()).is_empty()
    });
    assert!(begin.elapsed() > seconds(2), "after lease and grace, not at once: {:?}", begin.elapsed());
    // Whoever comes back hears of it.
    farm.start_coordinator();
    for mote in [&far, &near] {
        farm.until_gone(&mote.name, seconds(90));
    }
    joined.finish(&farm);
    farm.finish();
}

#[test]
fn an_instance_ends_by_itself_when_everybody_else_is_dead() {
    let farm = farm().config("[leases]\nidle_timeout = '2s'\ngrace = '2s'").start();
    let mote = farm.create();
    let mark = format!("6002.{}", std::process::id());
    farm.sh(
        &mote,
        &format!("(setsid sh -c '(sleep {mark}; true) & (sleep {mark}; true)' >/dev/null 2>&1 </dev/null &); echo"),
    );
    wait::until_true("they run", seconds(5), || processes::with_arg(&mark).len() >= 2);
    farm.kill_coordinator();
    farm.kill_buildlet();
    assert!(!processes::with_arg(&mark).is_empty(), "they outlive both");
    wait::until_true("the keeper ended the instance", seconds(20), || processes::with_arg(&mark).is_empty());
    farm.start_coordinator();
    farm.until_gone(&mote.name, seconds(30));
    farm.finish();
}

#[test]
fn without_a_sandbox_nothing_outlives_its_instance_either() {
    let farm = farm().start();
    let mut joined = Joined::prepare(&farm, &farm.address());
    joined.arg("--no-sandbox");
    joined.restart();
    let mote = farm.create_of(HOST_TYPE, joined.data());
    assert!(mote.work_dir.starts_with('/') && mote.work_dir != "/workdir", "{}", mote.work_dir);
    let mark = format!("6003.{}", std::process::id());
    let script = format!(
        "(setsid sh -c 'trap \"\" TERM HUP; (env -i setsid sleep {mark} &) ; (sleep {mark}; true)' >/dev/null 2>&1 </dev/null &)\n\
         echo left; pwd"
    );
    assert_eq!(farm.sh(&mote, &script).out(), format!("left\n{}", mote.work_dir));
    wait::until_true("they run", seconds(5), || processes::with_arg(&mark).len() >= 2);
    joined.kill9();
    joined.restart();
    assert_eq!(farm.sh(&mote, "echo $WORKDIR").out(), mote.work_dir);
    assert!(processes::with_arg(&mark).len() >= 2, "they outlive the buildlet");
    farm.destroy(&[&mote]);
    wait::until_true("nothing is left", seconds(8), || processes::with_arg(&mark).is_empty());
    joined.finish(&farm);
    farm.finish();
}

#[test]
fn only_a_good_token_lets_a_machine_join() {
    let farm = farm().start();
    let make =
        |extra: &[&str]| farm.mote(["admin", "join-token", "create", "--host-type", HOST_TYPE]).args(extra).ok().out();
    let good = make(&["--one-time"]);
    let in_contact = || {
        let all = farm.mote(["admin", "buildlets", "--json"]).ok().json();
        let all = all["buildlets"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|b| b["provider"] == "join" && b["in_contact"] == true).count()
    };
    let first = Joined::start_with(&farm, &farm.address(), &[], &good);
    wait::until_true("the first one is in contact", seconds(15), || in_contact() == 1);
    let revoked = make(&[]);
    let id = revoked.split('.').next().expect("an id").to_owned();
    farm.mote(["admin", "join-token", "revoke", &id]).ok();
    let mut parts: Vec<&str> = good.split('.').collect();
    let wrong_secret = "0".repeat(64);
    parts[1] = &wrong_secret;
    let forged = parts.join(".");
    let wrong_hash = "1".repeat(64);
    let other_farm =
        [good.split('.').next().expect("an id"), good.split('.').nth(1).expect("a secret"), &wrong_hash].join(".");
    for (why, token) in
        [("used up", &good), ("revoked", &revoked), ("forged", &forged), ("another farm's", &other_farm)]
    {
        let refused = Joined::start_with(&farm, &farm.address(), &[], token);
        let told =
            wait::maybe(seconds(8), || (!refused.log().is_empty() && refused.log().lines().count() > 1).then_some(()));
        assert!(told.is_some(), "a {why} token: its buildlet says nothing");
        assert_eq!(in_contact(), 1, "a {why} token let a machine in: {}", refused.log());
        assert!(!refused.log().contains(token.split('.').nth(1).expect("a secret")), "the log holds the secret");
    }
    // A token that is used up, or another that is revoked, does not part those who are in.
    farm.mote(["admin", "join-token", "list"]).ok();
    let mote = farm.create_of(HOST_TYPE, first.data());
    farm.destroy(&[&mote]);
    first.finish(&farm);
    farm.finish();
}

#[test]
fn the_line_of_an_invitation_makes_a_machine_join() {
    let farm = farm().start();
    let line = farm.mote(["admin", "invite", "--host-type", HOST_TYPE]).ok().out();
    assert_eq!(line.lines().count(), 1, "{line}");
    let machine = farm.fresh("machine");
    fs::create_dir_all(machine.join("bin")).expect("a directory");
    std::os::unix::fs::symlink(&farm.programs().buildlet, machine.join("bin/mote-buildlet")).expect("a link");
    let path = format!("{}:{}", machine.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let shell = farm.program(std::path::Path::new("/bin/sh")).args(["-c", &format!("{line} & echo $!; wait")]);
    let data = machine.join("data");
    let running =
        shell.env("PATH", path).env("MOTE_BUILDLET_DATA_DIR", &data).cwd(&machine).patience(seconds(120)).spawn();
    let mote = farm.create_of(HOST_TYPE, &data);
    assert_eq!(farm.sh(&mote, "echo joined").out(), "joined");
    farm.destroy(&[&mote]);
    drop(running);
    for left in farm.others() {
        processes::signal(left.pid, nix::sys::signal::Signal::SIGTERM);
    }
    farm.finish();
}

#[test]
fn a_buildlet_that_listens_is_found_by_its_address() {
    let farm = farm().prepare();
    let data = farm.fresh("listening");
    let address = motefarm_tests::farm::free_port();
    let listening = farm
        .program(&farm.programs().buildlet)
        .args(["listen", "--addr", &address, "--host-type", HOST_TYPE, "--data-dir"])
        .arg(&data)
        .patience(seconds(300))
        .spawn();
    let (token, ca) = (data.join("token"), data.join("tls/ca.pem"));
    wait::until_true("it has a token and a certificate", seconds(15), || token.exists() && ca.exists());
    farm.add_config(&format!(
        "[[static]]\naddress = '{address}'\ntoken_file = '{}'\nca_file = '{}'\n",
        token.display(),
        ca.display()
    ));
    farm.start_coordinator();
    let mote = farm.create_of(HOST_TYPE, &data);
    let tree = tree_of(&farm);
    farm.push(&tree, "it", &mote).ok();
    files::assert_equal(&files::read(&mote.work().join("it"), &[]), &files::read(&tree, &[]));
    assert_eq!(farm.mote(["run", "--quiet", &mote.name, "it/say.sh"]).ok().out(), "said");
    farm.kill_coordinator();
    farm.start_coordinator();
    assert_eq!(farm.sh(&mote, "echo again").out(), "again");
    farm.destroy(&[&mote]);
    listening.signal(nix::sys::signal::Signal::SIGTERM);
    listening.wait().ok();
    farm.finish();
}
