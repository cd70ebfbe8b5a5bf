//! Outputs: what is there is answered, in the form that was asked for.

use super::*;
use motefarm_proto::reapi::command::OutputDirectoryFormat;
use motefarm_proto::reapi::{Directory, Tree};
use prost::Message as _;

#[tokio::test]
async fn files_directories_and_links_come_back_and_what_is_missing_is_left_out() {
    on_both(async |client, _| {
        let script = "echo 1 > out/file; echo 2 > out/exe; chmod +x out/exe; ln -s file out/link; \
                      mkdir -p dir/sub/deep dir/empty; echo 1 > dir/sub/file; ln -s ../x dir/l; echo same > dir/sub/deep/s; : > none";
        let job = Job::sh(script).outputs(&["out/file", "out/exe", "out/link", "dir", "missing/one", "none"]);
        let came = run_job(client, &job).await;
        assert_eq!(came.result().exit_code, 0, "{}", came.stderr());
        assert_eq!(came.file("out/file"), ("1\n".into(), false));
        assert_eq!(came.file("out/exe"), ("2\n".into(), true));
        assert_eq!(came.file("none"), (String::new(), false));
        assert_eq!(came.result().output_files.len(), 3);
        let links = &came.result().output_symlinks;
        assert_eq!((links.len(), links[0].path.as_str(), links[0].target.as_str()), (1, "out/link", "file"));
        let directory = &came.result().output_directories[0];
        assert!(directory.is_topologically_sorted && directory.root_directory_digest.is_none());
        let tree = Tree::decode(&came.blob(directory.tree_digest.as_ref())[..]).unwrap();
        let root = tree.root.unwrap();
        let names = |directory: &Directory| {
            let files = directory.files.iter().map(|file| file.name.clone());
            let links = directory.symlinks.iter().map(|link| format!("{}@", link.name));
            let below = directory.directories.iter().map(|below| format!("{}/", below.name));
            files.chain(links).chain(below).collect::<Vec<_>>()
        };
        assert_eq!(names(&root), ["l@", "empty/", "sub/"]);
        let children: Vec<_> = tree.children.iter().map(names).collect();
        assert_eq!(children, [vec!["file".to_owned(), "deep/".into()], vec!["s".into()], vec![]]);
        // Content that occurs twice is sent once: 1, 2, same and the tree; the empty one is everywhere.
        assert_eq!(came.offered, 4);
    })
    .await;
}

#[tokio::test]
#[expect(deprecated, reason = "clients of version 2.0 know nothing else")]
async fn the_old_form_is_answered_in_the_old_form() {
    on_both(async |client, _| {
        let mut job = Job::sh("echo f > o/f; mkdir o/d both; ln -s f o/to-file; ln -s d o/to-dir; echo x > both/x");
        job.command.output_files = vec!["o/f".into(), "o/to-file".into(), "both".into(), "absent".into()];
        job.command.output_directories = vec!["o/d".into(), "o/to-dir".into(), "both".into()];
        let came = run_job(client, &job).await;
        let result = came.result();
        assert_eq!(result.exit_code, 0, "{}", came.stderr());
        assert_eq!(result.output_files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["o/f"]);
        let directories: Vec<_> = result.output_directories.iter().map(|dir| dir.path.as_str()).collect();
        assert_eq!(directories, ["both", "o/d"]);
        assert_eq!(result.output_file_symlinks.len() + result.output_directory_symlinks.len(), 2);
        assert_eq!(result.output_file_symlinks[0].path, "o/to-file");
        assert_eq!(result.output_directory_symlinks[0].path, "o/to-dir");
        assert_eq!(result.output_symlinks.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn trees_are_the_same_whatever_the_order_and_the_umask() {
    on_both(async |client, _| {
        let digest = async |client: &mut Client, script: &str| {
            let came = run_job(client, &Job::sh(script).outputs(&["d"])).await;
            came.result().output_directories[0].tree_digest.clone().unwrap()
        };
        let one = digest(client, "mkdir -p d/a d/b; echo 1 > d/a/1; echo 1 > d/b/1; echo 2 > d/2").await;
        let other =
            digest(client, "umask 077; mkdir -p d/b; echo 2 > d/2; echo 1 > d/b/1; mkdir d/a; echo 1 > d/a/1").await;
        assert_eq!(one, other);
    })
    .await;
}

#[tokio::test]
async fn directories_come_as_messages_of_their_own_if_asked_for_and_properties_too() {
    let buildlet = Buildlet::start().await;
    let mut client = buildlet.client().await;
    let script = "mkdir -p d/sub; echo x > d/sub/x; echo y > f; chmod 640 f; touch -d @1000000000 f";
    let mut job = Job::sh(script).outputs(&["d", "f"]);
    job.command.output_directory_format = OutputDirectoryFormat::DirectoryOnly.into();
    job.command.output_node_properties = vec!["mtime".into(), "unix_mode".into()];
    let came = run_job(&mut client, &job).await;
    let directory = &came.result().output_directories[0];
    assert!(directory.tree_digest.is_none());
    let root = Directory::decode(&came.blob(directory.root_directory_digest.as_ref())[..]).unwrap();
    let sub = Directory::decode(&came.blob(root.directories[0].digest.as_ref())[..]).unwrap();
    assert_eq!(sub.files[0].name, "x");
    let properties = came.result().output_files[0].node_properties.clone().unwrap();
    assert_eq!(properties.unix_mode.unwrap().value, 0o640);
    assert_eq!(properties.mtime.unwrap().seconds, 1_000_000_000);
    job.command.output_directory_format = OutputDirectoryFormat::TreeAndDirectory.into();
    let came = run_job(&mut client, &job).await;
    let directory = &came.result().output_directories[0];
    assert!(directory.tree_digest.is_some() && directory.root_directory_digest.is_some());
    buildlet.finish().await;
}

#[tokio::test]
async fn paths_may_leave_the_working_directory_but_not_the_root() {
    on_both(async |client, _| {
        let mut job = Job::sh("echo 1 > ../beside/x; echo 2 > y").dir("w/d").outputs(&["../beside/x", "y", ""]);
        job.command.working_directory = "w".into();
        let came = run_job(client, &job).await;
        assert_eq!((came.file("../beside/x").0.as_str(), came.file("y").0.as_str()), ("1\n", "2\n"));
        assert_eq!(came.result().output_directories[0].path, "");
        for bad in ["../../x", "/x"] {
            let came = run_job(client, &Job::sh("true").outputs(&["fine", bad])).await;
            assert_eq!(came.status().code(), Code::InvalidArgument, "{bad}");
            assert!(came.status().message().contains("command.output_paths"), "{}", came.status());
        }
        // The whole root: what of it is the system's is no output.
        let came = run_job(client, &Job::sh("echo 1 > made").file("in/f", "").outputs(&[""])).await;
        let tree = Tree::decode(&came.blob(came.result().output_directories[0].tree_digest.as_ref())[..]).unwrap();
        let root = tree.root.unwrap();
        assert_eq!(root.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["made"]);
        assert_eq!(root.directories.iter().map(|dir| dir.name.as_str()).collect::<Vec<_>>(), ["in"]);
        assert!(root.symlinks.is_empty());
    })
    .await;
}
