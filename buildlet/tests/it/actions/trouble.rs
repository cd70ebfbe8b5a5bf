//! What goes wrong on the buildlet's side.

use super::*;

#[tokio::test]
async fn a_runner_that_is_killed_is_the_machines_fault_and_replaced() {
    for args in [&["--action-slots", "1"][..], &["--action-slots", "1", "--no-sandbox"]] {
        let buildlet = Buildlet::start_with(args).await;
        let mut client = buildlet.client().await;
        let mark = format!("64208.{}", std::process::id());
        let running = tokio::spawn({
            let mut client = client.clone();
            let job = Job::sh(&format!("sleep {mark}; exit 3"));
            async move { run_job(&mut client, &job).await }
        });
        eventually("it runs", || !processes(&mark).is_empty()).await;
        // Its parent, or in a sandbox the parent of its first process.
        let command = processes(&mark)[0];
        let mut at = command;
        loop {
            let status = fs::read_to_string(format!("/proc/{at}/status")).unwrap();
            if status.starts_with("Name:\tmote-runner") && !has_runner_above(&status) {
                break;
            }
            at = parent(&status);
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(at), nix::sys::signal::Signal::SIGKILL).unwrap();
        let came = running.await.unwrap();
        assert!(came.failed().retry, "{}", came.failed().message);
        if args.len() == 2 {
            eventually("what it ran is gone", || processes(&mark).is_empty()).await;
        } else {
            for pid in processes(&mark) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        assert_eq!(run_job(&mut client, &Job::new(&["/bin/true"])).await.result().exit_code, 0);
        buildlet.finish().await;
    }
}

fn parent(status: &str) -> i32 {
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// Whether the process above one is a runner, so that this is the first process of a sandbox.
fn has_runner_above(status: &str) -> bool {
    let above = fs::read_to_string(format!("/proc/{}/comm", parent(status))).unwrap_or_default();
    above.trim() == "mote-runner"
}

#[tokio::test]
async fn actions_end_with_a_buildlet_that_is_killed_and_the_next_one_clears_up() {
    for args in [&[][..], &["--no-sandbox"]] {
        let mut buildlet = Buildlet::start_with(args).await;
        let mut client = buildlet.client().await;
        let mark = format!("53197.{}", std::process::id());
        let (start, blobs) = Job::sh(&format!("(setsid sleep {mark} &); sleep {mark}")).file("in/f", "x").finish();
        upload(&mut client, blobs).await;
        let mut call = Call::begin(&mut client, start).await.unwrap();
        call.until_started().await;
        eventually("it runs", || processes(&mark).len() >= 2).await;
        buildlet.kill();
        eventually("it has ended", || processes(&mark).is_empty()).await;
        assert_eq!(fs::read_dir(buildlet.data().join("actions/places")).unwrap().count(), 1);
        buildlet.run().await;
        nothing_is_left(&buildlet).await;
        assert_eq!(run_job(&mut buildlet.client().await, &Job::new(&["/bin/true"])).await.result().exit_code, 0);
        buildlet.finish().await;
    }
}

/// A small disk in memory; none, said aloud, where that is not allowed.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: &std::path::Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(at);
        if rustix::process::geteuid().is_root() && mount.status().unwrap().success() {
            return Some(Self(at.to_owned()));
        }
        eprintln!("SKIPPED: a small disk can not be mounted here");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_the_machines_fault() {
    let small = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(small.path()) else { return };
    let place = tempfile::tempdir_in(small.path()).unwrap();
    let buildlet = Buildlet::start_in(place, &[]).await;
    let mut client = buildlet.client().await;
    let came = run_job(&mut client, &Job::sh("head -c 100000000 /dev/zero > big")).await;
    assert!(came.failed().retry && came.failed().message.contains("disk"), "{}", came.failed().message);
    // Inputs that do not fit: 6 MiB lie in the store already, and twice more is too much.
    let big = "x".repeat(6 << 20);
    let came = run_job(&mut client, &Job::sh("true").file("a", &big).file("b", &big)).await;
    assert!(came.failed().retry && came.failed().message.contains("disk"), "{}", came.failed().message);
    assert_eq!(run_job(&mut client, &Job::new(&["/bin/true"])).await.result().exit_code, 0);
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn directories_of_actions_may_be_a_file_system_of_their_own() {
    use std::os::unix::fs::DirBuilderExt as _;
    // Removed last, when nothing is mounted in it any more.
    let outer = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir_in(outer.path()).unwrap();
    let actions = place.path().join("data/actions");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&actions).unwrap();
    let Some(_disk) = Disk::mount(&actions) else { return };
    let buildlet = Buildlet::start_in(place, &[]).await;
    let mut client = buildlet.client().await;
    for _ in 0..3 {
        let came = run_job(&mut client, &Job::sh("cp in/f out; mkfifo left").file("in/f", "x").outputs(&["out"])).await;
        assert_eq!(came.file("out").0, "x");
    }
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}
