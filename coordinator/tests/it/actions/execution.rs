//! The life of an operation, as those see it who wait for it.

use super::*;
use crate::farm::MINUTE;
use motefarm_coordinator::farm::actions::execute::{self, Wish};
use motefarm_coordinator::farm::actions::schedule::{ABANDONED, Sweeper};
use motefarm_coordinator::grpc::execution::follow;
use motefarm_coordinator::identity::Role;
use motefarm_proto::mote::RunActionTimedOut;
use motefarm_proto::mote::run_action_finished::End;
use motefarm_proto::reapi::longrunning::{CancelOperationRequest, GetOperationRequest};
use tokio_stream::StreamExt as _;

#[tokio::test]
async fn an_action_is_run_once_and_then_known() {
    let (bench, buildlet) = Bench::with("", 1, making(b"made")).await;
    let action = bench.action("a");
    let request = ExecuteRequest { instance_name: "some/where".to_owned(), ..of(&action) };
    let mut stream = bench.begin_as(TestFarm::alice(), request.clone()).await.unwrap();
    // It is told of the run, however fast that was.
    let running = reached(&mut stream, Stage::Executing).await;
    assert!(running.name.starts_with("some/where/"), "{}", running.name);
    let ended = end(stream).await.unwrap();
    let result = ended.result.clone().unwrap();
    assert_eq!((code(&ended), ended.cached_result), (Code::Ok, false));
    assert_eq!(result.output_files, result_with(b"made").output_files);
    let metadata = result.execution_metadata.unwrap();
    assert_eq!(metadata.worker, "b1");
    assert!(metadata.queued_timestamp.is_some());
    let again = bench.execute(ExecuteRequest { inline_output_files: vec!["out".to_owned()], ..request }).await.unwrap();
    assert!(again.cached_result);
    assert_eq!(again.result.unwrap().output_files[0].contents, b"made");
    assert_eq!(buildlet.state().actions.len(), 1);
    let start = &buildlet.state().actions[0];
    assert_eq!(Digest::of(&start.action), Digest::parse(&action.hash, action.size_bytes).unwrap());
    assert_eq!(Command::decode(start.command.clone()).unwrap().arguments, ["make", "a"]);
    assert_eq!(start.timeout_ms, 3_600_000);
}

#[tokio::test]
async fn a_hundred_who_want_the_same_get_it_from_one_run() {
    let (script, mut begun, permits) = held(b"made");
    let (bench, buildlet) = Bench::with("", 4, script).await;
    let action = bench.action("a");
    let mut streams = Vec::new();
    for n in 0..100 {
        let who = if n % 2 == 0 { TestFarm::alice() } else { TestFarm::bob() };
        streams.push(bench.begin_as(who, of(&action)).await.unwrap());
    }
    assert_eq!(soon(begun.recv()).await, Some(0));
    let mut names = std::collections::HashSet::new();
    for stream in &mut streams {
        names.insert(reached(stream, Stage::Executing).await.name);
    }
    assert_eq!(names.len(), 1);
    // Some leave; that is nothing to the others.
    streams.truncate(90);
    permits.add_permits(1);
    for stream in streams {
        assert_eq!(code(&end(stream).await.unwrap()), Code::Ok);
    }
    assert_eq!(buildlet.state().actions.len(), 1);
}

#[tokio::test]
async fn an_operation_outlives_its_stream_and_is_of_those_who_asked() {
    let (script, mut begun, permits) = held(b"made");
    let (bench, _buildlet) = Bench::with("", 1, script).await;
    let mut stream = bench.begin(&bench.action("a")).await;
    let name = reached(&mut stream, Stage::Executing).await.name;
    soon(begun.recv()).await;
    drop(stream);
    let mut again = bench.wait_for(TestFarm::alice(), &name).await.unwrap();
    assert_eq!(stage(&next(&mut again).await), Stage::Executing, "its state at once");
    for (who, name) in [
        (TestFarm::bob(), name.as_str()),
        (TestFarm::alice(), "/00000000-0000-4000-8000-000000000000"),
        (TestFarm::alice(), "nonsense"),
        (TestFarm::alice(), ""),
    ] {
        assert_eq!(bench.wait_for(who.clone(), name).await.unwrap_err().code(), Code::NotFound, "{name}");
        let get = GetOperationRequest { name: name.to_owned() };
        assert_eq!(bench.operations(who).get_operation(get).await.unwrap_err().code(), Code::NotFound);
    }
    permits.add_permits(1);
    assert_eq!(code(&end(again).await.unwrap()), Code::Ok);
    // Known for some minutes.
    bench.farm.clock.advance(4 * MINUTE);
    Sweeper::default().sweep(&bench.farm.app).await.unwrap();
    let late = end(bench.wait_for(TestFarm::alice(), &name).await.unwrap()).await.unwrap();
    assert_eq!(late.result.unwrap().output_files, result_with(b"made").output_files);
    bench.farm.clock.advance(MINUTE);
    Sweeper::default().sweep(&bench.farm.app).await.unwrap();
    assert_eq!(bench.wait_for(TestFarm::alice(), &name).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_nobody_comes_back_for_is_ended() {
    let (script, mut begun, _permits) = held(b"made");
    let (bench, buildlet) = Bench::with("", 1, script).await;
    let mut running = bench.begin(&bench.action("runs")).await;
    let running_name = reached(&mut running, Stage::Executing).await.name;
    let mut waiting = bench.begin(&bench.action("waits")).await;
    let waiting_name = reached(&mut waiting, Stage::Queued).await.name;
    soon(begun.recv()).await;
    bench.farm.clock.advance(2 * ABANDONED);
    Sweeper::default().sweep(&bench.farm.app).await.unwrap();
    assert_eq!(bench.farm.app.actions.counts(), (1, 1), "somebody listens");
    drop((running, waiting));
    while bench.farm.app.actions.counts() != (0, 0) {
        bench.farm.clock.advance(ABANDONED);
        Sweeper::default().sweep(&bench.farm.app).await.unwrap();
        tokio::task::yield_now().await;
    }
    for name in [running_name, waiting_name] {
        let ended = end(bench.wait_for(TestFarm::alice(), &name).await.unwrap()).await.unwrap();
        assert_eq!(code(&ended), Code::Cancelled, "{}", why(&ended));
    }
    while buildlet.state().actions_running > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancelled_action_ends_when_nobody_else_wants_it() {
    let (script, mut begun, _permits) = held(b"made");
    let (bench, buildlet) = Bench::with("", 1, script).await;
    let action = bench.action("a");
    let mut alices = bench.begin(&action).await;
    let bobs = bench.begin_as(TestFarm::bob(), of(&action)).await.unwrap();
    let name = reached(&mut alices, Stage::Executing).await.name;
    soon(begun.recv()).await;
    let cancel = |who| {
        let (mut client, name) = (bench.operations(who), name.clone());
        async move { client.cancel_operation(CancelOperationRequest { name }).await }
    };
    let carol = Identity { user: "carol".parse().unwrap(), role: Role::User };
    assert_eq!(cancel(carol).await.unwrap_err().code(), Code::NotFound);
    cancel(TestFarm::alice()).await.unwrap();
    assert_eq!(buildlet.state().actions_running, 1, "bob wants it still");
    cancel(TestFarm::bob()).await.unwrap();
    for stream in [alices, bobs] {
        assert_eq!(code(&end(stream).await.unwrap()), Code::Cancelled);
    }
    while buildlet.state().actions_running > 0 {
        tokio::task::yield_now().await;
    }
    // And its slot is free.
    let next_one = bench.begin(&bench.action("next")).await;
    assert_eq!(soon(begun.recv()).await, Some(1));
    drop(next_one);
}

#[tokio::test]
async fn the_cache_is_passed_by_when_asked_and_what_is_not_to_be_kept_is_not() {
    let (bench, buildlet) = Bench::with("", 2, making(b"made")).await;
    let action = bench.action("a");
    let skip = ExecuteRequest { skip_cache_lookup: true, ..of(&action) };
    for runs in 1..3 {
        let ended = bench.execute(skip.clone()).await.unwrap();
        assert!(!ended.cached_result);
        assert_eq!(buildlet.state().actions.len(), runs);
    }
    assert!(bench.execute(of(&action)).await.unwrap().cached_result);
    let secret = bench.action_with("secret", |action, _| action.do_not_cache = true);
    for runs in 3..5 {
        assert!(!bench.execute(of(&secret)).await.unwrap().cached_result);
        assert_eq!(buildlet.state().actions.len(), runs);
    }
    let get = reapi::GetActionResultRequest { action_digest: Some(secret), ..Default::default() };
    assert_eq!(bench.cache().get_action_result(get).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_not_shared_either() {
    let (script, mut begun, permits) = held(b"made");
    let (bench, _buildlet) = Bench::with("", 2, script).await;
    let secret = bench.action_with("secret", |action, _| action.do_not_cache = true);
    let streams = [bench.begin(&secret).await, bench.begin(&secret).await];
    soon(begun.recv()).await;
    assert_eq!(soon(begun.recv()).await, Some(1), "each has its own run");
    permits.add_permits(2);
    for stream in streams {
        assert_eq!(code(&end(stream).await.unwrap()), Code::Ok);
    }
}

#[tokio::test]
async fn a_command_that_fails_or_takes_too_long_is_answered_and_not_kept() {
    let play = script(|mut action| async move {
        action.put(&[b"made"]).await;
        if action.number % 2 == 0 {
            action.result(&ActionResult { exit_code: 3, ..result_with(b"made") }).await;
        } else {
            let result = ActionResult { exit_code: 137, ..result_with(b"made") }.encode_to_vec().into();
            action.end(End::TimedOut(RunActionTimedOut { result })).await;
        }
    });
    let (bench, buildlet) = Bench::with("", 1, play).await;
    let action = bench.action("a");
    for wanted in [Code::Ok, Code::DeadlineExceeded, Code::Ok] {
        let ended = bench.execute(of(&action)).await.unwrap();
        assert_eq!((code(&ended), ended.cached_result), (wanted, false));
        assert_ne!(ended.result.unwrap().exit_code, 0);
    }
    assert_eq!(buildlet.state().actions.len(), 3);
}

#[tokio::test]
async fn a_state_is_told_again_when_nothing_changes() {
    let (script, mut begun, permits) = held(b"made");
    let (bench, _buildlet) = Bench::with("", 1, script).await;
    let action = bench.action("a");
    let action = Digest::parse(&action.hash, action.size_bytes).unwrap();
    let wish = Wish { action, skip_cache_lookup: false, priority: 0 };
    let listener = execute::execute(&bench.farm.app, &TestFarm::alice(), wish).await.unwrap();
    soon(begun.recv()).await;
    let repeat = Duration::from_millis(20);
    let mut states = follow(bench.farm.app.clone(), listener, "n".to_owned(), Default::default(), repeat);
    for _ in 0..3 {
        let state = soon(states.next()).await.unwrap().unwrap();
        assert_eq!((stage(&state), state.name.as_str()), (Stage::Executing, "n"));
    }
    permits.add_permits(1);
    while !soon(states.next()).await.unwrap().unwrap().done {}
    assert!(soon(states.next()).await.is_none());
}

#[tokio::test]
async fn what_the_farm_can_do_is_announced() {
    let bench = Bench::new("").await;
    let said = bench.capabilities().await;
    let execution = said.execution_capabilities.unwrap();
    assert!(execution.exec_enabled);
    assert_eq!(execution.digest_functions, [reapi::digest_function::Value::Sha256 as i32]);
    let updates = |said: &reapi::CacheCapabilities| said.action_cache_update_capabilities.unwrap().update_enabled;
    assert!(!updates(&said.cache_capabilities.unwrap()));
    let open = Bench::new("[reapi]\nclients_may_write_action_cache = true").await;
    assert!(updates(&open.capabilities().await.cache_capabilities.unwrap()));
}
