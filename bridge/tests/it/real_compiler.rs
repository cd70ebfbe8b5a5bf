//! Real compilers: what comes through the bridge is byte for byte what they leave on this machine.

use crate::compilers::Compilers;
use crate::cxx_project::{CxxProject, Shape, write};
use crate::fake_reapi::worker::Work;
use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_build::{build, compare, job, jobs, task};
use crate::harness::{Bridge, apart};
use std::process::Command;
use std::sync::Arc;

/// The compilers of this machine that can be tried; what is missing is said aloud.
pub(crate) fn compilers() -> Vec<Compilers> {
    let sandbox = Command::new("bwrap").args(["--unshare-all", "--ro-bind", "/", "/", "true"]).status();
    if !sandbox.is_ok_and(|status| status.success()) {
        say("SKIPPED: real compilers need bubblewrap, and leave to make a sandbox");
        return Vec::new();
    }
    let (found, lacking) = Compilers::here();
    lacking.iter().for_each(|name| say(&format!("SKIPPED: there is no {name}")));
    found
}

#[expect(clippy::print_stderr, reason = "what was not tried must be seen")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_those_of_this_machine_cold_warm_and_after_a_kill() {
    let compilers = compilers();
    if compilers.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape { libraries: 6, programs: 2, freestanding: 2, demanding: true };
    let project = CxxProject::write(dir.path(), shape);
    let jobs = Arc::new(
        apart(move || {
            let in_tree = Compilers::into_tree(&project);
            jobs(&project, &compilers, in_tree.as_ref())
        })
        .await,
    );
    let fake = FakeReapi::start(Rules::nativelink(), Work::Chroot).await;
    let state = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(state.path(), &fake, "").await;
    for round in ["cold", "warm", "after a kill"] {
        let mut client = bridge.client();
        client.files_are_new = round == "cold";
        let jobs = jobs.clone();
        let (built, count) = apart(move || (build(&client, &jobs, 3, |_| ()), jobs.len())).await;
        if round != "cold" {
            assert_eq!((built.hits, built.requests, built.repeated), (count, count as i64, 0), "{round}");
        }
        if round == "warm" {
            bridge.kill().await;
            bridge = Bridge::start(state.path(), &fake, "").await;
        }
    }
    assert_eq!(fake.state().ran.len(), jobs.len());
    assert!(fake.state().written.values().all(|times| *times == 1), "each content is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_error_comes_back_as_the_compiler_said_it() {
    for compilers in compilers() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { libraries: 1, programs: 0, freestanding: 0, demanding: true };
        let project = CxxProject::write(dir.path(), shape);
        write(&dir.path().join("c_0.c"), "int main(void) { return undeclared; }\n");
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let job = job(task(&project, &compilers, &project.units()[0]));
        let fake = FakeReapi::start(Rules::buildbarn(), Work::Chroot).await;
        let state = tempfile::tempdir().unwrap();
        let bridge = Bridge::start(state.path(), &fake, "").await;
        let mut client = bridge.client();
        let (compiled, job) = apart(move || (client.compile(&job.task).unwrap(), job)).await;
        assert_eq!(compiled.exit_status, 1);
        compare(&job, &compiled);
    }
}
