//! Go's own agent, unmodified, as a machine of a farm: every command, and what becomes of it when something dies.
//!
//! Without Go most of this says SKIPPED; [`wire`] meets the port as that agent does.

mod wire;

use crate::{farm, seconds};
use flate2::read::GzDecoder;
use motefarm_tests::go_agent::{self, GoAgent, HOST_TYPE};
use motefarm_tests::{Instance, TestFarm, files, processes, wait};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

fn program() -> Option<PathBuf> {
    go_agent::program(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// A farm with nothing but one Go agent.
fn farm_with(program: &Path) -> (TestFarm, GoAgent) {
    let farm = farm().no_buildlet().start();
    let agent = GoAgent::start(&farm, program, "one");
    (farm, agent)
}

fn create(farm: &TestFarm) -> Instance {
    farm.create_of(HOST_TYPE, &farm.dir().join("nowhere"))
}

fn finish(farm: TestFarm, mut agent: GoAgent) {
    agent.kill9();
    wait::until_true("nothing is left", seconds(20), || farm.others().is_empty());
    farm.finish();
}

fn out(farm: &TestFarm, args: &[&str]) -> String {
    farm.mote(args).ok().out()
}

/// Files of a tar, by name, sorted.
fn entries(tar: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    let mut found: Vec<(String, String)> = archive
        .entries()
        .expect("a tar")
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (entry.path().expect("a name").display().to_string(), text)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn commands_run_and_say_how_they_ended() {
    let Some(program) = program() else { return };
    let (farm, agent) = farm_with(&program);
    let mote = create(&farm);
    assert_eq!(Path::new(&mote.work_dir), agent.work());
    farm.mote(["ping", &mote.name]).ok().says(&["alive"]);
    let listed = farm.list();
    assert_eq!((listed[0]["host_type"].as_str(), listed[0]["state"].as_str()), (Some(HOST_TYPE), Some("ready")));

    assert_eq!(farm.sh(&mote, "echo out; echo err >&2; pwd").out(), format!("out\nerr\n{}", agent.work().display()));
    farm.run(&mote, "exit 3").run().fails(3);
    farm.run(&mote, "kill -9 $$").run().fails(137);
    farm.mote(["run", &mote.name, "no-such-program"]).run().fails(127).says(&["no-such-program"]);
    farm.mote(["run", "--dir", "no/such", &mote.name, "true"]).run().fails(127).says(&["no/such"]);
    // Nothing of the agent's that is a secret or leads commands astray.
    let env = farm.sh(&mote, "env").out();
    for line in ["GO_BUILDLET_TOKEN=", "HTTPS_PROXY="] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
    assert!(env.contains(&format!("MOTE_INSTANCE_NAME={}", mote.name)), "{env}");
    let path = out(&farm, &["run", "--quiet", "--path", "$PATH,/else", &mote.name, "sh", "-c", "echo $PATH"]);
    assert!(path.ends_with(":/else") && path.starts_with("/usr/local/bin"), "{path}");
    farm.mote(["run", "--timeout", "1s", "--quiet", &mote.name, "sleep", "100"]).run().fails(124);
    // No stdin but an empty one.
    let refused = farm.mote(["run", "--stdin", &mote.name, "cat"]).stdin("text").run();
    assert_ne!(refused.code(), 0);
    refused.says(&["no stdin"]);
    assert_eq!(farm.mote(["run", "--stdin", "--quiet", &mote.name, "cat"]).stdin("").ok().out(), "");

    // Its one slot is taken: the next waits until the agent is back, empty.
    farm.sh(&mote, "echo left > behind; mkdir -p deep/er; echo x > deep/er/x");
    let waiting = farm.mote(["create", "--json", HOST_TYPE]).patience(seconds(60)).spawn();
    wait::until_true("the second waits", seconds(20), || farm.list().iter().any(|i| i["state"] == "queued"));
    farm.destroy(&[&mote]);
    let second = farm.instance(&waiting.wait().ok().json(), &farm.dir().join("nowhere"));
    agent.until_registered(2);
    assert_eq!(farm.sh(&second, "find . -type f").out(), "", "it is as new");
    farm.destroy(&[&second]);
    finish(farm, agent);
}

#[test]
fn trees_are_made_equal() {
    let Some(program) = program() else { return };
    let (farm, agent) = farm_with(&program);
    let mote = create(&farm);
    let tree = farm.fresh("tree");
    files::write(&tree, "a/file", "content");
    files::write(&tree, ".gitignore", "*.o\n");
    files::write(&tree, "large", motefarm_tests::Dice::new(7).bytes(3_000_000));
    files::write(&tree, format!("deep/{}/f", "n".repeat(150)), "long");
    files::write_script(&tree, "say.sh", "echo said");
    fs::create_dir(tree.join("empty")).expect("a directory");
    let there = agent.work().join("it");
    let equal = || files::assert_equal(&files::read(&there, &[]), &files::read(&tree, &[]));
    farm.push(&tree, "it", &mote).ok();
    equal();
    assert_eq!(out(&farm, &["run", "--quiet", &mote.name, "it/say.sh"]), "said");
    farm.push(&tree, "it", &mote).ok().says(&["0 written", "0 deleted"]);
    // What commands did is put right, what is ignored stays, and kinds change.
    farm.sh(
        &mote,
        "cd it; echo torn > a/file; touch a/x.o extra; chmod 644 say.sh; rm -r deep; mkdir more; touch more/y",
    );
    fs::remove_dir(tree.join("empty")).expect("a directory");
    files::write(&tree, "empty", "now a file");
    farm.mote(["push", "--dry-run", "-C"]).arg(&tree).args(["--to", "it", &mote.name]).ok().says(&["would be written"]);
    assert!(there.join("extra").exists(), "a dry run does nothing");
    let pushed = farm.mote(["push", "--json", "-C"]).arg(&tree).args(["--to", "it", &mote.name]).ok().json();
    let target = &pushed["targets"][0];
    assert_eq!((target["modes_changed"].as_u64(), target["entries_deleted"].as_u64()), (Some(1), Some(3)), "{target}");
    assert!(there.join("a/x.o").exists(), "what is ignored stays");
    fs::remove_file(there.join("a/x.o")).expect("a file");
    equal();
    // Links are left out, aloud.
    files::link(&tree, "a/link", "file");
    farm.push(&tree, "it", &mote).ok().says(&["can not have 1 symbolic link", "a/link"]);
    assert!(!there.join("a/link").exists());
    // A link that a command planted is no way out.
    let outside = farm.fresh("outside");
    fs::write(&outside, "untouched").expect("a file");
    farm.sh(&mote, &format!("rm it/a/file; ln -s {} it/a/file", outside.display()));
    farm.push(&tree, "it", &mote).ok();
    assert_eq!(fs::read_to_string(&outside).expect("a file"), "untouched");
    assert_eq!(fs::read_to_string(there.join("a/file")).expect("a file"), "content");
    // The whole work directory, with what the agent has there for itself.
    farm.push(&tree, ".", &mote).ok();
    assert!(agent.work().join("tmp").is_dir() && !there.exists());

    out(&farm, &["snapshot", "create", &mote.name, "kept"]);
    farm.destroy(&[&mote]);
    let again = farm.mote(["create", "--json", "--from", "kept", HOST_TYPE]).patience(seconds(60)).ok().json();
    let again = farm.instance(&again, &farm.dir().join("nowhere"));
    assert_eq!(out(&farm, &["run", "--quiet", &again.name, "./say.sh"]), "said");
    farm.destroy(&[&again]);
    finish(farm, agent);
}

#[test]
fn files_are_put_got_listed_and_removed() {
    let Some(program) = program() else { return };
    let (farm, agent) = farm_with(&program);
    let mote = create(&farm);
    let name = mote.name.as_str();
    let here = farm.fresh("here");
    fs::create_dir(&here).expect("a directory");
    let large = motefarm_tests::Dice::new(3).bytes(5_000_000);
    fs::write(here.join("large"), &large).expect("a file");
    let put = |args: &[&str]| farm.mote(["put"]).args(args).cwd(&here);
    put(&["--mode", "755", name, "large", "d/large"]).ok();
    put(&[name, "-", "empty"]).stdin("").ok();
    assert_eq!(files::read(agent.work(), &["tmp", "gocache", "goplscache"]), {
        let like = farm.fresh("like");
        files::write(&like, "d/large", &large);
        files::chmod(&like.join("d/large"), 0o755);
        files::write(&like, "empty", "");
        files::read(&like, &[])
    });
    assert!(farm.mote(["get", name, "d/large", "-"]).ok().stdout == large, "it comes back as it went");
    assert_eq!(farm.mote(["get", name, "empty", "-"]).ok().stdout, b"");
    farm.mote(["get", name, "d", "-"]).run().fails(1).says(&["directory"]);
    farm.mote(["get", name, "nowhere", "-"]).run().fails(1).says(&["nowhere"]);
    put(&[name, "large", "d"]).run().fails(1);

    let listed = out(&farm, &["ls", "-R", "-d", name, "d"]);
    let size_and_hash: Vec<&str> = listed.split('\t').collect();
    assert_eq!((size_and_hash[0], size_and_hash[1], size_and_hash[2]), ("-rwxr-xr-x", "large", "5000000"));
    assert_eq!(size_and_hash[4].len(), 40);
    farm.mote(["ls", "--sha256", name]).run().fails(1).says(&["SHA-1"]);
    farm.mote(["ls", name, "nowhere"]).run().fails(1).says(&["nowhere"]);

    let mut packed = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    packed.append_data(&mut header, "unpacked/f", &b"hi"[..]).expect("memory");
    let packed = packed.into_inner().expect("memory");
    let puttar = |archive: Vec<u8>| farm.mote(["puttar", "--dir", "into", name, "-"]).stdin(archive);
    puttar(zstd::encode_all(&packed[..], 1).expect("memory")).ok();
    assert_eq!(farm.mote(["get", name, "into/unpacked/f", "-"]).ok().out(), "hi");
    let mut linked = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    linked.append_link(&mut header, "bad", "/etc").expect("memory");
    puttar(linked.into_inner().expect("memory")).run().fails(1).says(&["bad", "symbolic link"]);

    for (flag, unpack) in [("--plain", (|tar| tar) as fn(Vec<u8>) -> Vec<u8>), ("--zstd", unzstd)] {
        let tar = farm.mote(["gettar", flag, "--dir", "into", "-o", "-", name]).ok().stdout;
        let found = entries(&unpack(tar));
        assert!(found.contains(&("unpacked/f".to_owned(), "hi".to_owned())), "{found:?}");
    }
    let mut plain = Vec::new();
    let gzip = farm.mote(["gettar", "-o", "-", name]).ok().stdout;
    GzDecoder::new(&gzip[..]).read_to_end(&mut plain).expect("one member");
    assert!(plain.len() > 5_000_000);
    farm.mote(["gettar", "--dir", "nowhere", "-o", "-", name]).run().fails(1).says(&["nowhere"]);

    farm.mote(["rm", name, "d", "into/unpacked", "nowhere"]).ok().says(&["4 entries"]);
    assert!(!agent.work().join("d").exists() && agent.work().join("into").exists());
    farm.mote(["rm", name, "."]).ok();
    farm.destroy(&[&mote]);
    finish(farm, agent);
}

fn unzstd(tar: Vec<u8>) -> Vec<u8> {
    zstd::decode_all(&tar[..]).expect("zstd")
}

#[test]
fn a_run_outlives_its_client_and_ends_when_told() {
    let Some(program) = program() else { return };
    let (farm, agent) = farm_with(&program);
    let mote = create(&farm);
    let go = agent.work().join("go-on");
    let output = farm.fresh("output");
    let script = "echo one; until [ -e go-on ]; do sleep 0.1; done; echo two; exit 5";
    let mut client = farm.run_into(&mote, &output, script).spawn();
    client.until_stdout("one", seconds(20));
    client.kill9();
    drop(client);
    let exec = &mote.name;
    let mut attached = farm.mote(["attach", "--quiet", "--output"]).arg(farm.fresh("all")).arg(exec).spawn();
    attached.until_stdout("one", seconds(20));
    assert_eq!(out(&farm, &["logs", "--quiet", exec]), "one");
    fs::write(&go, "").expect("a file");
    assert_eq!(attached.wait().fails(5).out(), "one\ntwo");
    // What is over can be had again, from anywhere.
    let anew = farm.mote(["attach", "--quiet", "--output"]).arg(farm.fresh("anew")).arg(exec);
    assert_eq!(anew.run().fails(5).out(), "one\ntwo");

    let time = (1_000_000_000 + u64::from(std::process::id())).to_string();
    let exec = farm.detach(&mote, &format!("echo begun; exec sleep {time}"));
    wait::until_true("it runs", seconds(20), || out(&farm, &["logs", "--quiet", &exec]) == "begun");
    farm.mote(["cancel", &exec]).ok();
    farm.mote(["attach", "--quiet", &exec]).run().fails(130);
    wait::until_true("its process is gone", seconds(10), || processes::with_arg(&time).is_empty());
    // Much output, to a reader that comes late.
    let exec = farm.detach(&mote, "head -c 20000000 /dev/zero | tr '\\0' x; echo end");
    let late = farm.mote(["attach", "--quiet", &exec]).ok();
    assert!(late.stdout.len() == 20_000_004 && late.stdout.ends_with(b"xend\n"), "{} bytes", late.stdout.len());
    farm.destroy(&[&mote]);
    finish(farm, agent);
}

#[test]
fn a_killed_agent_takes_its_instance_with_it_and_comes_back_empty() {
    let Some(program) = program() else { return };
    let (farm, mut agent) = farm_with(&program);
    let mote = create(&farm);
    let mut client = farm.run(&mote, "echo begun; exec sleep 1001").spawn();
    client.until_stdout("begun", seconds(20));
    agent.kill9();
    client.wait().fails(255).says(&["agent"]);
    farm.until_gone(&mote.name, seconds(20));
    farm.run(&mote, "true").run().fails(255);
    agent.restart();
    let next = create(&farm);
    assert_eq!(farm.sh(&next, "find . -type f").out(), "");
    farm.destroy(&[&next]);
    finish(farm, agent);
}

#[test]
fn a_killed_coordinator_loses_what_go_agents_had_and_says_so() {
    let Some(program) = program() else { return };
    let (farm, agent) = farm_with(&program);
    let mote = create(&farm);
    let exec = farm.detach(&mote, "echo begun; touch left; sleep 1002");
    wait::until_true("it runs", seconds(20), || out(&farm, &["logs", "--quiet", &exec]) == "begun");
    farm.kill_coordinator();
    farm.start_coordinator();
    farm.mote(["attach", "--quiet", &exec]).run().fails(255).says(&["restarted"]);
    assert_eq!(farm.state(&mote.name), None);
    agent.until_registered(2);
    let next = create(&farm);
    assert_eq!(farm.sh(&next, "find . -type f").out(), "", "it is as new");
    // Stopped in order it does not wait for what runs there either.
    farm.detach(&next, "exec sleep 1003");
    assert!(farm.stop_coordinator().success());
    farm.start_coordinator();
    assert_eq!(farm.state(&next.name), None);
    agent.until_registered(3);
    finish(farm, agent);
}

#[test]
fn only_a_join_token_lets_an_agent_in() {
    let Some(program) = program() else { return };
    let farm = farm().no_buildlet().start();
    let ran = |args: &[&str], vars: &[(&str, &str)]| {
        let proxy = format!("http://{}", farm.address());
        let mut call = farm.program(&program).args(args).args(["-halt=false", "-health-addr=127.0.0.1:0", "-workdir"]);
        call = call.arg(farm.dir().join("tmp")).env("HTTPS_PROXY", proxy);
        for (name, value) in vars {
            call = call.env(name, value);
        }
        call.patience(seconds(60)).run().fails(1)
    };
    // Pool mode, whose key anybody can make: told what to do.
    let pool = ran(&["-reverse-type=go-linux", "-coordinator=server.motefarm.internal:443"], &[]);
    pool.says(&["412", "-swarming-bot", "GO_BUILDLET_TOKEN"]);
    let swarming = ["-swarming-bot", "-gomote-server-addr=server.motefarm.internal:443"];
    let token = out(&farm, &["admin", "join-token", "create", "--host-type", HOST_TYPE]);
    let forged = token.replacen('.', ".0", 1);
    ran(&swarming, &[("GOMOTEID", HOST_TYPE), ("GO_BUILDLET_TOKEN", &forged[..forged.len() - 1])]);
    ran(&swarming, &[("GOMOTEID", "other"), ("GO_BUILDLET_TOKEN", &token)]).says(&["412", "does not let you in"]);
    // And only a farm's own certificate gets to see one.
    let strict = [&swarming[..], &["-coordinator=farmer.golang.org"]].concat();
    let other = farm.fresh("no-ca");
    fs::write(&other, "").expect("a file");
    let other = other.display().to_string();
    ran(&strict, &[("GOMOTEID", HOST_TYPE), ("GO_BUILDLET_TOKEN", &token), ("SSL_CERT_FILE", &other)])
        .says(&["failed to verify certificate"]);
    // A second agent of one name would take the first one's place.
    let first = GoAgent::start(&farm, &program, "same");
    first.until_registered(1);
    let mut second = GoAgent::start(&farm, &program, "same");
    wait::until_true("another token is another agent", seconds(30), || second.registrations() == 1);
    second.set("GO_BUILDLET_TOKEN", first.token());
    second.restart();
    wait::until_true("it is refused", seconds(30), || second.log().contains("409"));
    assert_eq!((first.registrations(), second.registrations()), (1, 1));
    drop(second);
    finish(farm, first);
}

#[test]
fn the_line_of_an_invitation_makes_a_machine_join() {
    let Some(program) = program() else { return };
    let farm = farm().no_buildlet().start();
    let agent = GoAgent::invited(&farm, &program);
    let mote = create(&farm);
    assert_eq!(farm.sh(&mote, "pwd").out(), agent.work().display().to_string());
    farm.destroy(&[&mote]);
    agent.until_registered(2);
    finish(farm, agent);
}

#[test]
fn the_port_is_no_proxy() {
    let farm = farm().no_buildlet().start();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(farm.address()).expect("the port answers");
        stream.set_read_timeout(Some(seconds(20))).expect("a socket");
        stream.write_all(request.as_bytes()).expect("a socket");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(ask("CONNECT example.com:80 HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 403 "));
    // What follows must be TLS, with us.
    assert_eq!(ask("CONNECT example.com:443 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 200 OK\r\n\r\n");
    farm.finish();
}
