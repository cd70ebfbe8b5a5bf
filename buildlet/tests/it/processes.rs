//! What lives and dies with what.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::time::{Duration, Instant};
use tonic::Code;
use uuid::Uuid;

/// A command that leaves a process of every kind behind, marked, and says so.
fn unruly(mark: &str, then: &str) -> ExecSpec {
    let script = format!(
        "trap '' TERM; sleep 1000 & setsid sh -c 'trap \"\" TERM; (sleep 1000 & sleep 1000) & wait' & \
         (setsid setsid sh -c 'sleep 1000; :' &) ; sleep 0.2; echo started; {then}"
    );
    ExecSpec { env: vec![format!("MARK={mark}")], ..sh(&script) }
}

/// Counts marked processes from outside the sandbox (their environments are readable to us).
fn marked(mark: &str) -> usize {
    processes(&format!("MARK={mark}")).len()
}

#[tokio::test]
async fn cancel_leaves_nothing_however_it_daemonized() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let mark = Uuid::new_v4().to_string();
    let (exec, mut stream) = begin(&mut client, &instance, &unruly(&mark, "wait")).await;
    read_until(&mut stream, "started").await;
    assert!(marked(&mark) >= 5, "{}", marked(&mark));
    let cancel = BuildletCancelExecRequest { instance_id: instance.clone(), exec_id: exec.clone(), grace_ms: 100 };
    client.cancel_exec(cancel.clone()).await.unwrap();
    let ran = collect(stream, 8).await;
    assert_eq!(ran.ending().0, Ending::Cancelled);
    assert!(!ran.outcome.unwrap().left_running);
    assert_eq!(marked(&mark), 0);
    client.cancel_exec(cancel).await.unwrap();
    buildlet.finish().await;
}

#[tokio::test]
async fn a_polite_command_may_clean_up_when_cancelled() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let script = "trap 'echo cleaning; exit 3' TERM; echo started; while :; do sleep 0.05; done";
    let (exec, mut stream) = begin(&mut client, &instance, &sh(script)).await;
    read_until(&mut stream, "started").await;
    let cancel = BuildletCancelExecRequest { instance_id: instance.clone(), exec_id: exec, grace_ms: 20_000 };
    client.cancel_exec(cancel).await.unwrap();
    let ran = collect(stream, 8).await;
    assert_eq!((ran.text().as_str(), ran.ending().0), ("cleaning\n", Ending::Cancelled));
    buildlet.finish().await;
}

#[tokio::test]
async fn a_time_limit_ends_everything_too() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let mark = Uuid::new_v4().to_string();
    // Without the trap: SIGTERM suffices for most, the sweep gets the one that ignores it.
    let spec = ExecSpec { timeout_ms: 700, ..unruly(&mark, "wait") };
    let begun = Instant::now();
    let ran = run(&mut client, &instance, &spec).await;
    assert_eq!(ran.ending().0, Ending::TimedOut);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(marked(&mark), 0);
    buildlet.finish().await;
}

#[tokio::test]
async fn what_is_left_running_lives_until_cancelled_or_the_instances_end() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let (mark, other) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let leave = |mark: &str| ExecSpec {
        env: vec![format!("MARK={mark}")],
        ..sh("(setsid sh -c 'sleep 1; echo late; exec sleep 1000' &); echo early; exit 5")
    };
    let (exec, stream) = begin(&mut client, &instance, &leave(&mark)).await;
    let ran = collect(stream, 0).await;
    assert_eq!((ran.text().as_str(), ran.ending()), ("early\n", (Ending::Exited, 5)));
    let outcome = ran.outcome.unwrap();
    assert!(outcome.left_running && outcome.output_end == 6);
    let (left, ran) = (begin(&mut client, &instance, &leave(&other)).await, 6);
    assert!(collect(left.1, 0).await.outcome.unwrap().left_running);
    eventually("it goes on writing", || marked(&mark) > 0).await;
    let until = Instant::now() + PATIENCE;
    loop {
        // Its later output is there for who asks beyond the command's own, and for nobody else.
        let late = attach(&mut client, &instance, &exec, 7, true).await;
        if late.text() == "ate\n" {
            break;
        }
        assert!(Instant::now() < until, "{late:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(attach(&mut client, &instance, &exec, 0, true).await.next, ran);
    assert!(marked(&mark) > 0 && marked(&other) > 0);
    let cancel = BuildletCancelExecRequest { instance_id: instance.clone(), exec_id: exec, grace_ms: 100 };
    client.cancel_exec(cancel).await.unwrap();
    eventually("cancel ends what was left", || marked(&mark) == 0).await;
    assert!(marked(&other) > 0);
    buildlet.end(&instance).await;
    assert_eq!(marked(&other), 0, "gone when the end is answered");
    buildlet.finish().await;
}

#[tokio::test]
async fn signals_reach_the_commands_group() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let script = "trap 'echo hup; exit 4' HUP; echo started; while :; do sleep 0.05; done";
    let (exec, mut stream) = begin(&mut client, &instance, &sh(script)).await;
    read_until(&mut stream, "started").await;
    let signal = |signal| BuildletSignalExecRequest { instance_id: instance.clone(), exec_id: exec.clone(), signal };
    assert_eq!(client.signal_exec(signal(99)).await.unwrap_err().code(), Code::InvalidArgument);
    client.signal_exec(signal(1)).await.unwrap();
    let ran = collect(stream, 8).await;
    assert_eq!((ran.text().as_str(), ran.ending()), ("hup\n", (Ending::Exited, 4)));
    assert_eq!(client.signal_exec(signal(1)).await.unwrap_err().code(), Code::FailedPrecondition);
    buildlet.finish().await;
}

#[tokio::test]
async fn without_a_sandbox_the_same_is_true() {
    let mut buildlet = Buildlet::start_with(&["--no-sandbox"]).await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!((described.sandbox.as_str(), described.sandbox_reason.is_empty()), ("none", false));
    let work = buildlet.instance_dir(&instance).join("work");
    assert_eq!(
        run(&mut client, &instance, &sh("echo $WORKDIR; pwd -P")).await.text(),
        format!("{0}\n{0}\n", work.display())
    );
    let (mark, left) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let (exec, mut stream) = begin(&mut client, &instance, &unruly(&mark, "wait")).await;
    read_until(&mut stream, "started").await;
    let cancel = BuildletCancelExecRequest { instance_id: instance.clone(), exec_id: exec, grace_ms: 50 };
    client.cancel_exec(cancel).await.unwrap();
    assert_eq!(collect(stream, 8).await.ending().0, Ending::Cancelled);
    assert_eq!(marked(&mark), 0);
    assert!(run(&mut client, &instance, &unruly(&left, "exit 0")).await.outcome.unwrap().left_running);
    assert!(marked(&left) > 0);
    buildlet.end(&instance).await;
    assert_eq!(marked(&left), 0);
    buildlet.finish().await;
}
