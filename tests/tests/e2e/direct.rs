//! `TYPE@host:port`: a buildlet that listens, used without any coordinator.

use crate::{farm, seconds};
use motefarm_tests::farm::free_port;
use motefarm_tests::mote::tail;
use motefarm_tests::{Mote, TestFarm, files, processes, wait};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the buildlets here offer.
const HOST_TYPE: &str = "linux-debug";

/// A buildlet that listens, and calls of `mote` to it.
struct Listening<'a> {
    farm: &'a TestFarm,
    address: String,
    data: PathBuf,
    insecure: bool,
    child: Option<Child>,
}

impl<'a> Listening<'a> {
    #[track_caller]
    fn start(farm: &'a TestFarm, address: String) -> Self {
        Self::start_with(farm, address, false)
    }

    #[track_caller]
    fn start_with(farm: &'a TestFarm, address: String, insecure: bool) -> Self {
        let data = farm.fresh("listening");
        let mut listening = Self { farm, address, data, insecure, child: None };
        listening.restart();
        listening
    }

    /// Starts it and waits until it can be reached.
    #[track_caller]
    fn restart(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = Command::new(&self.farm.programs().buildlet);
        command.args(["listen", "--addr", &self.address, "--host-type", HOST_TYPE, "--data-dir"]).arg(&self.data);
        if self.insecure {
            command.arg("--insecure-no-auth");
        }
        command.env_clear().envs(self.farm.env()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the buildlet starts"));
        wait::until_true("the buildlet listens", seconds(20), || TcpStream::connect(&self.address).is_ok());
    }

    fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn ca(&self) -> PathBuf {
        self.data.join("tls/ca.pem")
    }

    #[track_caller]
    fn token(&self) -> String {
        fs::read_to_string(self.data.join("token")).expect("a token").trim().to_owned()
    }

    /// What stands in an instance's place.
    fn word(&self) -> String {
        format!("{HOST_TYPE}@{}", self.address)
    }

    /// A call with the buildlet's credentials.
    #[track_caller]
    fn mote(&self, args: &[&str]) -> Mote {
        self.farm.mote(args).env("MOTE_TOKEN", self.token()).env("MOTE_CA", self.ca())
    }

    /// A shell script there.
    #[track_caller]
    fn sh(&self, script: &str) -> Mote {
        self.mote(&["run", "--quiet", &self.word(), "/bin/sh", "-c", script])
    }

    /// The directories of instances.
    fn instances(&self) -> Vec<PathBuf> {
        let listing = fs::read_dir(self.data.join("instances")).expect("the instances' directory");
        listing.flatten().map(|entry| entry.path()).collect()
    }

    /// Waits until nothing is left of any instance.
    #[track_caller]
    fn until_nothing_left(&self) {
        let left = || self.farm.directories_left(&self.data);
        wait::until_true("no directory of an instance is left", seconds(20), || left().is_empty());
    }

    /// Ends what one has there, then the buildlet, and checks that nothing is left.
    #[track_caller]
    fn finish(mut self) {
        self.mote(&["destroy", &self.word()]).ok();
        self.until_nothing_left();
        let mut child = self.child.take().expect("the buildlet runs");
        processes::signal(i32::try_from(child.id()).expect("process ids are small"), Signal::SIGTERM);
        let ended = wait::maybe(seconds(15), || child.try_wait().expect("a child can be waited for"));
        if ended.is_none() {
            let _ = child.kill();
            panic!("the buildlet did not stop within 15 s of SIGTERM");
        }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            wait::say(&format!("--- listening buildlet's log\n{}", tail(&log, 30)));
        }
        self.kill9();
    }
}

/// The directories and environment of a farm that never starts.
fn no_farm() -> TestFarm {
    farm().no_buildlet().prepare()
}

#[track_caller]
fn assert_no_process_is_left(farm: &TestFarm) {
    wait::until_true("no process is left", seconds(20), || farm.others().is_empty());
}

/// The names in an archive.
fn names(archive: &[u8]) -> Vec<String> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let entries = tar.entries().expect("an archive");
    entries.map(|entry| entry.expect("an entry").path().expect("a name").display().to_string()).collect()
}

#[test]
fn everything_one_does_with_an_instance_works_without_a_coordinator() {
    let farm = no_farm();
    let there = Listening::start(&farm, free_port());
    let word = there.word();

    // No create: the first use makes it, and the next finds it.
    let ran = there.sh("echo hello; echo oops >&2; echo kept > kept; exit 7").run().fails(7);
    assert_eq!(ran.out(), "hello");
    assert!(ran.stderr.contains("oops"), "{ran:?}");
    assert_eq!(there.sh("cat kept").ok().out(), "kept");
    assert_eq!(there.instances().len(), 1);
    assert_eq!(there.mote(&["create", &word]).ok().out(), word);
    let pinged = there.mote(&["ping", "--json", &word]).ok().json();
    assert_eq!(pinged["instances"][0]["instance"], word.as_str(), "{pinged}");
    there.mote(&["renew", &word]).ok();
    assert_eq!(there.instances().len(), 1, "all of it is the one instance");

    // A program's stdin, which is many calls by execution id.
    let input = "x".repeat(300_000);
    let counted = there.mote(&["run", "--quiet", "--stdin", &word, "/usr/bin/env", "wc", "-c"]).stdin(input).ok();
    assert_eq!(counted.out().trim(), "300000");

    let tree = farm.fresh("tree");
    files::write(&tree, "README", "read me\n");
    files::write_script(&tree, "bin/run.sh", "echo ran");
    files::write(&tree, "big", motefarm_tests::Dice::new(1).bytes(3_500_000));
    let push = || there.mote(&["push", "--json", "-C"]).arg(&tree).args(["--to", "it", &word]).ok();
    push();
    assert_eq!(there.mote(&["run", "--quiet", &word, "it/bin/run.sh"]).ok().out(), "ran");
    fs::remove_file(tree.join("README")).expect("it is there");
    push();
    let here = files::read(&tree, &[]);
    files::assert_equal(&files::read(&there.instances()[0].join("work/it"), &[]), &here);

    let local = files::write(&farm.fresh("put"), "note", "a note\n");
    there.mote(&["put", "--mode", "640", &word]).arg(&local).arg("notes/note").ok();
    assert_eq!(there.mote(&["get", &word, "notes/note", "-"]).ok().out(), "a note");
    let listed = there.mote(&["ls", "-R", &word, "notes"]).ok().out();
    assert!(listed.contains("note") && listed.contains("rw-r-----"), "{listed}");
    let archive = there.mote(&["gettar", "--dir", "notes", "-o", "-", &word]).ok().stdout;
    assert!(names(&archive).iter().any(|name| name.ends_with("note")), "{:?}", names(&archive));
    there.mote(&["puttar", "--dir", "copy", &word, "-"]).stdin(archive).ok();
    assert_eq!(there.sh("cat copy/note").ok().out(), "a note");
    there.mote(&["rm", &word, "notes", "copy"]).ok();
    assert_eq!(there.sh("ls -d notes copy 2>/dev/null; true").ok().out(), "");

    // Ended, and made anew by the next use.
    there.mote(&["destroy", &word]).ok();
    there.until_nothing_left();
    assert_eq!(there.sh("ls -A").ok().out(), "");
    there.finish();
    assert_no_process_is_left(&farm);
}

#[test]
fn a_client_and_a_buildlet_that_are_killed_lose_nothing() {
    let farm = no_farm();
    let mut there = Listening::start(&farm, free_port());
    let go = farm.fresh("go");
    let script = "for n in $(seq 500); do echo line $n; done; read _ < gate; seq 501 1000 | sed 's/^/line /'; exit 3";
    let wanted: String = (1..=1000).map(|n| format!("line {n}\n")).collect();

    // The client is killed while the command waits; a pipe in the work directory lets it go on.
    there.sh("mkfifo gate").ok();
    let mut run = there.mote(&["run", &there.word(), "/bin/sh", "-c", script]).spawn();
    run.until_stdout("line 500", seconds(20));
    run.kill9();
    drop(run);
    there.sh("echo > gate").ok();
    // The newest interrupted run from here, though no farm is known here at all.
    let attached = there.mote(&["attach"]).run().fails(3);
    let id = attached.stderr.split("attached to ").nth(1).and_then(|rest| rest.split([',', ';']).next());
    let id = id.unwrap_or_else(|| panic!("no id in {}", attached.stderr)).to_owned();
    let kept = fs::read_to_string(farm.dir().join(format!("cache/runs/{id}.out"))).expect("the output file");
    assert_eq!(kept, wanted);
    assert_eq!(there.mote(&["logs", &id]).ok().out(), wanted.trim_end());

    // The buildlet is killed while the client watches.
    let run = there.mote(&["run", "-o"]).arg(&go).args([&there.word(), "/bin/sh", "-c", script]);
    let mut run = run.spawn();
    run.until_stdout("line 500", seconds(20));
    there.kill9();
    run.until_stderr("trying again", seconds(20));
    there.restart();
    there.sh("echo > gate").ok();
    let ran = run.wait().fails(3);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), wanted);
    assert_eq!(fs::read_to_string(&go).expect("the output file"), wanted);
    there.finish();
    assert_no_process_is_left(&farm);
}

#[test]
fn commands_are_cancelled_by_id_and_by_address() {
    let farm = no_farm();
    let there = Listening::start(&farm, free_port());
    let detach =
        || there.mote(&["run", "--detach", &there.word(), "/bin/sh", "-c", "sleep 1000 & sleep 1000"]).ok().out();
    let id = detach();
    there.mote(&["cancel", &id]).ok();
    there.mote(&["attach", &id]).run().fails(130);
    detach();
    detach();
    let said = there.mote(&["cancel", &there.word()]).ok();
    assert!(said.stderr.contains("cancelled 2 commands"), "{said:?}");
    there.finish();
    assert_no_process_is_left(&farm);
}

#[test]
fn an_instance_that_nobody_uses_ends_by_itself_and_is_wiped() {
    let farm = no_farm();
    let there = Listening::start(&farm, free_port());
    there.mote(&["create", "--ttl", "3s", &there.word()]).ok();
    there.sh("sleep 1000 > /dev/null 2>&1 & echo left > file").ok();
    // What runs renews it.
    assert_eq!(there.sh("sleep 5; cat file").ok().out(), "left");
    there.until_nothing_left();
    assert_eq!(there.sh("ls -A").ok().out(), "", "the next one is new");
    there.finish();
    assert_no_process_is_left(&farm);
}

#[test]
fn whoever_shows_the_wrong_thing_is_told_what_to_show() {
    let farm = no_farm();
    let there = Listening::start(&farm, free_port());
    let (word, address, own) = (there.word(), there.address.clone(), address_file(&there.address));
    let bare = |args: &[&str]| farm.mote(args);
    // Nothing at all: where the two lie, and where they may be kept.
    bare(&["ls", &word]).fails_like(3, &[&address, "tls/ca.pem", "token", "MOTE_CA", "MOTE_TOKEN", &own]);
    bare(&["ls", &word]).env("MOTE_CA", there.ca()).fails_like(3, &["wants a token", "MOTE_TOKEN"]);
    let wrong = format!("mote_{}", "0".repeat(64));
    there.mote(&["ls", &word]).env("MOTE_TOKEN", &wrong).fails_like(3, &["does not take this token", "MOTE_TOKEN"]);
    let other = Listening::start(&farm, free_port());
    there.mote(&["ls", &word]).env("MOTE_CA", other.ca()).fails_like(3, &["CA", "tls/ca.pem"]);
    // Taken for something else.
    let wrong = format!("linux-other@{address}");
    there.mote(&["ls", &wrong]).fails_like(2, &["linux-other", HOST_TYPE, &word]);
    there.mote(&["ls", &format!("{HOST_TYPE}@127.0.0.1:1")]).fails_like(4, &["mote-buildlet listen"]);
    there.mote(&["ls", "linux-debug@::1"]).fails_like(2, &["brackets"]);
    there.mote(&["--server", "x:1", "ls", &word]).fails_like(2, &["--server"]);
    assert!(there.instances().is_empty(), "none of this made anything");

    // Kept in a file of the address's own.
    let file = farm.dir().join("config").join(&own);
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let ca = fs::read_to_string(there.ca()).expect("a CA");
    let text = format!("server = '{address}'\ntoken = '{}'\nca_pem = '''\n{ca}'''\n", there.token());
    fs::write(&file, text).expect("a profile");
    files::chmod(&file, 0o600);
    assert_eq!(bare(&["run", "--quiet", &word, "/bin/echo", "known"]).ok().out(), "known");
    other.finish();
    there.finish();
    assert_no_process_is_left(&farm);
}

/// The file below the configuration that is about an address.
fn address_file(address: &str) -> String {
    format!("buildlets/{}.toml", address.replace(':', "_"))
}

trait FailsLike {
    fn fails_like(self, code: i32, texts: &[&str]);
}

impl FailsLike for Mote {
    #[track_caller]
    fn fails_like(self, code: i32, texts: &[&str]) {
        self.run().fails(code).says(texts);
    }
}

#[test]
fn a_buildlet_that_asks_for_no_token_still_has_its_certificate() {
    let farm = no_farm();
    let there = Listening::start_with(&farm, free_port(), true);
    let run = || farm.mote(["run", "--quiet", &there.word(), "/bin/echo", "open"]);
    run().fails_like(255, &["tls/ca.pem"]);
    assert_eq!(run().env("MOTE_CA", there.ca()).ok().out(), "open");
    farm.mote(["destroy", &there.word()]).env("MOTE_CA", there.ca()).ok();
    there.until_nothing_left();
    drop(there);
    assert_no_process_is_left(&farm);
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let Ok(free) = TcpListener::bind("[::1]:0") else {
        return wait::skipped("direct addressing over IPv6", "this machine has no ::1");
    };
    drop(free);
    let port = free_port();
    let port = port.rsplit(':').next().expect("a port");
    let farm = no_farm();
    let there = Listening::start(&farm, format!("[::1]:{port}"));
    assert_eq!(there.sh("echo six").ok().out(), "six");
    there.finish();
    assert_no_process_is_left(&farm);
}

#[test]
fn several_buildlets_are_addressed_at_once_and_one_that_is_away_is_said() {
    let farm = no_farm();
    let (one, other) = (Listening::start(&farm, free_port()), Listening::start_with(&farm, free_port(), true));
    // One file of CAs can not be: each has its own.
    for there in [&one, &other] {
        let file = farm.dir().join("config").join(address_file(&there.address));
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        let token = if there.insecure { String::new() } else { there.token() };
        let ca = fs::read_to_string(there.ca()).expect("a CA");
        let text = format!("server = '{}'\ntoken = '{token}'\nca_pem = '''\n{ca}'''\n", there.address);
        fs::write(&file, text).expect("a profile");
        files::chmod(&file, 0o600);
    }
    let tree = farm.fresh("tree");
    files::write(&tree, "file", "both");
    files::write(&tree, "big", motefarm_tests::Dice::new(2).bytes(3_000_000));
    farm.mote(["push", "-C"]).arg(&tree).args(["--to", "it", &one.word(), &other.word()]).ok();
    for there in [&one, &other] {
        let got = files::read(&only(&there.instances()).join("work/it"), &[]);
        files::assert_equal(&got, &files::read(&tree, &[]));
    }
    let mixed = farm.mote(["ping", &one.word(), "alice-linux-amd64-0"]);
    mixed.fails_like(2, &["alice-linux-amd64-0", "commands of their own"]);
    for verb in [vec!["snapshot", "create", &one.word(), "x"], vec!["create", "--from", "x", &one.word()]] {
        farm.mote(&verb).run().fails(1).says(&["needs a coordinator"]);
    }
    farm.mote(["destroy", &other.word()]).ok();
    other.until_nothing_left();
    let away = other.word();
    drop(other);
    let ping = farm.mote(["ping", &one.word(), &away]).run().fails(1);
    assert!(ping.stderr.contains("alive") && ping.stderr.contains("can not reach the buildlet"), "{ping:?}");
    farm.mote(["destroy", &one.word()]).ok();
    one.until_nothing_left();
    drop(one);
    assert_no_process_is_left(&farm);
}

#[track_caller]
fn only(paths: &[PathBuf]) -> &Path {
    assert_eq!(paths.len(), 1, "{paths:?}");
    &paths[0]
}
