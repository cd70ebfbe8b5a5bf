//! Actions on the real program: with a sandbox, where this machine allows one, and without.

mod caller;
mod hostile;
mod inputs;
mod outputs;
mod sandbox;
mod trouble;

pub(crate) use caller::*;

use crate::harness::*;
use motefarm_proto::mote::*;
use std::fs;
use tonic::Code;

/// Runs `test` on a buildlet with a sandbox for actions and on one without.
async fn on_both(test: impl AsyncFn(&mut Client, &Buildlet)) {
    for args in [&[][..], &["--no-sandbox"]] {
        let buildlet = Buildlet::start_with(args).await;
        let mut client = buildlet.client().await;
        let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
        if args.is_empty() && described.action_sandbox == "none" {
            eprintln!("SKIPPED with a sandbox: {}", described.action_sandbox_reason);
        } else {
            test(&mut client, &buildlet).await;
            nothing_is_left(&buildlet).await;
        }
        buildlet.finish().await;
    }
}

/// A buildlet whose actions have a sandbox; none where this machine allows none.
async fn sandboxed() -> Option<(Client, Buildlet)> {
    let buildlet = Buildlet::start().await;
    let mut client = buildlet.client().await;
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    if described.action_sandbox == "namespaces" {
        return Some((client, buildlet));
    }
    eprintln!("SKIPPED: {}", described.action_sandbox_reason);
    buildlet.finish().await;
    None
}

/// Of actions, but for places in which nothing is.
async fn nothing_is_left(buildlet: &Buildlet) {
    let actions = buildlet.data().join("actions/places");
    let is_bare = |place: fs::DirEntry| {
        let root =
            fs::read_dir(place.path().join("root")).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
        let is_furniture = |entry: &fs::DirEntry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::read_dir(entry.path()).is_ok_and(|mut all| all.next().is_none()),
            kind => kind.is_ok_and(|kind| kind.is_symlink()),
        };
        root.iter().all(is_furniture) && fs::read_dir(place.path()).is_ok_and(|all| all.count() == 2)
    };
    eventually("only bare places are left", || fs::read_dir(&actions).unwrap().flatten().all(is_bare)).await;
}

#[tokio::test]
async fn a_command_runs_as_it_was_asked_for() {
    on_both(async |client, _| {
        let came = run_job(client, &Job::new(&["/bin/true"])).await;
        assert_eq!((came.result().exit_code, came.offered), (0, 0));
        let times = came.started.unwrap();
        assert!(times.accepted_at_ms <= times.fetched_at_ms && times.fetched_at_ms <= times.started_at_ms);
        let told = came.result().execution_metadata.clone().unwrap();
        assert!(!told.worker.is_empty() && told.execution_completed_timestamp.is_some());

        let mut job = Job::new(&["env"]);
        let variable = |name: &str, value: &str| motefarm_proto::reapi::command::EnvironmentVariable {
            name: name.into(),
            value: value.into(),
        };
        job.command.environment_variables = vec![variable("B", "2 3"), variable("A", "")];
        assert_eq!(run_job(client, &job).await.stdout(), "B=2 3\nA=\n", "nothing is added, and no PATH is needed");

        let came = run_job(client, &Job::sh("echo out; echo err >&2; exit 7")).await;
        assert_eq!((came.stdout().as_str(), came.stderr().as_str()), ("out\n", "err\n"));
        assert_eq!(came.result().exit_code, 7);
        assert_eq!(run_job(client, &Job::sh("kill -SEGV $$")).await.result().exit_code, 128 + 11);
        assert_eq!(run_job(client, &Job::sh("kill -KILL $$")).await.result().exit_code, 128 + 9);
        assert_eq!(run_job(client, &Job::sh("cat; test ! -t 0")).await.result().exit_code, 0, "stdin is empty");
        // Opened anew, it neither loses nor overwrites what was written before.
        let came = run_job(client, &Job::sh("echo 1 >&2; echo 2 >/dev/stderr; echo 3 >&2")).await;
        assert_eq!(came.stderr(), "1\n2\n3\n");
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_executed_is_the_commands_end_as_a_shell_tells_it() {
    on_both(async |client, _| {
        for (words, code, text) in [
            (&["no-such-program"][..], 127, "no-such-program"),
            (&["/no/such/program"], 127, "/no/such/program"),
            (&["./data"], 126, "data"),
            (&["./garbage"], 126, "garbage"),
            (&["./nobody"], 127, "interpreter"),
            (&["data/x"], 127, "data/x"),
        ] {
            let job = Job::new(words)
                .file("data", "x")
                .program("garbage", "\u{1}\u{2}")
                .program("nobody", "#!/no/interpreter\n");
            let came = run_job(client, &job).await;
            assert_eq!(came.result().exit_code, code, "{words:?}: {}", came.stderr());
            assert!(came.stderr().contains(text), "{words:?}: {}", came.stderr());
        }
    })
    .await;
}

#[tokio::test]
async fn long_output_is_a_blob() {
    on_both(async |client, _| {
        let mut job = Job::sh("head -c 100 /dev/zero; head -c 3000000 /dev/zero >&2");
        let came = run_job(client, &job).await;
        assert_eq!(came.result().stdout_raw.len(), 100);
        assert!(came.result().stderr_raw.is_empty());
        assert!(came.blob(came.result().stderr_digest.as_ref()) == vec![0; 3_000_000]);
        job.start.inline_bytes = 0;
        let came = run_job(client, &job).await;
        assert!(came.blob(came.result().stdout_digest.as_ref()) == vec![0; 100]);
    })
    .await;
}

#[tokio::test]
async fn time_limits_end_everything_and_what_there_is_is_told() {
    on_both(async |client, _| {
        let mark = format!("97531.{}", std::process::id());
        // One that daemonizes, one in the background, and one that does not hear.
        let script =
            format!("trap '' TERM HUP; (setsid sleep {mark} &); sleep {mark} & echo begun; echo x > out; sleep {mark}");
        let came = run_job(client, &Job::sh(&script).outputs(&["out"]).timeout_ms(700)).await;
        assert!(came.timed_out);
        assert_eq!((came.stdout().as_str(), came.file("out").0.as_str()), ("begun\n", "x\n"));
        assert_eq!(processes(&mark), [] as [i32; 0]);
        // What a command leaves behind ends with it, too.
        let script = format!("(setsid sleep {mark} &) ; sleep {mark} & echo done");
        assert_eq!(run_job(client, &Job::sh(&script)).await.stdout(), "done\n");
        assert_eq!(processes(&mark), [] as [i32; 0]);
    })
    .await;
}

#[tokio::test]
async fn whoever_leaves_has_it_killed_and_the_slot_is_free_again() {
    for args in [&["--action-slots", "1"][..], &["--action-slots", "1", "--no-sandbox"]] {
        let buildlet = Buildlet::start_with(args).await;
        let mut client = buildlet.client().await;
        let mark = format!("86420.{}", std::process::id());
        let (start, blobs) = Job::sh(&format!("(setsid sleep {mark} &); sleep {mark}")).finish();
        upload(&mut client, blobs).await;
        let mut call = Call::begin(&mut client, start).await.unwrap();
        call.until_started().await;
        eventually("it runs", || !processes(&mark).is_empty()).await;
        drop(call);
        // Waits for the slot, which is being cleared.
        let came = run_job(&mut client, &Job::new(&["/bin/true"])).await;
        assert_eq!(came.result().exit_code, 0);
        assert_eq!(processes(&mark), [] as [i32; 0]);
        nothing_is_left(&buildlet).await;
        buildlet.finish().await;
    }
}

#[tokio::test]
async fn there_are_as_many_slots_as_was_said() {
    let buildlet = Buildlet::start_with(&["--action-slots", "1"]).await;
    let mut client = buildlet.client().await;
    let (start, blobs) = Job::sh("sleep 1000").finish();
    upload(&mut client, blobs).await;
    let mut call = Call::begin(&mut client, start).await.unwrap();
    call.until_started().await;
    let refused = run_job(&mut client, &Job::new(&["/bin/true"])).await;
    assert_eq!(refused.status().code(), Code::ResourceExhausted, "{}", refused.status());
    assert!(refused.status().message().contains("1 are taken"), "{}", refused.status());
    drop(call);
    buildlet.finish().await;

    let buildlet = Buildlet::start_with(&["--action-slots", "0"]).await;
    let mut client = buildlet.client().await;
    assert_eq!(client.describe(DescribeRequest {}).await.unwrap().into_inner().action_slots, 0);
    let refused = run_job(&mut client, &Job::new(&["/bin/true"])).await;
    assert_eq!(refused.status().code(), Code::ResourceExhausted);
    buildlet.finish().await;
}
