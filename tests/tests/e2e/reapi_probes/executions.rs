//! Execution.

use super::Probe;
use super::ground::{Executed, Ground, name, script_of, told};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::precondition::missing_in;
use motefarm_proto::reapi::{
    ActionResult, Command, Directory, FileNode, GetActionResultRequest, Platform, Tree, WaitExecutionRequest, platform,
};
use prost::Message as _;
use tonic::Code;

pub(super) const PROBES: [Probe; 15] = [
    ("`output_files` and `output_directories` (v2.0) honoured", old_outputs),
    ("output directory by `output_paths`, an empty directory in it", directory_output),
    ("symlink among the outputs", symlink_output),
    ("output path with `..` that stays inside; one that leaves", climbing),
    ("listed output that is not there after the run", absent_output),
    ("Operation metadata", metadata),
    ("second Execute of a success; of a failure; with do_not_cache", cached),
    ("Action missing in the CAS", no_action),
    ("input file missing in the CAS", no_input),
    ("platform that nobody has", no_platform),
    ("timeout of 1 s exceeded", timeout),
    ("death by SIGKILL; no such program", deaths),
    ("input root whose entries are not sorted", unsorted),
    ("environment of a command that lists none, but for PWD", environment),
    ("WaitExecution of an unknown name", unknown_operation),
];

fn output_names(result: &ActionResult) -> String {
    let files = result.output_files.iter().map(|file| file.path.as_str());
    let directories = result.output_directories.iter().map(|directory| directory.path.as_str());
    let links = result.output_symlinks.iter().map(|link| link.path.as_str());
    files.chain(directories).chain(links).collect::<Vec<_>>().join(" ")
}

/// What a command wrote to stdout, wherever the answer has it.
fn stdout(ground: &Ground, result: &ActionResult) -> String {
    let digest = result.stdout_digest.clone().unwrap_or_default();
    let bytes = match result.stdout_raw.is_empty() && digest.size_bytes > 0 {
        true => ground.read(&format!("blobs/{}/{}", digest.hash, digest.size_bytes), 0, 0).expect("stdout is there"),
        false => result.stdout_raw.clone(),
    };
    String::from_utf8(bytes).expect("text")
}

/// Runs a command nobody has run before.
fn run(ground: &Ground, command: &Command) -> Executed {
    let salt = ground.fresh(16);
    let action = ground.action(command, |action| action.salt = salt);
    ground.execute(action, false)
}

#[expect(deprecated, reason = "what clients of v2.0 send")]
fn old_outputs(ground: &Ground) -> String {
    let mut command = script_of("mkdir -p a d && echo x >a/file && echo y >d/inner", &[]);
    command.output_files = vec!["a/file".to_owned()];
    command.output_directories = vec!["d".to_owned()];
    run(ground, &command).or(|result| match output_names(result).as_str() {
        "a/file d" => "yes".to_owned(),
        other => format!("only {other}"),
    })
}

fn directory_output(ground: &Ground) -> String {
    ground.shell("mkdir -p out/empty && echo x >out/file", &["out"]).or(|result| {
        let digest = result.output_directories[0].tree_digest.clone().unwrap_or_default();
        let name = format!("blobs/{}/{}", digest.hash, digest.size_bytes);
        let tree = Tree::decode(&ground.read(&name, 0, 0).expect("the tree is there")[..]).expect("a Tree");
        let root = tree.root.unwrap_or_default();
        match (&root.directories[..], &tree.children[..]) {
            ([one], [inner]) if one.name == "empty" && *inner == Directory::default() => "kept".to_owned(),
            other => format!("{other:?}"),
        }
    })
}

fn symlink_output(ground: &Ground) -> String {
    ground.shell("ln -s elsewhere link", &["link"]).or(|result| match &result.output_symlinks[..] {
        [link] if link.target == "elsewhere" => "yes".to_owned(),
        other => format!("{other:?}"),
    })
}

fn climbing(ground: &Ground) -> String {
    let inside = {
        let mut command = script_of("echo x >../out", &["../out"]);
        command.working_directory = "sub".to_owned();
        let sub = ground.put_message(&Directory::default());
        let mut root = Directory::default();
        root.directories
            .push(motefarm_proto::reapi::DirectoryNode { name: "sub".to_owned(), digest: Some(to_reapi_digest(sub)) });
        let root = ground.put_message(&root);
        let salt = ground.fresh(16);
        let action = ground.action(&command, |action| {
            action.input_root_digest = Some(to_reapi_digest(root));
            action.salt = salt;
        });
        ground.execute(action, false).or(output_names)
    };
    format!("{inside}, {}", ground.shell("true", &["../../etc/passwd"]).or(output_names))
}

fn absent_output(ground: &Ground) -> String {
    ground.shell("true", &["nothing"]).or(|result| match (result.exit_code, output_names(result).as_str()) {
        (0, "") => "left out".to_owned(),
        other => format!("{other:?}"),
    })
}

fn metadata(ground: &Ground) -> String {
    let executed = ground.shell("true", &[]);
    let stages = &executed.stages;
    match (stages.contains(&-1), stages.contains(&3), stages.last()) {
        (false, true, Some(4)) if executed.status.code == 0 => "yes".to_owned(),
        _ => format!("{} {stages:?}", executed.or(|_| "ran".to_owned())),
    }
}

fn cached(ground: &Ground) -> String {
    let twice = |script: &str, do_not_cache: bool| {
        let salt = ground.fresh(16);
        let action = ground.action(&script_of(script, &[]), |action| {
            action.salt = salt;
            action.do_not_cache = do_not_cache;
        });
        ground.execute(action, false);
        let again = ground.execute(action, false);
        let get = GetActionResultRequest { action_digest: Some(to_reapi_digest(action)), ..Default::default() };
        let found = ground.rpc.wait(ground.action_cache().get_action_result(get)).is_ok();
        let cached = again.response.cached_result;
        assert!(again.status.code != 0 || found == cached, "Execute and GetActionResult agree");
        again.or(|_| if cached { "cached".to_owned() } else { "runs again".to_owned() })
    };
    [twice("true", false), twice("exit 3", false), twice("true", true)].join(", ")
}

/// The status, and whether its details name what is missing.
fn precondition(executed: &Executed, missing: Digest) -> String {
    let status = executed.or(|_| "ran".to_owned());
    if missing_in(&executed.status) == [missing] { format!("{status}, MISSING named") } else { status }
}

fn no_action(ground: &Ground) -> String {
    let action = Digest::of(&ground.fresh(100));
    precondition(&ground.execute(action, false), action)
}

fn no_input(ground: &Ground) -> String {
    let gone = Digest::of(&ground.fresh(100));
    let file = FileNode { name: "in".to_owned(), digest: Some(to_reapi_digest(gone)), ..Default::default() };
    let root = ground.put_message(&Directory { files: vec![file], ..Default::default() });
    let action = ground.action(&script_of("cat in", &[]), |action| {
        action.input_root_digest = Some(to_reapi_digest(root));
    });
    precondition(&ground.execute(action, false), gone)
}

fn no_platform(ground: &Ground) -> String {
    let property = platform::Property { name: "OSFamily".to_owned(), value: "plan9".to_owned() };
    let action = ground.action(&script_of("true", &[]), |action| {
        action.platform = Some(Platform { properties: vec![property] });
    });
    ground.execute(action, false).or(|_| "ignored".to_owned())
}

fn timeout(ground: &Ground) -> String {
    let salt = ground.fresh(16);
    let action = ground.action(&script_of("sleep 60", &[]), |action| {
        action.salt = salt;
        action.timeout.get_or_insert_default().seconds = 1;
    });
    ground.execute(action, false).or(|_| "ran".to_owned())
}

fn deaths(ground: &Ground) -> String {
    let killed = ground.shell("kill -9 $$", &[]).or(|result| format!("exit {}", result.exit_code));
    let command = Command { arguments: vec!["no/such/program".to_owned()], ..Default::default() };
    format!("{killed}, {}", run(ground, &command).or(|result| format!("exit {}", result.exit_code)))
}

fn unsorted(ground: &Ground) -> String {
    let file = |name: &str| FileNode {
        name: name.to_owned(),
        digest: Some(to_reapi_digest(Digest::EMPTY)),
        ..Default::default()
    };
    let root = ground.put_message(&Directory { files: vec![file("b"), file("a")], ..Default::default() });
    let salt = ground.fresh(16);
    let action = ground.action(&script_of("ls", &[]), |action| {
        action.input_root_digest = Some(to_reapi_digest(root));
        action.salt = salt;
    });
    ground.execute(action, false).or(|result| match stdout(ground, result).contains("a\nb\n") {
        true => "runs".to_owned(),
        false => stdout(ground, result),
    })
}

fn environment(ground: &Ground) -> String {
    let command = Command { arguments: vec!["/usr/bin/env".to_owned()], ..Default::default() };
    run(ground, &command).or(|result| {
        let all = stdout(ground, result);
        let others = all.lines().filter(|line| !line.starts_with("PWD=")).collect::<Vec<_>>().join(" ");
        if others.is_empty() { "nothing".to_owned() } else { others }
    })
}

fn unknown_operation(ground: &Ground) -> String {
    let request = WaitExecutionRequest { name: "no-such-operation".to_owned() };
    let first = async { ground.execution().wait_execution(request).await?.into_inner().message().await };
    told(ground.rpc.wait(first), |_| name(Code::Ok))
}
