use super::*;
use crate::pipeline::inputs::SystemFiles;
use crate::pipeline::platform::PlatformRule;
use motefarm_proto::goma::{ToolchainSpec, exec_req};
use motefarm_proto::reapi::Directory;

fn rules(root: Root) -> ActionRules {
    let platform = PlatformRule {
        dimensions: ["os:linux".to_owned()].into(),
        properties: [("OSFamily".to_owned(), "linux".to_owned())].into(),
    };
    ActionRules {
        inputs: InputRules { root, system_files: SystemFiles::Ship, system_prefixes: vec![] },
        platforms: PlatformRules { rules: vec![platform], client_may_set: Default::default() },
        timeout: Duration::from_secs(900),
        path: "/usr/bin:/bin".to_owned(),
    }
}

fn request() -> ExecReq {
    let input = |name: &str| exec_req::Input { filename: Some(name.to_owned()), ..exec_req::Input::default() };
    let compiler = Digest::of(b"clang");
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    ExecReq {
        arg: texts(&["clang++", "-c", "../a.cc", "-o", "obj/a.o"]),
        env: texts(&["PWD=/home/u/src/out", "CPATH=x", "nonsense", "PATH=/evil", "A=1", "A=2"]),
        cwd: Some("/home/u/src/out".to_owned()),
        input: vec![input("../a.cc"), input("gen/../x.h"), input("../llvm/bin/clang++")],
        expected_output_files: texts(&["obj/a.o", "obj/a.d"]),
        toolchain_included: Some(true),
        toolchain_specs: vec![
            ToolchainSpec {
                path: Some("../llvm/bin/clang++".into()),
                symlink_path: Some("clang".into()),
                ..ToolchainSpec::default()
            },
            ToolchainSpec {
                path: Some("../llvm/bin/clang".into()),
                hash: Some(compiler.hash_hex()),
                size: Some(compiler.size_bytes() as i64),
                is_executable: Some(true),
                ..ToolchainSpec::default()
            },
        ],
        ..ExecReq::default()
    }
}

fn prepared(request: &ExecReq, rules: &ActionRules, old_outputs: bool) -> Prepared {
    let outline = Outline::of(request, rules).unwrap();
    let contents = [Digest::of(b"a"), Digest::of(b"x"), Digest::of(b"clang")];
    prepare(request, &outline, &contents, rules, Dialect { old_outputs }).unwrap()
}

fn message<M: prost::Message + Default>(prepared: &Prepared, digest: Option<&motefarm_proto::reapi::Digest>) -> M {
    let hash = &digest.unwrap().hash;
    let (_, bytes) = prepared.messages.iter().find(|(digest, _)| digest.hash_hex() == *hash).unwrap();
    M::decode(&bytes[..]).unwrap()
}

fn action(prepared: &Prepared) -> Action {
    message(prepared, Some(&to_reapi_digest(prepared.action)))
}

/// Every file and link, by path.
fn listing(prepared: &Prepared, directory: &Directory, at: &str, into: &mut Vec<String>) {
    for file in &directory.files {
        into.push(format!("{at}{}{}", file.name, if file.is_executable { "*" } else { "" }));
    }
    into.extend(directory.symlinks.iter().map(|link| format!("{at}{} -> {}", link.name, link.target)));
    for node in &directory.directories {
        let inner: Directory = message(prepared, node.digest.as_ref());
        if inner == Directory::default() {
            into.push(format!("{at}{}/", node.name));
        }
        listing(prepared, &inner, &format!("{at}{}/", node.name), into);
    }
}

#[test]
fn an_action_is_what_the_worker_needs_and_nothing_of_the_client_machine_else() {
    let prepared = prepared(&request(), &rules(Root::Filesystem), false);
    let action = action(&prepared);
    let command: Command = message(&prepared, action.command_digest.as_ref());
    assert_eq!(command.arguments, ["../llvm/bin/clang++", "-c", "../a.cc", "-o", "obj/a.o"]);
    assert_eq!(command.working_directory, "home/u/src/out");
    assert_eq!(command.output_paths, ["obj/a.d", "obj/a.o"]);
    #[expect(deprecated, reason = "must be empty")]
    let old = (&command.output_files, &command.platform);
    assert!(old.0.is_empty());
    assert_eq!(old.1, &action.platform, "in both places: schedulers differ in which they read");
    let environment: Vec<String> =
        command.environment_variables.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
    assert_eq!(environment, ["A=2", "CPATH=x", "PATH=/usr/bin:/bin", "PWD=/home/u/src/out"]);
    assert_eq!((action.timeout.as_ref().unwrap().seconds, action.do_not_cache), (900, false));

    let root: Directory = message(&prepared, action.input_root_digest.as_ref());
    let mut files = Vec::new();
    listing(&prepared, &root, "", &mut files);
    let below = |name: &str| format!("home/u/src/{name}");
    let expected =
        ["a.cc", "llvm/bin/clang*", "llvm/bin/clang++ -> clang", "out/x.h", "out/gen/", "out/obj/"].map(below);
    assert_eq!(files, expected);

    let uncached: Action = message(&prepared, Some(&to_reapi_digest(prepared.uncached)));
    assert_eq!(uncached, Action { do_not_cache: true, ..action });
}

#[test]
fn below_a_common_root_the_client_directory_is_no_part_of_the_key() {
    let rules = rules(Root::Common);
    let mut elsewhere = request();
    elsewhere.cwd = Some("/mnt/v/out".to_owned());
    elsewhere.env[0] = "PWD=/mnt/v/out".to_owned();
    let (one, other) = (prepared(&request(), &rules, false), prepared(&elsewhere, &rules, false));
    assert_eq!(one.action, other.action);
    let command: Command = message(&one, action(&one).command_digest.as_ref());
    assert_eq!(command.working_directory, "out");
    assert!(command.environment_variables.iter().all(|variable| variable.name != "PWD"));
}

#[test]
fn old_servers_are_told_in_their_words_too() {
    let mut request = request();
    request.expected_output_dirs = vec!["classes".to_owned()];
    let prepared = prepared(&request, &rules(Root::Filesystem), true);
    let command: Command = message(&prepared, action(&prepared).command_digest.as_ref());
    #[expect(deprecated, reason = "what old servers read")]
    let (files, directories) = (command.output_files, command.output_directories);
    assert_eq!(files, ["obj/a.d", "obj/a.o"]);
    assert_eq!(directories, ["classes"]);
    assert_eq!(command.output_paths, ["classes", "obj/a.d", "obj/a.o"]);
}

#[test]
fn inputs_that_contradict_each_other_are_named() {
    let mut request = request();
    request.input[1].filename = Some("../a.cc".to_owned());
    let outline = Outline::of(&request, &rules(Root::Filesystem)).unwrap();
    let contents = [Digest::of(b"a"), Digest::of(b"x"), Digest::of(b"clang")];
    let dialect = Dialect { old_outputs: false };
    let refused = prepare(&request, &outline, &contents, &rules(Root::Filesystem), dialect).unwrap_err();
    assert!(matches!(refused, Refusal::Never(why) if why.contains("home/u/src/a.cc is a file of digest")));
}
