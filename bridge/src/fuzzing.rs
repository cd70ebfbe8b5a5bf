//! What the targets in `fuzz/` run: a peer's bytes against what parses them, with everything checked
//! that must hold whatever they are. Panics are findings. Nothing else uses this.

use crate::file_blob::{self, HashKey};
use crate::hash_map::{self, Entry, HashMap};
use crate::http::encoding::{Encoding, Expanded};
use crate::pipeline::action::{ActionRules, Dialect, Outline, Prepared, prepare};
use crate::pipeline::client_path::{ClientPath, locate};
use crate::pipeline::inputs::{InputRules, Root, SystemFiles};
use crate::pipeline::platform::{PlatformRule, PlatformRules};
use crate::pipeline::response::{self, inline_bytes};
use crate::pipeline::{decode, weight};
use bytes::Bytes;
use motefarm_cas::tree::{self, EntryKind};
use motefarm_core::Digest;
use motefarm_proto::convert::reapi_digest;
use motefarm_proto::goma::{ExecReq, ToolchainSpec, exec_req};
use motefarm_proto::reapi::{Action, ActionResult, Command, Tree};
use prost::Message as _;
use std::collections::HashMap as Map;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Largest body; bombs end there.
const LIMIT: usize = 1 << 20;

/// A body as it came off the wire. The first byte says how it is packed, what it should be, and the rules.
///
/// # Panics
///
/// If something is taken that is not what it says, or an action is made that can not be carried out.
pub fn request(bytes: &[u8]) {
    let Some((shape, body)) = bytes.split_first() else { return };
    let Some(plain) = unpacked(*shape, body) else { return };
    if shape & 8 == 0 {
        if weight::EXEC.weigh(&plain).is_some() {
            exec_request(*shape, plain);
        }
    } else if weight::STORE.weigh(&plain).is_some() {
        store_request(plain);
    }
}

fn unpacked(shape: u8, body: &[u8]) -> Option<Bytes> {
    let encoding = [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Gzip][usize::from(shape & 3)];
    // Hardly any input is a good stream of deflate, so half of them are made one.
    let is_made = shape & 4 != 0;
    let packed = if is_made { encoding.pack(body.to_vec()) } else { body.to_vec() };
    let mut granted = 0;
    let expanded = encoding.expand(packed.into(), LIMIT, |size| {
        granted = size;
        true
    });
    match expanded {
        Ok(Expanded::Whole(plain)) => {
            assert!(plain.len() <= LIMIT, "{} bytes", plain.len());
            assert!(encoding == Encoding::Identity || plain.len() <= granted, "more than was asked for");
            assert!(!is_made || plain == body, "not what was packed");
            Some(plain)
        }
        Ok(Expanded::Refused) => panic!("nobody refused"),
        Err(_) => {
            assert!(!is_made || body.len() > LIMIT, "what we pack");
            None
        }
    }
}

fn store_request(plain: Bytes) {
    let Ok(received) = decode::store_request(plain) else { return };
    assert_eq!(received.request.blob.len(), received.raw.len());
    for (blob, raw) in received.request.blob.into_iter().zip(received.raw) {
        let Ok((key, blob)) = file_blob::verify(blob, raw.as_deref(), None) else { continue };
        let canonical = blob.key();
        assert!(key == canonical || raw.is_some_and(|raw| HashKey::of_encoded(&raw) == key), "a key of neither");
        let message = blob.clone().into_message();
        let again = file_blob::verify(message.clone(), Some(&message.encode_to_vec()), Some(&canonical.to_string()));
        assert_eq!(again, Ok((canonical, blob)), "what we send is not what we take");
    }
}

fn exec_request(shape: u8, plain: Bytes) {
    let Ok(mut received) = decode::exec_request(plain) else { return };
    assert_eq!(received.request.input.len(), received.raw.len());
    let contents = received.request.input.iter_mut().zip(received.raw).map(|(input, raw)| {
        let content = input.content.take()?;
        // A fuzzer can not guess a key.
        if input.hash_key.is_empty() {
            input.hash_key =
                file_blob::verify(content.clone(), None, None).map_or_else(|_| String::new(), |it| it.0.to_string());
        }
        let (key, _) = file_blob::verify(content, raw.as_deref(), Some(&input.hash_key)).ok()?;
        assert_eq!(HashKey::parse(&input.hash_key), Some(key), "known by a key that is not its own");
        Some(Digest::of(key.as_bytes()))
    });
    let contents: Vec<Option<Digest>> = contents.collect();
    let (rules, dialect) = (rules(shape), Dialect { old_outputs: shape & 0x80 != 0 });
    let Ok(outline) = Outline::of(&received.request, &rules) else { return };
    let contents: Vec<Digest> =
        outline.layout.inputs.iter().map(|input| contents[input.index].unwrap_or(Digest::EMPTY)).collect();
    let Ok(prepared) = prepare(&received.request, &outline, &contents, &rules, dialect) else { return };
    check_action(&outline, &prepared, &rules);
    let again = prepare(&received.request, &outline, &contents, &rules, dialect).expect("the same");
    assert_eq!(again.action, prepared.action, "not always the same action");
}

fn rules(shape: u8) -> ActionRules {
    let system_files = [SystemFiles::Ship, SystemFiles::WorkerProvided, SystemFiles::Reject, SystemFiles::Ship];
    let system = ["/usr", "/lib"].map(|text| ClientPath::absolute(text).expect("a path"));
    ActionRules {
        inputs: InputRules {
            root: if shape & 0x10 == 0 { Root::Filesystem } else { Root::Common },
            system_files: system_files[usize::from(shape >> 5 & 3)],
            system_prefixes: system.to_vec(),
        },
        platforms: PlatformRules {
            rules: vec![PlatformRule { dimensions: ["os:linux".to_owned()].into(), ..PlatformRule::default() }],
            client_may_set: ["may".to_owned()].into(),
        },
        timeout: Duration::from_secs(900),
        path: "/usr/bin:/bin".to_owned(),
    }
}

/// Messages are what their digests say, and a worker can do what they say without leaving its root.
fn check_action(outline: &Outline, prepared: &Prepared, rules: &ActionRules) {
    let messages: Map<Digest, &Bytes> = prepared.messages.iter().map(|(digest, bytes)| (*digest, bytes)).collect();
    assert!(messages.iter().all(|(digest, bytes)| Digest::of(bytes) == *digest), "a digest of something else");
    let message = |digest: Option<&motefarm_proto::reapi::Digest>| {
        let digest = reapi_digest(digest.expect("a digest")).expect("a digest of ours");
        *messages.get(&digest).expect("a message that is sent along")
    };
    let action = Action::decode(&messages[&prepared.action][..]).expect("an action");
    let uncached = Action::decode(&messages[&prepared.uncached][..]).expect("an action");
    assert!(!action.do_not_cache && uncached.do_not_cache);
    let command = Command::decode(&message(action.command_digest.as_ref())[..]).expect("a command");
    let directory = command.working_directory.as_str();
    let names = || directory.split('/').filter(|name| !name.is_empty());
    assert!(!directory.starts_with('/') && names().all(|name| !matches!(name, "." | "..")), "{directory:?}");
    let mut at = reapi_digest(action.input_root_digest.as_ref().expect("a root")).expect("a digest of ours");
    for name in names() {
        let inside = tree::decode(messages[&at]).expect("a directory");
        let entry = inside.entries.iter().find(|entry| entry.name == name.as_bytes()).expect("the working directory");
        let EntryKind::Directory { digest } = entry.kind else { panic!("the working directory is none") };
        at = digest;
    }
    for output in &command.output_paths {
        let located = locate(&outline.cwd, output).expect("an output that leads somewhere");
        assert!(
            !output.starts_with('/') && located.path.below(&outline.layout.root).is_some(),
            "{output:?} is outside"
        );
    }
    assert!(command.arguments.first().is_some_and(|driver| driver.contains('/')));
    let environment: Vec<&str> = command.environment_variables.iter().map(|it| it.name.as_str()).collect();
    assert!(environment.is_sorted() && environment.contains(&"PATH"));
    assert!(rules.inputs.root == Root::Filesystem || !environment.contains(&"PWD"));
}

/// A server's result: an `ActionResult`, and a `Tree` for its directories, each after its length in two bytes.
///
/// # Panics
///
/// If a client would be told to write what it did not ask for.
pub fn result(bytes: &[u8]) {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let [low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        messages.push(&after[..len]);
        rest = &after[len..];
    }
    let [result, trees @ ..] = &messages[..] else { return };
    let Ok(result) = ActionResult::decode(*result) else { return };
    let trees: Vec<(&str, Tree)> =
        trees.iter().filter_map(|tree| Some(("gen/classes", Tree::decode(*tree).ok()?))).collect();
    let request = ExecReq {
        arg: ["cc", "-c", "a.c", "-o", "a.o"].map(str::to_owned).to_vec(),
        cwd: Some("/w/out".to_owned()),
        input: vec![exec_req::Input { filename: Some("a.c".to_owned()), ..exec_req::Input::default() }],
        expected_output_files: ["a.o", "../a.d"].map(str::to_owned).to_vec(),
        expected_output_dirs: vec!["gen/classes".to_owned()],
        toolchain_included: Some(true),
        toolchain_specs: vec![ToolchainSpec {
            path: Some("/t/cc".to_owned()),
            hash: Some("00".repeat(32)),
            size: Some(1),
            ..ToolchainSpec::default()
        }],
        ..ExecReq::default()
    };
    let Ok(outline) = Outline::of(&request, &rules(0)) else { panic!("a good request") };
    let Ok(files) = response::named(&outline, &result, &trees) else { return };
    for file in &files {
        let inside = file
            .filename
            .strip_prefix("gen/classes/")
            .is_some_and(|rest| rest.split('/').all(|name| !matches!(name, "" | "." | "..")) && !rest.contains('\0'));
        assert!(inside || ["a.o", "../a.d", "gen/classes"].contains(&file.filename.as_str()), "{:?}", file.filename);
    }
    assert!(result.exit_code != 0 || files.iter().any(|file| file.filename == "a.o"), "a success without its object");
    assert!(inline_bytes(&files, LIMIT as u64) <= LIMIT as u64);
}

/// The logs of a hash map in `dir`, an empty directory: the first byte says where the former ends and the current
/// begins, in 256ths, and whether checksums are put right.
///
/// # Panics
///
/// If the map can not be used, or does not keep what it says.
pub fn hash_map(dir: &Path, bytes: &[u8]) {
    let Some((shape, bytes)) = bytes.split_first() else { return };
    let (former, current) = bytes.split_at(bytes.len() * usize::from(shape & 0x7f) / 128);
    let mut keys = Vec::new();
    for (name, log) in [("former", former), ("current", current)] {
        let mut log = log.to_vec();
        if shape & 0x80 == 0 {
            keys.extend(hash_map::mend(&mut log));
        }
        fs::write(dir.join(name), log).expect("a file");
    }
    let map = HashMap::open(dir, 1000).expect("a map, whatever is in its logs");
    let before = map.get(&keys).expect("what it knows");
    let (key, entry) = (HashKey::of_encoded(b"new"), Entry::File(Digest::of(b"new")));
    map.put(&[(key, entry.clone())]).expect("there is room");
    assert_eq!(map.get(&[key]).expect("what it knows"), [Some(entry.clone())]);
    drop(map);
    let map = HashMap::open(dir, 1000).expect("a map");
    assert_eq!(map.get(&[key]).expect("what it knows"), [Some(entry)]);
    for ((key, before), after) in keys.iter().zip(&before).zip(map.get(&keys).expect("what it knows")) {
        // Two that begin alike hide each other.
        let alike = keys.iter().filter(|other| *other != key && other.as_bytes()[..8] == key.as_bytes()[..8]).count();
        assert!(alike > 0 || before.is_none() || *before == after, "{key}: {before:?} became {after:?}");
    }
}
