//! Debian's Bazel 4.2.3, which can not do TLS: the farm's own user in the clear on loopback.

use crate::peers::peer;
use crate::project::{OBJECTS, Project, TARGETS};
use crate::{farm, seconds};
use motefarm_tests::cxx_project::CxxProject;
use motefarm_tests::{Mote, Ran, TestFarm, processes, wait};
use std::path::PathBuf;
use std::time::Duration;

/// A Bazel with everything of its own; its server is ended with it.
struct Bazel<'a> {
    farm: &'a TestFarm,
    program: PathBuf,
    project: &'a Project,
    /// Written by `mote reapi bazelrc`.
    bazelrc: PathBuf,
}

impl Bazel<'_> {
    fn call(&self, command: &str) -> Mote {
        let call = self.farm.program(&self.program).cwd(&self.project.dir).patience(seconds(240));
        let call = call.args(["--nohome_rc", "--max_idle_secs=60"]);
        let call = call.arg(format!("--bazelrc={}", self.bazelrc.display()));
        call.arg(format!("--output_user_root={}", self.farm.dir().join("bazel").display())).arg(command)
    }

    fn build(&self) -> Mote {
        let remote = ["--spawn_strategy=remote", "--genrule_strategy=remote", "--remote_timeout=60", "--jobs=12"];
        let plain = ["--verbose_failures", "--noshow_progress", "--color=no", "--curses=no"];
        self.call("build").args(self.project.overrides()).args(remote).args(plain).arg("//...")
    }

    fn clean(&self) {
        self.call("clean").ok();
    }

    /// A build from nothing of sources nobody has seen; `harm` is done when a third of it is there.
    fn build_while(&self, generation: u32, harm: impl FnOnce()) -> Ran {
        self.clean();
        self.project.edit(generation);
        let build = self.build().spawn();
        wait::until_true("a third of the build is done", seconds(120), || self.project.objects() > OBJECTS / 3);
        harm();
        build.wait()
    }
}

impl Drop for Bazel<'_> {
    fn drop(&mut self) {
        // Else a JVM stays behind.
        self.call("shutdown").patience(seconds(30)).run();
    }
}

/// From `INFO: 241 processes: 12 remote cache hit, 9 internal, 220 remote.`: how many of a kind.
fn counted(ran: &Ran, kind: &str) -> usize {
    let line = ran.stderr.lines().find(|line| line.contains(" processes: ")).unwrap_or_default();
    let kinds = line.split(" processes: ").nth(1).unwrap_or_default().trim_end_matches('.').split(", ");
    let number = kinds.filter_map(|part| part.split_once(' ')).find(|(_, name)| *name == kind);
    number.and_then(|(n, _)| n.parse().ok()).unwrap_or(0)
}

fn took(what: &str, ran: &Ran) {
    let (cached, remote) = (counted(ran, "remote cache hit"), counted(ran, "remote"));
    wait::say(&format!("bazel: {what}: {:.1} s, {remote} executed, {cached} from the cache", ran.took.as_secs_f64()));
}

#[test]
fn bazel_builds_on_the_farm_from_the_cache_after_an_eviction_and_through_deaths() {
    let Some(program) = peer("bazel builds on the farm", "bazel", "bazel") else { return };
    let farm = farm().start();
    let project = Project::write(farm.dir());
    let bazelrc = farm.dir().join("farm.bazelrc");
    farm.mote(["reapi", "bazelrc"]).arg(&bazelrc).ok();
    assert!(std::fs::read_to_string(&bazelrc).expect("flags").contains("=grpc://"), "its own user needs no TLS");
    let bazel = Bazel { farm: &farm, program, project: &project, bazelrc };

    let ran = bazel.build().ok();
    took("from nothing", &ran);
    assert!(counted(&ran, "remote") >= TARGETS, "{}", ran.stderr);
    for n in [0, 7, 19] {
        let app = farm.program(&project.dir.join(format!("bazel-bin/app_{n}"))).ok();
        assert_eq!(app.out(), CxxProject::expected(n));
    }

    bazel.clean();
    let ran = bazel.build().ok();
    took("again", &ran);
    assert!(counted(&ran, "remote cache hit") >= TARGETS && counted(&ran, "remote") == 0, "{}", ran.stderr);

    let stat = farm.mote(["cas", "stat", "--json"]).ok().json();
    assert!(stat["blobs"].as_u64() > Some(100), "{stat}");
    farm.mote(["cas", "gc", "--to", "0"]).ok();
    bazel.clean();
    let ran = bazel.build().ok();
    took("after everything was evicted", &ran);
    assert!(counted(&ran, "remote") >= TARGETS, "{}", ran.stderr);

    let ran = bazel.build_while(1, || {
        farm.kill_buildlet().expect("a buildlet runs");
    });
    took("with the buildlet killed half-way", &ran);
    let ran = ran.ok();
    assert!(counted(&ran, "remote") >= OBJECTS, "{}", ran.stderr);

    let ran = bazel.build_while(2, || {
        farm.kill_coordinator();
        farm.start_coordinator();
    });
    took("with the coordinator killed half-way", &ran);
    ran.ok();

    // The client's end is nobody's harm: what it asks for afterwards is built. Its server goes with it.
    bazel.clean();
    let server: i32 = bazel.call("info").arg("server_pid").ok().out().parse().expect("a process id");
    project.edit(3);
    let build = bazel.build().spawn();
    wait::until_true("a third of the build is done", seconds(120), || project.objects() > OBJECTS / 3);
    build.kill9();
    processes::kill9(server);
    drop(build);
    let ran = bazel.build().ok();
    took("after the client was killed half-way", &ran);

    let verified = farm.mote(["cas", "verify"]).patience(Duration::from_secs(60)).ok().out();
    assert!(verified.ends_with("each is what its digest says"), "{verified}");
    drop(bazel);
    farm.finish();
}
