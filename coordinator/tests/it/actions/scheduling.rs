//! Who runs what, in which order, and what follows when they fail.

use super::*;
use motefarm_proto::mote::run_action_input::Input;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::{RunActionMissing, RunActionStarted};
use motefarm_proto::reapi::platform::Property;
use motefarm_proto::reapi::{Directory, ExecutionPolicy, FileNode, Platform};

fn asking(name: &str, value: &str) -> Option<Platform> {
    Some(Platform { properties: vec![Property { name: name.to_owned(), value: value.to_owned() }] })
}

/// Tells that it runs, and never ends.
fn stuck() -> (Script, mpsc::UnboundedReceiver<usize>) {
    let (script, begun, permits) = held(b"never");
    std::mem::forget(permits);
    (script, begun)
}

#[tokio::test]
async fn an_action_whose_buildlet_is_lost_is_run_by_another() {
    let (script, mut begun) = stuck();
    let (bench, lost) = Bench::with("", 1, script).await;
    let _time = bench.run_time();
    let mut stream = bench.begin(&bench.action("a")).await;
    reached(&mut stream, Stage::Executing).await;
    soon(begun.recv()).await;
    let other = bench.join("b2", 1, making(b"made")).await;
    lost.connect(false);
    let ended = end(stream).await.unwrap();
    assert_eq!(code(&ended), Code::Ok, "{}", why(&ended));
    assert_eq!(ended.result.unwrap().execution_metadata.unwrap().worker, "b2");
    assert_eq!((lost.state().actions_running, other.state().actions.len()), (0, 1));
}

#[tokio::test]
async fn an_action_waits_for_its_only_buildlet_to_come_back() {
    let (script, mut begun) = stuck();
    let (bench, lost) = Bench::with("", 1, script).await;
    let _time = bench.run_time();
    let mut stream = bench.begin(&bench.action("a")).await;
    soon(begun.recv()).await;
    reached(&mut stream, Stage::Executing).await;
    lost.connect(false);
    reached(&mut stream, Stage::Queued).await;
    bench.join("b1", 1, making(b"made")).await;
    assert_eq!(code(&end(stream).await.unwrap()), Code::Ok);
}

#[tokio::test]
async fn a_buildlet_that_can_not_is_followed_by_one_that_can_and_the_budget_is_kept() {
    let full = script(|action| async move { action.fail(Code::ResourceExhausted, "its disk is full", true).await });
    let (bench, first) = Bench::with("", 4, full.clone()).await;
    let _time = bench.run_time();
    let ended = bench.execute(of(&bench.action("a"))).await.unwrap();
    assert_eq!(code(&ended), Code::Unavailable);
    assert!(why(&ended).contains("its disk is full") && why(&ended).contains("b1"), "{}", why(&ended));
    assert_eq!(first.state().actions.len(), 4);
    let good = bench.join("b2", 1, making(b"made")).await;
    for n in 0..5 {
        let ended = bench.execute(of(&bench.action(&format!("more {n}")))).await.unwrap();
        assert_eq!(code(&ended), Code::Ok, "{}", why(&ended));
    }
    assert_eq!(good.state().actions.len(), 5);
}

#[tokio::test]
async fn what_no_buildlet_could_do_is_said_at_once() {
    let play = script(|action| async move {
        action.fail(Code::InvalidArgument, "output_paths: \"../x\" leads outside of the input root", false).await;
    });
    let (bench, buildlet) = Bench::with("", 1, play).await;
    let ended = bench.execute(of(&bench.action("a"))).await.unwrap();
    assert_eq!(code(&ended), Code::InvalidArgument);
    assert!(why(&ended).contains("../x"));
    assert_eq!(buildlet.state().actions.len(), 1);
}

#[tokio::test]
async fn lower_priorities_go_first_and_equals_in_their_order() {
    let (script, mut begun, permits) = held(b"made");
    let (bench, buildlet) = Bench::with("", 1, script).await;
    let mut streams = vec![bench.begin(&bench.action("first")).await];
    soon(begun.recv()).await;
    for (name, priority) in [("late", 5), ("a", 0), ("b", 0), ("early", -5)] {
        let request =
            ExecuteRequest { execution_policy: Some(ExecutionPolicy { priority }), ..of(&bench.action(name)) };
        streams.push(bench.begin_as(TestFarm::alice(), request).await.unwrap());
    }
    permits.add_permits(5);
    for stream in streams {
        end(stream).await.unwrap();
    }
    let ran = buildlet.state().actions.into_iter();
    let ran: Vec<String> = ran.map(|start| Command::decode(start.command).unwrap().arguments[1].clone()).collect();
    assert_eq!(ran, ["first", "early", "a", "b", "late"]);
}

#[tokio::test]
async fn a_full_queue_and_a_users_bound_say_so_and_known_results_are_answered_all_the_same() {
    let (bench, _) = Bench::with("[reapi]\nqueue = 1", 1, making(b"made")).await;
    bench.execute(of(&bench.action("known"))).await.unwrap();
    let (script, mut begun) = stuck();
    let (bench, _) = {
        let bench = bench.restart().await;
        let buildlet = bench.join("b1", 1, script).await;
        (bench, buildlet)
    };
    let _runs = bench.begin(&bench.action("runs")).await;
    soon(begun.recv()).await;
    let _waits = bench.begin(&bench.action("waits")).await;
    let refused = bench.execute(of(&bench.action("too many"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("reapi.queue"), "{refused}");
    assert!(bench.execute(of(&bench.action("known"))).await.unwrap().cached_result);
    // Who joins one that is there needs no place.
    let _joined = bench.begin(&bench.action("waits")).await;

    let (script, _begun) = stuck();
    let (bench, _) = Bench::with("[reapi]\nactions_per_user = 1", 4, script).await;
    let _one = bench.begin(&bench.action("one")).await;
    let refused = bench.execute(of(&bench.action("two"))).await.unwrap_err();
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("alice"), "{refused}");
    let _bobs = bench.begin_as(TestFarm::bob(), of(&bench.action("two"))).await.unwrap();
}

#[tokio::test]
async fn properties_lead_to_the_machine_that_has_them_and_nowhere_else() {
    let bench = Bench::new("").await;
    let plain = bench.join("b1", 2, making(b"plain")).await;
    let big = FakeLink::new("b2", TYPE, 1).acting(1, making(b"big")).labelled("pool", "big");
    bench.farm.connect(&big, "b2").await;
    let on_big = bench.action_with("a", |action, _| action.platform = asking("pool", "big"));
    #[expect(deprecated, reason = "API 2.1 and before")]
    let old_form = bench.action_with("b", |_, command| command.platform = asking("pool", "big"));
    for action in [on_big, old_form] {
        let ended = bench.execute(of(&action)).await.unwrap();
        assert_eq!(ended.result.unwrap().execution_metadata.unwrap().worker, "b2");
    }
    assert_eq!((plain.state().actions.len(), big.state().actions.len()), (0, 2));
    for (name, value, named) in [("pool", "small", "small"), ("container-image", "docker://x", "container-image")] {
        let action = bench.action_with("c", |action, _| action.platform = asking(name, value));
        let refused = bench.execute(of(&action)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(named), "{refused}");
        assert!(missing_in(&refused).is_empty());
    }
}

#[tokio::test]
async fn nothing_is_called_impossible_before_the_machines_have_been_met() {
    let (bench, buildlet) = Bench::with("", 1, making(b"made")).await;
    bench.execute(of(&bench.action("a"))).await.unwrap();
    buildlet.connect(false);
    let bench = bench.restart().await;
    let action = bench.action_with("b", |action, _| action.platform = asking("pool", "big"));
    let mut stream = bench.begin(&action).await;
    reached(&mut stream, Stage::Queued).await;
    let big = FakeLink::new("b2", TYPE, 1).acting(1, making(b"big")).labelled("pool", "big");
    bench.farm.connect(&big, "b2").await;
    assert_eq!(code(&end(stream).await.unwrap()), Code::Ok);
    // Nor is it waited for without end.
    let action = bench.action_with("c", |action, _| action.platform = asking("pool", "small"));
    let stream = bench.begin(&action).await;
    bench.farm.clock.set(bench.farm.app.started_at + Duration::from_secs(61));
    let ended = end(stream).await.unwrap();
    assert_eq!(code(&ended), Code::FailedPrecondition);
    assert!(why(&ended).contains("small"), "{}", why(&ended));
}

#[tokio::test]
async fn a_buildlet_with_a_store_of_its_own_is_sent_what_it_lacks() {
    let play = script(|mut action| async move {
        let digest = |content: &[u8]| Digest::of(content).into();
        action.say(Output::Missing(RunActionMissing { digests: vec![digest(b"input")] })).await;
        assert!(matches!(action.hear().await, Input::Again(_)));
        action.say(Output::Started(RunActionStarted { started_at_ms: 5_007, ..Default::default() })).await;
        action.put(&[b"made"]).await;
        action.result(&result_with(b"made")).await;
    });
    let bench = Bench::new("").await;
    let apart = FakeLink::new("b1", TYPE, 1).acting(1, play).apart();
    bench.farm.connect(&apart, "b1").await;
    let input = FileNode { name: "in".to_owned(), digest: Some(bench.put(b"input")), ..FileNode::default() };
    let root = bench.put(&Directory { files: vec![input], ..Directory::default() }.encode_to_vec());
    let action = bench.action_with("a", |action, _| action.input_root_digest = Some(root.clone()));
    let ended = bench.execute(of(&action)).await.unwrap();
    assert_eq!(code(&ended), Code::Ok, "{}", why(&ended));
    assert_eq!(apart.state().uploaded, [Digest::of(b"input")]);
}

#[tokio::test]
async fn an_input_that_went_bad_on_our_disk_is_asked_for_again() {
    // More than a megabyte: a file of its own, to be spoiled.
    const INPUT: &[u8] = &[7; 3 << 19];
    let play = script(|mut action| async move {
        // A machine reads inputs before it uses them.
        let digests = vec![Digest::of(INPUT).into()];
        if action.number == 0 {
            action.say(Output::Missing(RunActionMissing { digests })).await;
            action.hear().await;
        }
        action.put(&[b"made"]).await;
        action.result(&result_with(b"made")).await;
    });
    let (bench, _buildlet) = Bench::with("", 1, play).await;
    let input = FileNode { name: "in".to_owned(), digest: Some(bench.put(INPUT)), ..FileNode::default() };
    let root = bench.put(&Directory { files: vec![input], ..Directory::default() }.encode_to_vec());
    let action = bench.action_with("a", |action, _| action.input_root_digest = Some(root.clone()));
    let hash = Digest::of(INPUT).hash_hex();
    let path = bench.farm.dir().join("cas/large").join(&hash[..2]).join(&hash);
    std::fs::write(&path, [vec![7; (3 << 19) - 1], vec![8]].concat()).unwrap();
    let ended = bench.execute(of(&action)).await.unwrap();
    assert_eq!(code(&ended), Code::FailedPrecondition);
    assert_eq!(precondition::missing_in(&ended.status.unwrap()), [Digest::of(INPUT)]);
    bench.put(INPUT);
    let ended = bench.execute(of(&action)).await.unwrap();
    assert_eq!(code(&ended), Code::Ok, "{}", why(&ended));
}

#[tokio::test]
async fn what_is_not_what_it_is_said_to_be_never_becomes_a_result() {
    let play = script(|mut action| async move {
        let right = Digest::of(b"right");
        match action.number {
            // Other bytes than it says.
            0 => action.send(right, b"wrong").await,
            // None at all.
            1 => {}
            // Half of what was begun.
            2 => {
                let data = Bytes::from_static(b"ri");
                let digests = vec![right.into()];
                let piece = motefarm_proto::mote::BlobBatch { digests, data, is_piece: true, ..Default::default() };
                action.say(Output::Blobs(piece)).await;
            }
            _ => assert_eq!(action.put(&[b"right"]).await, [right]),
        }
        action.result(&result_with(b"right")).await;
    });
    let (bench, buildlet) = Bench::with("", 1, play).await;
    let _time = bench.run_time();
    let ended = bench.execute(of(&bench.action("a"))).await.unwrap();
    assert_eq!(code(&ended), Code::Ok, "{}", why(&ended));
    assert_eq!(buildlet.state().actions.len(), 4);
    assert!(bench.farm.app.cas.verify().unwrap().bad.is_empty());
}

#[tokio::test]
async fn an_output_that_is_there_already_is_not_sent_again() {
    let wanted = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = wanted.clone();
    let play = script(move |mut action| {
        let seen = seen.clone();
        async move {
            let these = action.put(&[b"old", b"new"]).await;
            seen.lock().unwrap().extend(these);
            action.result(&result_with(b"old")).await;
        }
    });
    let (bench, _buildlet) = Bench::with("", 1, play).await;
    bench.put(b"old");
    assert_eq!(code(&bench.execute(of(&bench.action("a"))).await.unwrap()), Code::Ok);
    assert_eq!(*wanted.lock().unwrap(), [Digest::of(b"new")]);
}
