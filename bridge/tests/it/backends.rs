//! The rules in which real servers differ.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::Failure;
use crate::harness::{Bridge, Project, apart, leaves, lists_files, noise};

#[tokio::test(flavor = "multi_thread")]
async fn small_batches_are_kept_to() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let files: Vec<(String, Vec<u8>)> = (0..40).map(|n| (format!("h{n}.h"), noise(n, 4000))).collect();
    let given: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    let project = Project::new(&given);
    project.write("large.h", &noise(100, 100_000));
    let names: Vec<&str> = given.iter().map(|(name, _)| *name).chain(["large.h"]).collect();
    let task = project.task(&names, &["a.o"]);
    let mut client = bridge.client();
    apart(move || client.compile(&task).unwrap()).await;
    let largest = fake.state().largest_batch;
    assert!(largest > 50_000 && largest <= 65_536, "{largest}");
    assert!(fake.calls("batch_update") >= 3 && fake.calls("write") == 1);
}

/// A server that says one thing and takes another is met halfway.
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_not_taken_go_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    fake.fail("batch_update", &[tonic::Code::ResourceExhausted; 20]);
    fake.fail("batch_read", &[tonic::Code::OutOfRange; 20]);
    let project = Project::new(&[("a.c", b"int a;"), ("b.h", b"int b;")]);
    let task = project.task(&["a.c", "b.h"], &["a.o"]);
    let mut client = bridge.client();
    assert_eq!(apart(move || client.compile(&task).unwrap().exit_status).await, 0);
    assert!(fake.calls("write") > 3 && fake.calls("read") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_servers_are_asked_in_their_words() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::old(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let task = project.task(&["a.c"], &["obj/a.o", "../gen/a.d"]);
    let mut client = bridge.client();
    let compiled = apart(move || client.compile(&task).unwrap()).await;
    assert_eq!(compiled.names(), ["../gen/a.d", "obj/a.o"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_nobody_has_is_said_with_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::buildbarn(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let dir = tempfile::tempdir().unwrap();
    let text = "[[platform]]\ndimensions = [\"os:linux\"]\nproperties = { ISA = \"x86-64\" }\n";
    let wrong = Bridge::start(dir.path(), &fake, text).await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let (task, same) = (project.task(&["a.c"], &["a.o"]), project.task(&["a.c"], &["a.o"]));
    let (mut good, mut bad) = (bridge.client(), wrong.client());
    assert_eq!(apart(move || good.compile(&task).unwrap().exit_status).await, 0);
    match apart(move || bad.compile(&same)).await {
        Err(Failure::Exhausted(why)) => {
            assert!(why[0].contains("No workers exist") && why[0].contains("ISA=x86-64, OSFamily=linux"), "{why:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_system_are_the_workers_own_where_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let project = Project::new(&[("a.c", b"int a;"), ("../system/x.h", b"one")]);
    let system = project.dir.path().join("system");
    let text = format!(
        "[inputs]\nsystem_files = \"worker-provided\"\nroot = \"common\"\nsystem_prefixes = [{:?}]\n",
        system.display().to_string()
    );
    let bridge = Bridge::start(dir.path(), &fake, &text).await;
    let header = system.join("x.h").display().to_string();
    let mut salts = Vec::new();
    for content in ["one", "one", "two"] {
        project.write("../system/x.h", content.as_bytes());
        let task = project.task(&["a.c", &header], &["a.o"]);
        let mut client = bridge.client();
        let hit = apart(move || client.compile(&task).unwrap().cache_hit).await;
        let ran = fake.state().ran.last().unwrap().clone();
        assert!(!ran.files.iter().any(|file| file.contains("x.h")), "{:?}", ran.files);
        assert_eq!(ran.command.working_directory, "src");
        salts.push((ran.salt, hit));
    }
    assert_eq!(salts[0].0, salts[1].0);
    assert_ne!(salts[0].0, salts[2].0, "another header is another action");
    assert_eq!([salts[0].1, salts[1].1, salts[2].1], [0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_without_the_object_or_with_other_files_are_not_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let fake =
        FakeReapi::start(Rules::nativelink(), leaves(&[("a.d", b"d".to_vec()), ("../evil", b"x".to_vec())])).await;
    let bridge = Bridge::start(dir.path(), &fake, "").await;
    let project = Project::new(&[("a.c", b"int a;")]);
    let task = project.task(&["a.c"], &["a.o", "a.d"]);
    let mut client = bridge.client();
    match apart(move || client.compile(&task)).await {
        Err(Failure::Exhausted(why)) => assert!(why[0].contains("left no a.o"), "{why:?}"),
        other => panic!("{other:?}"),
    }
    let mut task = project.task(&["a.c"], &["a.d"]);
    task.args = ["cc", "-E", "a.c", "-o", "a.d"].map(str::to_owned).to_vec();
    let mut client = bridge.client();
    let compiled = apart(move || client.compile(&task).unwrap()).await;
    assert_eq!(compiled.names(), ["a.d"], "and not ../evil");
}
