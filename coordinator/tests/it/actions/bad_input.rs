//! What clients get wrong, by accident or on purpose.

use super::*;
use motefarm_proto::reapi::platform::Property;
use motefarm_proto::reapi::protobuf::Duration as Asked;
use motefarm_proto::reapi::{Directory, DirectoryNode, FileNode, Platform, digest_function};

fn file(name: &str, content: &[u8]) -> FileNode {
    FileNode { name: name.to_owned(), digest: Some(to_reapi_digest(Digest::of(content))), ..FileNode::default() }
}

#[tokio::test]
async fn what_is_missing_is_named_in_trailers_before_there_is_an_operation() {
    let (bench, buildlet) = Bench::with("", 1, making(b"made")).await;
    let absent = Digest::of(b"absent");
    let refused = bench.execute(of(&to_reapi_digest(absent))).await.unwrap_err();
    assert_eq!((refused.code(), missing_in(&refused)), (Code::FailedPrecondition, vec![absent]));
    let root = Digest::of(b"another");
    let action = bench.action_with("a", |action, _| {
        action.command_digest = Some(to_reapi_digest(absent));
        action.input_root_digest = Some(to_reapi_digest(root));
    });
    let refused = bench.execute(of(&action)).await.unwrap_err();
    assert_eq!((refused.code(), missing_in(&refused)), (Code::FailedPrecondition, vec![absent, root]));
    assert!(buildlet.state().actions.is_empty());
}

#[tokio::test]
async fn missing_inputs_are_named_in_the_response_and_once_they_are_there_it_runs() {
    let (bench, _buildlet) = Bench::with("", 1, making(b"made")).await;
    let below = Directory { files: vec![file("deep", b"deep")], ..Directory::default() };
    let below = DirectoryNode { name: "below".to_owned(), digest: Some(bench.put(&below.encode_to_vec())) };
    let root = Directory { files: vec![file("top", b"top")], directories: vec![below], ..Directory::default() };
    let root = bench.put(&root.encode_to_vec());
    let action = bench.action_with("a", |action, _| action.input_root_digest = Some(root.clone()));
    let ended = bench.execute(of(&action)).await.unwrap();
    assert_eq!(code(&ended), Code::FailedPrecondition);
    let mut missing = precondition::missing_in(&ended.status.unwrap());
    missing.sort();
    let mut expected = [Digest::of(b"deep"), Digest::of(b"top")];
    expected.sort();
    assert_eq!(missing, expected);
    bench.put(b"deep");
    bench.put(b"top");
    let ended = bench.execute(of(&action)).await.unwrap();
    assert_eq!(code(&ended), Code::Ok, "{}", why(&ended));
}

#[tokio::test]
async fn trees_that_are_none_are_refused_with_the_offending_name() {
    let (bench, buildlet) = Bench::with("", 1, making(b"made")).await;
    let twice = Directory { files: vec![file("x", b"1"), file("x", b"2")], ..Directory::default() };
    let up = Directory { files: vec![file("../x", b"1")], ..Directory::default() };
    let none = Directory { files: vec![FileNode { name: "y".to_owned(), ..Default::default() }], ..Default::default() };
    let cases = [(twice.encode_to_vec(), "\"x\""), (up.encode_to_vec(), "../x"), (none.encode_to_vec(), "\"y\"")];
    for (bytes, named) in cases.into_iter().chain([(b"\xff".to_vec(), "Directory")]) {
        let root = bench.put(&bytes);
        let action = bench.action_with("a", |action, _| action.input_root_digest = Some(root.clone()));
        let ended = bench.execute(of(&action)).await.unwrap();
        assert_eq!(code(&ended), Code::InvalidArgument);
        assert!(why(&ended).contains(named), "{}", why(&ended));
    }
    assert!(buildlet.state().actions.is_empty());
}

#[tokio::test]
async fn actions_that_make_no_sense_are_refused_by_the_field() {
    let (bench, buildlet) = Bench::with("", 1, making(b"made")).await;
    let good = bench.action("a");
    let bad = reapi::Digest { hash: "abc".to_owned(), size_bytes: 3 };
    let refused = |request: ExecuteRequest| async {
        let status = bench.execute(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        status.message().to_owned()
    };
    assert!(refused(ExecuteRequest::default()).await.contains("action_digest"));
    assert!(refused(of(&bad)).await.contains("action_digest"));
    assert!(refused(of(&reapi::Digest { size_bytes: -1, ..good.clone() })).await.contains("negative"));
    let function = digest_function::Value::Sha1.into();
    assert!(refused(ExecuteRequest { digest_function: function, ..of(&good) }).await.contains("digest_function"));
    assert!(refused(of(&bench.put(b"\xff\xff"))).await.contains("Action"));
    assert!(refused(of(&bench.put(&vec![0; 2 << 20]))).await.contains("larger than"));
    let change = |change: &dyn Fn(&mut Action, &mut Command)| bench.action_with("a", |a, c| change(a, c));
    let empty = bench.put(b"\xff\xff");
    let cases: [(reapi::Digest, &str); 9] = [
        (change(&|action, _| action.input_root_digest = None), "input_root_digest"),
        (change(&|action, _| action.command_digest = Some(bad.clone())), "command_digest"),
        (change(&|action, _| action.command_digest = Some(empty.clone())), "Command"),
        (change(&|_, command| command.arguments.clear()), "arguments"),
        (change(&|action, _| action.timeout = Some(Asked { seconds: -1, nanos: 0 })), "-1"),
        (change(&|action, _| action.timeout = Some(Asked { seconds: 1, nanos: -1 })), "ns"),
        (change(&|action, _| action.timeout = Some(Asked { seconds: 86401, nanos: 0 })), "reapi.max_timeout"),
        (change(&|action, _| action.timeout = Some(Asked { seconds: i64::MAX, nanos: 0 })), "reapi.max_timeout"),
        (
            change(&|action, _| action.platform = Some(Platform { properties: vec![Property::default()] })),
            "without a name",
        ),
    ];
    for (action, named) in cases {
        let text = refused(of(&action)).await;
        assert!(text.contains(named), "{text:?} does not name {named}");
    }
    assert!(buildlet.state().actions.is_empty());
}

#[tokio::test]
async fn a_result_beyond_what_clients_take_is_an_error_that_says_what_to_do() {
    let play = script(|action| async move {
        let file = |n: usize| OutputFile {
            path: format!("{n:0>100}"),
            digest: Some(to_reapi_digest(Digest::EMPTY)),
            ..OutputFile::default()
        };
        action.result(&ActionResult { output_files: (0..40_000).map(file).collect(), ..Default::default() }).await;
    });
    let (bench, _buildlet) = Bench::with("", 1, play).await;
    let ended = bench.execute(of(&bench.action("a"))).await.unwrap();
    assert_eq!(code(&ended), Code::ResourceExhausted);
    assert!(why(&ended).contains("directories"), "{}", why(&ended));
}
