//! Goma clients on the farm, by the real programs: `mote-bridge serve` with nothing but the farm's profile.

use crate::farm;
use motefarm_tests::compilers::Compilers;
use motefarm_tests::cxx_project::{CxxProject, Shape, write};
use motefarm_tests::goma_build::{Job, build, compare, job, jobs, links_and_runs, task};
use motefarm_tests::goma_client::Failure;
use motefarm_tests::{TestBridge, TestFarm, wait};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bridge before the farm, configured so.
fn bridge(farm: &TestFarm, config: &str) -> TestBridge {
    let profile = farm.profile().display().to_string();
    let program = &farm.programs().bridge;
    TestBridge::start(program, &farm.dir().join("bridge"), &farm.env(), &["--profile", &profile], config)
}

/// A bridge that ships the system's files, if the farm's worker can lay them over its own.
fn bridge_for(farm: &TestFarm, job: &Job) -> TestBridge {
    let shipping = bridge(farm, "");
    match shipping.client().compile(&job.task) {
        Err(Failure::Exhausted(why)) if why.iter().any(|why| why.contains("system-files")) => {
            wait::skipped("shipping the system's files to the farm", "no overlayfs for plain users here");
            shipping.stop();
            bridge(farm, "[inputs]\nsystem_files = \"worker-provided\"\n")
        }
        _ => shipping,
    }
}

#[test]
fn a_project_compiles_on_the_farm_as_it_does_here_though_the_bridge_is_killed() {
    let farm = farm().start();
    let (compilers, lacking) = Compilers::here();
    lacking.iter().for_each(|name| wait::skipped("Goma clients on the farm", &format!("there is no {name}")));
    if !compilers.is_empty() {
        let shape = Shape { libraries: 8, programs: 2, freestanding: 2, demanding: true };
        let project = CxxProject::write(&farm.dir().join("project"), shape);
        let in_tree = Compilers::into_tree(&project);
        let jobs = jobs(&project, &compilers, in_tree.as_ref());
        let bridge = bridge_for(&farm, &jobs[0]);
        let seen = AtomicUsize::new(0);
        build(&bridge.client(), &jobs, 4, |done| {
            // By whoever is the first to see a third done; others go on meanwhile.
            if done >= jobs.len() / 3 && seen.fetch_add(1, Ordering::Relaxed) == 0 {
                bridge.kill_and_start();
            }
        });
        assert!(links_and_runs(&project, 1));

        let mut client = bridge.client();
        client.files_are_new = false;
        let built = build(&client, &jobs, 4, |_| ());
        assert_eq!((built.hits, built.requests, built.repeated), (jobs.len(), jobs.len() as i64, 0), "{built:?}");

        write(&project.dir.join("c_0.c"), "int main(void) { return undeclared; }\n");
        let wrong = job(task(&project, &compilers[0], &project.units()[0]));
        let compiled = bridge.client().compile(&wrong.task).expect("an answer");
        assert_eq!(compiled.exit_status, 1);
        compare(&wrong, &compiled);
        bridge.stop();
    }
    farm.finish();
}
