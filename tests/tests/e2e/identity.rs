//! Who may do what: users, tokens and shares over the real port, and every way in that there is.

use crate::{farm, seconds};
use motefarm_coordinator::identity::{Rule, rule};
use motefarm_net::tls;
use motefarm_tests::joined::{HOST_TYPE, Joined};
use motefarm_tests::rpc::{Rpc, fresh_id, shell};
use motefarm_tests::{Dice, TestFarm, files, processes, wait};
use prost::Message as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};

/// A user with a token.
fn user(farm: &TestFarm, name: &str) -> String {
    farm.mote(["admin", "user", "add", name]).ok();
    farm.mote(["admin", "token", "create", "--user", name, "--name", "t"]).ok().out()
}

/// Every method that our `.proto` files declare and the port serves, and those of the Remote Execution API.
fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(motefarm_proto::DESCRIPTORS).expect("descriptors");
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if name != "mote.v1.Buildlet" {
                paths.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
            }
        }
    }
    let storage = "build.bazel.remote.execution.v2.ContentAddressableStorage";
    for method in ["FindMissingBlobs", "BatchUpdateBlobs", "BatchReadBlobs", "GetTree", "SplitBlob", "SpliceBlob"] {
        paths.insert(format!("/{storage}/{method}"));
    }
    for method in [
        "Capabilities/GetCapabilities",
        "ActionCache/GetActionResult",
        "ActionCache/UpdateActionResult",
        "Execution/Execute",
        "Execution/WaitExecution",
    ] {
        paths.insert(format!("/build.bazel.remote.execution.v2.{method}"));
    }
    for method in ["GetOperation", "CancelOperation"] {
        paths.insert(format!("/google.longrunning.Operations/{method}"));
    }
    for method in ["Read", "Write", "QueryWriteStatus"] {
        paths.insert(format!("/google.bytestream.ByteStream/{method}"));
    }
    paths
}

/// The gRPC status of an empty call.
fn status(rpc: &Rpc, path: &str) -> Code {
    status_of(rpc, path, Body::empty())
}

/// The gRPC status of a call.
pub(crate) fn status_of(rpc: &Rpc, path: &str, body: Body) -> Code {
    let request = http::Request::post(format!("http://farm{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request");
    let mut channel = rpc.authorized();
    let answer = rpc.wait(async move {
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("the port is there");
        channel.call(request).await.expect("an answer")
    });
    match answer.headers().get("grpc-status").and_then(|value| value.to_str().ok()) {
        Some(code) => Code::from_bytes(code.as_bytes()),
        // It began to answer.
        None => Code::Ok,
    }
}

#[test]
fn every_method_of_the_port_asks_who_calls() {
    let farm = farm().start();
    let bob = user(&farm, "bob");
    let (nobody, plain) = (Rpc::connect(&farm.profile(), Some("")), Rpc::connect(&farm.profile(), Some(&bob)));
    for path in methods() {
        let expected = match rule(&path) {
            None => panic!("{path} is declared and has no rule"),
            Some(Rule::Open) => continue,
            Some(Rule::User | Rule::Admin) => Code::Unauthenticated,
            Some(other) => panic!("{path}: {other:?} is no rule for a method"),
        };
        assert_eq!(status(&nobody, &path), expected, "{path} without a token");
        if rule(&path) == Some(Rule::Admin) {
            assert_eq!(status(&plain, &path), Code::PermissionDenied, "{path} with a user's token");
        } else {
            let answer = status(&plain, &path);
            assert!(!matches!(answer, Code::Unauthenticated | Code::PermissionDenied), "{path}: {answer:?}");
        }
    }
    for path in ["/mote.v1.Buildlet/Describe", "/mote.v1.Farm/NoSuch", "/grpc.reflection.v1.ServerReflection/x"] {
        assert_eq!(status(&plain, path), Code::Unimplemented, "{path}");
    }
    farm.finish();
}

#[test]
fn every_route_of_the_port_has_a_rule() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("coordinator/src");
    let mut dirs = vec![sources];
    let mut found = 0;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("sources are text");
            for (n, line) in text.lines().enumerate().filter(|(_, line)| line.contains(".route(")) {
                let place = format!("{}:{}", path.display(), n + 1);
                // The two whose addresses are unguessable are put together from constants.
                let line = line.replace("{uploads}", "/gomote/uploads/").replace("{archives}", "/gomote/archives/");
                let route = line.split('"').nth(1).unwrap_or_else(|| panic!("{place}: a route is written out"));
                let sample = route.replace("{{", "x").replace("}}", "x");
                assert!(rule(&sample).is_some(), "{place}: {route} has no rule in identity.rs");
                found += 1;
            }
        }
    }
    assert!(found >= 6, "routes are found: {found}");
}

#[test]
fn admins_look_after_users_without_a_running_coordinator() {
    let farm = farm().start();
    let admin = |args: &[&str]| {
        let config = farm.dir().join("coordinator.toml").display().to_string();
        let data = farm.data().display().to_string();
        let setup = ["admin", "--config", &config, "--data-dir", &data];
        farm.program(&farm.programs().coordinator).args(setup).args(args)
    };
    // While it runs: what is given works, and what is taken is noticed.
    admin(&["user", "add", "carol"]).ok();
    let token = admin(&["token", "create", "--user", "carol", "--name", "offline"]).ok().out();
    assert!(token.starts_with("mote_") && token.lines().count() == 1, "the token alone");
    assert!(farm.mote_as(&token, &["whoami"]).ok().out().starts_with("carol (user)"));
    let theirs = farm.mote_as(&token, &["create", &TestFarm::host_type()]).ok().out();
    let mut waiting =
        farm.mote_as(&token, &["run", "--quiet", &theirs, "/bin/sh", "-c", "echo up; sleep 1000"]).spawn();
    waiting.until_stdout("up", seconds(20));
    admin(&["token", "revoke", "--user", "carol", "--name", "offline"]).ok();
    wait::until_true("the token is worthless", seconds(10), || farm.mote_as(&token, &["list"]).run().code() == 3);
    waiting.wait().fails(255).says(&["token"]);
    admin(&["token", "revoke", "--user", "carol", "--name", "offline"]).run().fails(1).says(&["carol/offline"]);
    admin(&["user", "remove", "carol"]).ok();
    farm.until_gone(&theirs, seconds(10));
    // While it is stopped.
    farm.stop_coordinator();
    admin(&["user", "add", "--role", "admin", "dave"]).ok();
    let token = admin(&["token", "create", "--user", "dave", "--expires", "1h"]).ok().out();
    assert!(admin(&["user", "list"]).ok().out().contains("dave\tadmin"));
    let join = admin(&["join-token", "create", "--host-type", HOST_TYPE, "--one-time"]).ok().out();
    assert!(!admin(&["join-token", "list"]).ok().out().contains(join.split('.').nth(1).expect("three parts")));
    let listed = admin(&["token", "list"]).ok().out();
    assert!(listed.contains("dave\tdefault") && !listed.contains(&token), "{listed}");
    farm.start_coordinator();
    assert!(farm.mote_as(&token, &["admin", "user", "list"]).ok().out().contains("dave"));
    let audit = farm.mote(["admin", "audit", "--action", "token create", "--json"]).ok().json();
    let rows = audit["audit"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["subject"] == "dave/default" && row["detail"] == "mote-coordinator admin"));
    let fingerprint = admin(&["fingerprint"]).ok().out();
    assert_eq!(fingerprint, tls::ca_hash(&farm.profile_value("ca_pem")).expect("a CA"));
    // A folder without a farm is none, and none is made.
    let elsewhere = farm.fresh("elsewhere").display().to_string();
    let program = farm.program(&farm.programs().coordinator).args(["admin", "--data-dir", &elsewhere, "user", "list"]);
    program.run().fails(1).says(&["no farm"]);
    assert!(!Path::new(&elsewhere).exists());
    farm.finish();
}

#[test]
fn a_second_machine_signs_in_and_out() {
    let farm = farm().start();
    let token = user(&farm, "bob");
    let home = farm.fresh("home-of-bob");
    let mote = |args: &[&str]| {
        farm.mote(args).env("MOTE_CONFIG_DIR", home.join("config")).env("MOTE_CACHE_DIR", home.join("cache"))
    };
    let (server, pin) = (farm.address(), tls::ca_hash(&farm.profile_value("ca_pem")).expect("a CA"));
    mote(&["login", "--server", &server]).env("MOTE_TOKEN", &token).run().fails(2).says(&[&pin]);
    let wrong = mote(&["login", "--server", &server, "--ca-fingerprint", &"1".repeat(64)]);
    wrong.env("MOTE_TOKEN", &token).run().fails(3).says(&["another farm"]);
    let login = ["login", "--server", &server, "--ca-fingerprint", &pin, "--farm", "work"];
    mote(&login).env("MOTE_TOKEN", format!("mote_{}", "0".repeat(64))).run().fails(3);
    assert!(!home.join("config/farms/work.toml").exists());
    let mut given = mote(&login).args(["--token-file", "-"]).stdin(format!("{token}\n")).spawn();
    // While it runs, and after, no process has the token among its arguments.
    while !given.is_over() {
        assert!(processes::all().iter().all(|process| process.args.iter().all(|arg| !arg.contains(&token))));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    given.wait().ok();
    let who = mote(&["whoami", "--farm", "work"]).ok().out();
    assert!(who.starts_with("bob (user)") && who.contains("\"t\""), "{who}");
    assert_eq!(mote(&["auth", "token", "--farm", "work"]).ok().out(), token);
    assert_eq!(mote(&["--json", "whoami"]).env("MOTE_FARM", "work").ok().json()["user"], "bob");
    mote(&["logout", "--farm", "work", "--revoke"]).ok();
    assert!(!home.join("config/farms/work.toml").exists());
    farm.mote_as(&token, &["list"]).run().fails(3);
    farm.finish();
}

#[test]
fn an_instance_is_shared_and_unshared() {
    let farm = farm().start();
    let bob = user(&farm, "bob");
    let mote = farm.create();
    farm.mote_as(&bob, &["ping", &mote.name]).run().fails(1);
    farm.mote(["share", &mote.name, "bob"]).ok();
    farm.mote(["share", &mote.name, "no-such-user"]).run().fails(1).says(&["no user"]);
    assert!(farm.mote_as(&bob, &["list"]).ok().out().contains(&mote.name), "it is listed");
    assert_eq!(farm.mote_as(&bob, &["run", "--quiet", &mote.name, "/bin/echo", "together"]).ok().out(), "together");
    farm.mote_as(&bob, &["destroy", &mote.name]).run().fails(1).says(&["you may use it"]);
    farm.mote_as(&bob, &["destroy", "--all"]).run();
    assert_eq!(farm.state(&mote.name).as_deref(), Some("ready"), "what is shared is not his to end");
    let mut waiting =
        farm.mote_as(&bob, &["run", "--quiet", &mote.name, "/bin/sh", "-c", "echo up; sleep 1000"]).spawn();
    waiting.until_stdout("up", seconds(20));
    farm.mote(["unshare", &mote.name, "bob"]).ok();
    waiting.wait().fails(255);
    farm.mote_as(&bob, &["ping", &mote.name]).run().fails(1);
    let rpc = Rpc::connect(&farm.profile(), Some(&bob));
    let answer = rpc.execute(&mote.name, &fresh_id(), shell("id")).expect_err("no longer");
    assert_eq!(answer.code(), Code::NotFound, "{answer}");
    let audit = farm.mote(["admin", "audit", "--user", &farm.user(), "--since", "1h"]).ok().out();
    for action in ["create", "share", "unshare"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
    assert!(farm.mote(["admin", "audit", "--action", "run"]).ok().out().contains("/bin/echo together"));
    farm.mote(["admin", "audit", "--action", "nonsense"]).run().fails(1).says(&["sign-in"]);
    farm.mote_as(&bob, &["admin", "audit"]).run().fails(1);
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn revoking_a_join_token_cuts_the_contact_made_by_it() {
    let farm = farm().no_buildlet().start();
    let token = farm.mote(["admin", "join-token", "create", "--host-type", HOST_TYPE]).ok().out();
    let joined = Joined::start_with(&farm, &farm.address(), &[], &token);
    let in_contact = || {
        let listed = farm.mote(["admin", "buildlets", "--json"]).ok().json();
        listed["buildlets"].as_array().is_some_and(|all| all.iter().any(|one| one["in_contact"] == true))
    };
    wait::until_true("it is in contact", seconds(30), in_contact);
    farm.mote(["admin", "join-token", "revoke", token.split('.').next().expect("an id")]).ok();
    wait::until_true("the contact is cut", seconds(5), || !in_contact());
    wait::until_true("and it is refused", seconds(20), || joined.log().contains("join token"));
    assert!(!in_contact());
    joined.finish(&farm);
    farm.finish();
}

#[test]
fn many_failed_sign_ins_wait_and_good_tokens_do_not() {
    let farm = farm().start();
    let late = user(&farm, "late");
    farm.mote(["list"]).ok();
    let bad = Rpc::connect(&farm.profile(), Some(&format!("mote_{}", "0".repeat(64))));
    let ask = |rpc: &Rpc| rpc.wait(rpc.farm().who_am_i(motefarm_proto::mote::WhoAmIRequest {})).map(drop);
    let codes: Vec<Code> = (0..200).map(|_| ask(&bad).expect_err("it is no good").code()).collect();
    assert_eq!(codes[0], Code::Unauthenticated);
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    assert!(codes.iter().filter(|code| **code == Code::Unauthenticated).count() < 60, "{codes:?}");
    farm.mote(["list"]).ok();
    farm.mote_as(&late, &["list"]).run().fails(1).says(&["too many", "try again in"]);
    wait::until_true("after a while it is let", seconds(20), || farm.mote_as(&late, &["list"]).run().code() == 0);
    let rows = farm.mote(["admin", "audit", "--action", "sign-in refused", "--json"]).ok().json();
    let rows = rows["audit"].as_array().expect("rows").len();
    assert!((1..=3).contains(&rows), "{rows} rows for two hundred failures");
    farm.finish();
}

#[test]
fn a_users_limits_hold_at_the_port() {
    let farm = farm().config("[limits]\ninstances_per_user = 1\nupload_bytes_per_second = 2000000").start();
    let mote = farm.create();
    farm.mote(["create", &TestFarm::host_type()]).run().fails(1).says(&["instances of one user", "1"]);
    let bob = user(&farm, "bob");
    let tree = farm.fresh("tree");
    files::write(&tree, "file", Dice::new(5).bytes(12_000_000));
    let begin = Instant::now();
    let mut pushing = farm.push(&tree, "it", &mote).spawn();
    // Others are not held up by it.
    let theirs = farm.mote_as(&bob, &["create", &TestFarm::host_type()]).ok();
    assert!(theirs.took < seconds(5) && !pushing.is_over());
    pushing.wait().ok();
    let took = begin.elapsed();
    assert!((seconds(3)..seconds(30)).contains(&took), "12 MB at 2 MB/s, two seconds' worth at once: {took:?}");
    farm.mote_as(&bob, &["destroy", "--all"]).ok();
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn damage_is_named_with_what_to_do() {
    let farm = farm().start();
    let bob = user(&farm, "bob");
    // A row that no version of the program wrote: the database itself must refuse it, or the farm says so.
    farm.stop_coordinator();
    let database = farm.data().join("farm.db");
    let whole = fs::read(&database).expect("the database");
    assert!(whole.len() > 8192 && !farm.data().join("farm.db-wal").exists(), "closed in order");
    let mut torn = whole.clone();
    // The first page holds the header and the schema.
    torn[100..4000].fill(0xA5);
    fs::write(&database, &torn).expect("the database");
    let ran = farm.coordinator(&["serve", "--listen", "127.0.0.1:0"]).patience(seconds(20)).run().fails(1);
    assert!(ran.stderr.contains("database") && ran.stderr.contains("farm.db"), "{}", ran.stderr);
    fs::write(&database, b"this is no database, but something else of more than sixteen bytes").expect("the database");
    let ran = farm.coordinator(&["serve", "--listen", "127.0.0.1:0"]).patience(seconds(20)).run().fails(1);
    assert!(ran.stderr.contains("not a database") && ran.stderr.contains("restore"), "{}", ran.stderr);
    fs::write(&database, &whole).expect("the database");
    // A token whose user's row was changed to something that is no user.
    let text = b"bob";
    let mut changed = whole;
    let mut places = 0;
    for at in 0..changed.len() - text.len() {
        if &changed[at..at + text.len()] == text {
            changed[at] = b'B';
            places += 1;
        }
    }
    assert!(places > 0);
    fs::write(&database, &changed).expect("the database");
    farm.start_coordinator();
    let ran = farm.mote_as(&bob, &["whoami"]).run().fails(1);
    assert!(ran.stderr.contains("operator") && !ran.stderr.contains("Bob"), "{}", ran.stderr);
    assert!(farm.coordinator_log(30).contains("damaged: users.name"), "{}", farm.coordinator_log(30));
    farm.mote(["list"]).ok();
    farm.finish();
}
