//! How commands are found, started and told apart.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tonic::Code;
use uuid::Uuid;

#[tokio::test]
async fn a_commands_end_is_told_as_it_was() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    for (script, ending) in [
        ("exit 0", (Ending::Exited, 0)),
        ("exit 37", (Ending::Exited, 37)),
        ("kill -TERM $$", (Ending::Signaled, 15)),
        ("kill -KILL $$", (Ending::Signaled, 9)),
    ] {
        let ran = run(&mut client, &instance, &sh(script)).await;
        assert_eq!(ran.ending(), ending, "{script}");
        let outcome = ran.outcome.unwrap();
        assert!(outcome.started_at_ms > 0 && outcome.ended_at_ms >= outcome.started_at_ms);
        assert!(outcome.max_rss_bytes > 100_000 && !outcome.left_running);
    }
    let ran = run(&mut client, &instance, &ExecSpec { program: "no-such-program".into(), ..Default::default() }).await;
    assert_eq!(ran.ending().0, Ending::NotStarted);
    assert!(ran.outcome.unwrap().reason.contains("\"no-such-program\""));
    for (spec, word) in [
        (ExecSpec { dir: "nowhere".into(), ..sh("true") }, "nowhere"),
        (ExecSpec { program: "/etc/passwd".into(), ..Default::default() }, "/etc/passwd"),
        (ExecSpec { program: "a/b".into(), ..Default::default() }, "/a/b"),
    ] {
        let outcome = run(&mut client, &instance, &spec).await.outcome.unwrap();
        assert!(outcome.ending() == Ending::NotStarted && outcome.reason.contains(word), "{outcome:?}");
    }
    buildlet.finish().await;
}

#[tokio::test]
async fn programs_directories_and_environment_are_as_documented() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let work = buildlet.instance_dir(&instance).join("work");
    fs::create_dir_all(work.join("go/src")).unwrap();
    for (place, text) in [("go/src/make.bash", "nested"), ("date", "own date")] {
        fs::write(work.join(place), format!("#!/bin/sh\necho {text}; pwd; echo $PWD\n")).unwrap();
        fs::set_permissions(work.join(place), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let named = |program: &str| ExecSpec { program: program.into(), ..Default::default() };
    let seen = run(&mut client, &instance, &sh("echo $WORKDIR")).await.text().trim().to_owned();
    let text = run(&mut client, &instance, &named("go/src/make.bash")).await.text();
    assert_eq!(text, format!("nested\n{seen}/go/src\n{seen}/go/src\n"));
    assert!(run(&mut client, &instance, &named("date")).await.text().starts_with("own date"));
    let system = ExecSpec { system_level: true, ..named("date") };
    assert!(!run(&mut client, &instance, &system).await.text().contains("own date"));
    let open = run(&mut client, &instance, &sh("cd /proc/self/fd; echo *")).await.text();
    assert!(["0 1 2\n", "0 1 2 3\n"].contains(&open.as_str()), "descriptors leak into commands: {open}");
    let spec = ExecSpec {
        dir: "go".into(),
        env: vec!["A=1".into(), "A=2".into(), "HOME=/elsewhere".into()],
        path: vec!["$WORKDIR/bin".into(), "$PATH".into()],
        debug: true,
        ..sh("pwd; echo $A $HOME $USER $MOTE_INSTANCE_NAME; echo $PATH; echo ${MOTE_LOG-unset}; echo $TMPDIR")
    };
    let text = run(&mut client, &instance, &spec).await.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(":: Running /bin/sh with args") && lines[0].ends_with("/go"), "{text}");
    assert_eq!(lines[1], format!("{seen}/go"));
    assert_eq!(lines[2], "2 /elsewhere mote tester-linux-0");
    assert!(lines[3].starts_with(&format!("{seen}/bin:/usr/local/sbin:")), "{text}");
    assert_eq!(lines[4], "unset", "nothing of the buildlet's own environment");
    buildlet.finish().await;
}

#[tokio::test]
async fn the_same_id_starts_once_and_another_command_under_it_is_refused() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let exec = Uuid::new_v4().to_string();
    let spec = sh("echo once >> count; sleep 0.3; echo done");
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (mut client, request) = (buildlet.client().await, execute_request(&instance, &exec, &spec, 0));
        tasks.push(tokio::spawn(async move { collect(client.execute(request).await.unwrap().into_inner(), 0).await }));
    }
    for task in tasks {
        let ran = task.await.unwrap();
        assert_eq!((ran.text().as_str(), ran.ending()), ("done\n", (Ending::Exited, 0)));
    }
    let count = fs::read_to_string(buildlet.instance_dir(&instance).join("work/count")).unwrap();
    assert_eq!(count, "once\n");
    let mut client = buildlet.client().await;
    let other = client.execute(execute_request(&instance, &exec, &sh("true"), 0)).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let listed = client
        .list_execs(BuildletListExecsRequest { instance_id: instance.clone(), exec_ids: Vec::new() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.execs.len(), 1);
    assert_eq!((listed.execs[0].output_bytes, listed.execs[0].spec.as_ref()), (5, Some(&spec)));
    buildlet.finish().await;
}

#[tokio::test]
async fn bad_requests_name_the_field_and_unknown_things_are_not_found() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let exec = Uuid::new_v4().to_string();
    let bad = client.execute(execute_request(&instance, &exec, &ExecSpec::default(), 0)).await.unwrap_err();
    assert!(bad.code() == Code::InvalidArgument && bad.message().contains("spec.program"), "{bad}");
    let bad = client.execute(execute_request("../x", &exec, &sh("true"), 0)).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let gone = client.execute(execute_request(&Uuid::new_v4().to_string(), &exec, &sh("true"), 0)).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(attach(&mut client, &instance, &exec, 0, true).await.code(), Some(Code::NotFound));
    buildlet.finish().await;
}
