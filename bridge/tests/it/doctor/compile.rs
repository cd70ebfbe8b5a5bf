//! F12 to F16, and what else becomes of a compile: through the bridge, before servers that do not do it.

use super::pages::{Pages, answer};
use super::person::Person;
use super::variables::Bench;
use crate::fake_reapi::worker::Work;
use crate::fake_reapi::{FakeReapi, Rules};
use crate::harness::{Bridge, compiles_by, compiles_here, fails, lists_files};
use crate::program;
use motefarm_proto::goma::{ExecReq, ExecResp, ExecResult};
use prost::Message as _;
use std::os::unix::fs::symlink;
use tonic::Code;

/// A server with these rules and this worker, a bridge that asks for this platform, and somebody before it.
async fn before(rules: Rules, work: Work, platform: &[(&str, &str)]) -> (tempfile::TempDir, FakeReapi, Bridge, Person) {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(rules, work).await;
    let platform = platform.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let bridge = Bridge::start_on(dir.path(), fake.backend(), platform, "").await;
    let person = Person::prepared(&bridge.address.to_string()).await;
    (dir, fake, bridge, person)
}

/// F12. Buildbarn compares every property; what was asked for is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_no_worker_has_is_told_with_what_was_sent() {
    let right = [("OSFamily", "linux"), ("container-image", "docker://x")];
    for (platform, told) in [
        (&[][..], "no properties"),
        (&[("OSFamily", "Linux"), right[1]], "OSFamily=Linux, container-image=docker://x"),
        (&right[..1], "OSFamily=linux"),
    ] {
        let (_dir, _fake, _bridge, person) = before(Rules::buildbarn(), compiles_here(), platform).await;
        let seen = person.look(&[]).await;
        seen.is_wrong("no-worker");
        assert!(seen.problem("no-worker").contains(&format!("asks for a worker with {told}")), "{seen:?}");
        assert!(seen.fix("no-worker").contains("--platform NAME=VALUE"));
    }
    let (_dir, _fake, _bridge, person) = before(Rules::buildbarn(), compiles_here(), &right).await;
    person.look(&[]).await.is_in_order();
}

/// F14. Debian's `cc` is an absolute link. The bridge spells it so that it stays inside; the old server refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_link_to_the_compiler_stays_inside_or_is_told() {
    let (_dir, fake, _bridge, mut person) = before(
        Rules::nativelink(),
        compiles_by(|job, cwd| {
            assert!(job.links.values().all(|target| !target.starts_with('/')), "{:?}", job.links);
            let [link] = job.links.keys().collect::<Vec<_>>()[..] else { panic!("{:?}", job.links) };
            assert!(cwd.exists() && link.ends_with("bin/cc"), "{link}");
            [&["/usr/bin/gcc".to_owned()], &job.command.arguments[1..]].concat()
        }),
        &[],
    )
    .await;
    symlink(std::fs::canonicalize("/usr/bin/gcc").unwrap(), person.path("bin/cc")).unwrap();
    person.look(&[]).await.is_in_order();
    assert_eq!(fake.state().ran.len(), 1);

    let old = old_server(|request| {
        let links = request.toolchain_specs.iter().map(|spec| spec.symlink_path());
        let absolute = links.filter(|target| target.starts_with('/')).count();
        let words = if absolute > 0 { "input root: absolute symlink is not allowed" } else { "Execute error: Unknown" };
        ExecResp { error_message: vec![words.to_owned()], ..failed() }
    })
    .await;
    person.set("GOMA_SERVER_PORT", old.port.to_string());
    person.look(&[]).await.is_wrong("absolute-link");
    // The program itself is no link, and that server then has nothing to say but that it failed.
    let gcc = std::fs::canonicalize("/usr/bin/gcc").unwrap();
    person.look(&["--compiler", gcc.to_str().unwrap()]).await.is_wrong("remote-failure");
}

fn failed() -> ExecResp {
    ExecResp { result: Some(ExecResult { exit_status: -1, ..ExecResult::default() }), ..ExecResp::default() }
}

/// A Goma server that is no bridge, and answers compiles so.
async fn old_server(compile: impl Fn(ExecReq) -> ExecResp + Send + Sync + 'static) -> Pages {
    Pages::start(move |head, body| match head.split(' ').nth(1) {
        Some("/cxx-compiler-service/ping") => answer("200 OK", "ok\n"),
        Some("/cxx-compiler-service/e") => answer("200 OK", compile(ExecReq::decode(body).unwrap()).encode_to_vec()),
        _ => answer("404 Not Found", ""),
    })
    .await
}

/// F16. Cause and id, and by the id the whole story.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_cause_and_can_be_explained() {
    let Bench { fake, mut person, .. } = Bench::new("").await;
    fake.fail("execute", &[Code::PermissionDenied; 100]);
    let seen = person.look(&[]).await;
    seen.is_wrong("remote-failure");
    assert!(seen.problem("remote-failure").contains("execute: PermissionDenied: as the test wants it"), "{seen:?}");
    let told = person.shell(&seen.fix("remote-failure")).await;
    assert!(told.contains("PermissionDenied") && told.contains("execute"), "{told}");
    fake.state().failures.clear();
    person.look(&[]).await.is_in_order();
}

/// A request without its compiler is refused for real.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_its_compiler_is_refused() {
    let mut person = Bench::new("").await.person;
    person.unset("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT");
    let seen = person.look(&[]).await;
    seen.is_wrong("toolchain-support");
    seen.is_wrong("refused-request");
    person.mend(&seen, "refused-request").await.is_in_order();
}

/// Neither `cc1` nor `as` is ever sent. In a sandbox without them the real compiler says its real words.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_compiler_that_the_worker_lacks_are_named() {
    if crate::real_compiler::compilers().is_empty() {
        return;
    }
    let without = |places: &'static [&'static str]| {
        compiles_by(move |job, cwd| {
            let there = places.iter().filter(|place| std::path::Path::new(place).exists());
            let hidden = there.flat_map(|place| match std::path::Path::new(place).is_dir() {
                true => vec!["--tmpfs".to_owned(), (*place).to_owned()],
                false => ["--ro-bind", "/dev/null", place].map(str::to_owned).to_vec(),
            });
            let cwd = cwd.display().to_string();
            let bwrap = ["bwrap", "--bind", "/", "/", "--dev", "/dev"].map(str::to_owned).into_iter().chain(hidden);
            bwrap.chain(["--chdir".to_owned(), cwd, "--".to_owned()]).chain(job.command.arguments.clone()).collect()
        })
    };
    for (places, part) in [(&["/usr/lib/gcc", "/usr/libexec/gcc"][..], "cc1"), (&["/usr/include"], "stdio.h")] {
        let (_dir, _fake, _bridge, person) = before(Rules::nativelink(), without(places), &[]).await;
        let seen = person.look(&["--compiler", "/usr/bin/gcc"]).await;
        seen.is_wrong("worker-lacks-parts");
        assert!(seen.problem("worker-lacks-parts").contains(&format!("the worker has no {part}: ")), "{seen:?}");
        assert!(seen.fix("worker-lacks-parts").starts_with("apt-get install "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_worker_makes_is_held_against_what_is_made_here() {
    let optimised = compiles_by(|job, _| {
        [&job.command.arguments[..], &["-O2".to_owned(), "-DNDEBUG".to_owned(), "-g".to_owned()]].concat()
    });
    for (work, id, severity) in [
        (optimised, "other-object", "doubtful"),
        (lists_files(), "no-object", "wrong"),
        (crate::harness::leaves(&[]), "remote-failure", "wrong"),
        (fails(), "remote-compile", "wrong"),
    ] {
        let (_dir, _fake, _bridge, person) = before(Rules::nativelink(), work, &[]).await;
        let seen = person.look(&[]).await;
        assert_eq!((seen.ids(), seen.severity(id).as_str()), (vec![id], severity), "{seen:?}");
    }
    let none = old_server(|_| ExecResp { result: Some(ExecResult::default()), ..ExecResp::default() }).await;
    let mut person = Person::prepared(&none.address()).await;
    // Its default says that it failed.
    assert_eq!(person.look(&[]).await.ids(), ["remote-compile"]);
    let none = old_server(|_| ExecResp {
        result: Some(ExecResult { exit_status: 0, ..ExecResult::default() }),
        ..ExecResp::default()
    })
    .await;
    person.set("GOMA_SERVER_PORT", none.port.to_string());
    assert_eq!(person.look(&[]).await.ids(), ["no-object"]);
}

/// All five attempts are used as the client uses them; a server that takes its time is given up on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_has_enough_and_one_that_says_nothing_are_given_up_on() {
    let counted = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let attempts = counted.clone();
    let cold = old_server(move |request| {
        attempts.lock().unwrap().push(request.requester_info.as_ref().unwrap().retry());
        let missing_input = request.input.iter().map(|input| input.filename().to_owned()).collect();
        ExecResp { missing_input, ..failed() }
    })
    .await;
    let person = Person::prepared(&cold.address()).await;
    let seen = person.look(&[]).await;
    assert_eq!(seen.severity("cold-server"), "doubtful");
    assert!(
        seen.problem("cold-server").contains("trial.c") || seen.problem("cold-server").contains("/usr/"),
        "{seen:?}"
    );
    assert_eq!(*counted.lock().unwrap(), [0, 1, 2, 3, 4]);

    let Bench { fake, person, .. } = Bench::new("").await;
    fake.open(false);
    let seen = person.look(&["--patience", "1s"]).await;
    seen.is_wrong("no-compile-answer");
    assert!(seen.problem("no-compile-answer").contains("no answer in time"), "{seen:?}");
    fake.open(true);
    person.look(&[]).await.is_in_order();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_is_not_there_or_is_none_is_told() {
    let mut person = Bench::new("").await.person;
    let seen = person.look(&["--compiler", "/bin/false"]).await;
    assert_eq!((seen.ids(), seen.severity("local-compile").as_str()), (vec!["local-compile"], "doubtful"));
    let bin = person.path("bin").display().to_string();
    let seen = person.set("PATH", bin).look(&[]).await;
    assert_eq!(seen.ids(), ["no-compiler"]);
    let told = program::program().args(["doctor", "--help"]).output().unwrap();
    assert!(program::words(&told).contains("--compiler <FILE>"));
}

/// A compiler longer than one chunk goes by `/s` before; an object that is not in the answer is looked up.
#[tokio::test(flavor = "multi_thread")]
async fn long_inputs_and_outputs_that_are_looked_up_come_through() {
    let Bench { fake, person, .. } = Bench::new("limits.response_bytes = 1\n").await;
    let padding = "# an ordinary compiler is long\n".repeat(100_000);
    person.program("cc", &format!("exec /usr/bin/gcc \"$@\"\n{padding}"));
    person.look(&[]).await.is_in_order();
    let state = fake.state();
    assert!(state.ran[0].files.iter().any(|name| name.ends_with("/bin/cc")), "{:?}", state.ran[0].files);
    assert!(state.blobs.values().any(|blob| blob.len() > 2 << 20), "its chunks were put together");
}

/// Every compiler of this machine whose parts are here.
#[tokio::test(flavor = "multi_thread")]
async fn real_compilers_come_through_byte_for_byte() {
    let (_dir, _fake, _bridge, person) = before(Rules::nativelink(), Work::Chroot, &[]).await;
    for compiler in crate::real_compiler::compilers() {
        let compiler = compiler.of_c();
        person.look(&["--compiler", compiler]).await.is_in_order();
        let words = person.listen(&["--compiler", compiler]).await;
        assert!(words.contains(&format!("ok  {compiler} compiled remotely in ")), "{words}");
        assert!(words.contains("byte for byte as here"), "{words}");
    }
}
