//! The action cache: what is kept, for how long, and when it is answered.

use super::*;
use motefarm_proto::reapi::{Directory, FileNode, GetActionResultRequest, OutputDirectory, Tree};
use motefarm_proto::reapi::{NodeProperties, UpdateActionResultRequest};

const OPEN: &str = "[reapi]\nclients_may_write_action_cache = true\n";

fn update(key: &reapi::Digest, result: ActionResult) -> UpdateActionResultRequest {
    UpdateActionResultRequest {
        action_digest: Some(key.clone()),
        action_result: Some(result),
        ..UpdateActionResultRequest::default()
    }
}

impl Bench {
    async fn get(&self, key: &reapi::Digest) -> Result<ActionResult, Status> {
        let request = GetActionResultRequest { action_digest: Some(key.clone()), ..Default::default() };
        self.cache().get_action_result(request).await.map(tonic::Response::into_inner)
    }

    async fn has(&self, key: &reapi::Digest) -> bool {
        match self.get(key).await {
            Ok(_) => true,
            Err(status) if status.code() == Code::NotFound => false,
            Err(status) => panic!("{status}"),
        }
    }
}

#[tokio::test]
async fn clients_write_when_the_operator_says_so() {
    let closed = Bench::new("").await;
    let key = to_reapi_digest(Digest::of(b"no Action at all"));
    let refused = closed.cache().update_action_result(update(&key, ActionResult::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("reapi.clients_may_write_action_cache"));
    let bench = Bench::new(OPEN).await;
    let mut result = result_with(b"made");
    let properties = NodeProperties { mtime: Some(Default::default()), ..NodeProperties::default() };
    result.output_files[0].node_properties = Some(properties);
    let stored = bench.cache().update_action_result(update(&key, result.clone())).await.unwrap().into_inner();
    assert_eq!(stored, result);
    assert!(!bench.has(&key).await, "its file is not there yet");
    bench.put(b"made");
    assert_eq!(bench.get(&key).await.unwrap(), result, "as it was given");
    let failed = ActionResult { exit_code: 1, ..ActionResult::default() };
    let refused = bench.cache().update_action_result(update(&key, failed)).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("exit_code"), "{refused}");
    assert_eq!(bench.get(&key).await.unwrap(), result, "the old one stands");
}

#[tokio::test]
async fn an_entry_is_answered_when_all_in_its_trees_is_there() {
    let bench = Bench::new(OPEN).await;
    let file = FileNode { digest: Some(to_reapi_digest(Digest::of(b"deep"))), ..FileNode::default() };
    let child = Directory { files: vec![FileNode { name: "deep".to_owned(), ..file }], ..Directory::default() };
    let tree = Tree { root: Some(Directory::default()), children: vec![child] };
    let tree_digest = Some(bench.put(&tree.encode_to_vec()));
    let directory = OutputDirectory { path: "d".to_owned(), tree_digest, ..OutputDirectory::default() };
    let key = to_reapi_digest(Digest::of(b"key"));
    let result = ActionResult { output_directories: vec![directory], ..ActionResult::default() };
    bench.cache().update_action_result(update(&key, result)).await.unwrap();
    assert!(!bench.has(&key).await);
    bench.put(b"deep");
    assert!(bench.has(&key).await);
}

#[tokio::test]
async fn an_evicted_output_is_a_miss_and_the_action_is_run_again() {
    // Outputs are files of their own, evicted one by one.
    const LARGE: &[u8] = &[7; 3 << 19];
    let play = script(|mut action| async move {
        // In two pieces: it is more than one message of this fake holds.
        let digest = Digest::of(LARGE);
        action.put(&[]).await;
        for (n, data) in LARGE.chunks(1 << 20).enumerate() {
            let piece = motefarm_proto::mote::BlobBatch {
                digests: vec![digest.into()],
                data: Bytes::from_static(data),
                is_piece: true,
                piece_offset: (n as u64) << 20,
                ..Default::default()
            };
            action.say(motefarm_proto::mote::run_action_output::Output::Blobs(piece)).await;
        }
        action.result(&result_with(LARGE)).await;
    });
    let (bench, buildlet) = Bench::with("[cas]\nmax_bytes = 16777216", 1, play).await;
    let action = bench.action("a");
    bench.execute(of(&action)).await.unwrap();
    assert!(bench.has(&action).await);
    for n in 1..=12u8 {
        bench.put(&[vec![n; 3 << 19], vec![n]].concat());
    }
    assert!(!bench.has(&action).await, "the oldest file went");
    let ended = bench.execute(of(&bench.action("a"))).await.unwrap();
    assert_eq!((code(&ended), ended.cached_result), (Code::Ok, false), "{}", why(&ended));
    assert_eq!(buildlet.state().actions.len(), 2);
    assert!(bench.has(&action).await);
}

#[tokio::test]
async fn results_outlive_the_coordinator_and_operations_do_not() {
    let (bench, buildlet) = Bench::with("", 1, making(b"made")).await;
    let action = bench.action("a");
    let mut stream = bench.begin(&action).await;
    let name = next(&mut stream).await.name;
    end(stream).await.ok();
    while !bench.has(&action).await {
        tokio::task::yield_now().await;
    }
    buildlet.connect(false);
    let bench = bench.restart().await;
    assert!(bench.execute(of(&action)).await.unwrap().cached_result);
    assert_eq!(bench.wait_for(TestFarm::alice(), &name).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_was_used_least_recently_goes_when_there_is_too_much() {
    let bench = Bench::new(&format!("{OPEN}action_cache_entries = 3")).await;
    let key = |n: u8| to_reapi_digest(Digest::of(&[n]));
    for n in 0..5 {
        // Further apart than uses are noted.
        bench.farm.clock.advance(Duration::from_secs(1200));
        if n == 3 {
            assert!(bench.has(&key(0)).await, "used, and so young again");
        }
        bench.cache().update_action_result(update(&key(n), ActionResult::default())).await.unwrap();
    }
    let mut left = Vec::new();
    for n in 0..5 {
        if bench.has(&key(n)).await {
            left.push(n);
        }
    }
    assert_eq!(left, [0, 3, 4]);
}
