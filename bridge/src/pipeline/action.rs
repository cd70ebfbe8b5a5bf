//! From a request to the REAPI messages of its action. Pure: digests are hashes of encoded messages, so here
//! messages are the matter.

use super::client_path::ClientPath;
use super::input_tree::InputTree;
use super::inputs::{InputRules, Layout, Root};
use super::outputs::{self, Expected};
use super::platform::PlatformRules;
use super::refusal::Refusal;
use super::toolchain::{ToolKind, Toolchain};
use bazel_remote_apis::google::protobuf;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::goma::{ExecReq, RequesterInfo};
use motefarm_proto::reapi::{Action, Command, Platform, command};
use prost::Message as _;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// What an operator decides of actions.
#[derive(Debug, Clone)]
pub struct ActionRules {
    /// Of inputs.
    pub inputs: InputRules,
    /// Of platforms.
    pub platforms: PlatformRules,
    /// Longest run of one compile.
    pub timeout: Duration,
    /// `PATH` of every compile.
    pub path: String,
}

/// How the server wants a `Command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Highest API version is under 2.1: outputs in the old lists as well.
    pub old_outputs: bool,
}

/// A request that was read and found servable; what its inputs' contents are is not known yet.
#[derive(Debug)]
pub struct Outline {
    /// The action's working directory on the client's machine.
    pub cwd: ClientPath,
    /// What goes into the tree.
    pub layout: Layout,
    /// How the compiler is called.
    pub driver: String,
    /// What it should leave.
    pub outputs: Vec<Expected>,
    /// Where it runs.
    pub platform: Platform,
}

impl Outline {
    /// Of a request.
    pub fn of(request: &ExecReq, rules: &ActionRules) -> Result<Self, Refusal> {
        let nobody = RequesterInfo::default();
        let platform = rules.platforms.choose(request.requester_info.as_ref().unwrap_or(&nobody))?;
        let cwd = ClientPath::absolute(request.cwd())
            .map_err(|error| Refusal::never(format!("the working directory {:?} {error}", request.cwd())))?;
        let toolchain = Toolchain::of(request, &cwd)?;
        let layout = Layout::decide(&rules.inputs, request, &cwd, &toolchain)?;
        let outputs = outputs::expected(request, &cwd, &layout.root)?;
        Ok(Self { cwd, layout, driver: toolchain.driver, outputs, platform })
    }
}

/// An action as messages.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The action.
    pub action: Digest,
    /// The same action, whose result nobody may keep.
    pub uncached: Digest,
    /// Every message: directories, command, both actions.
    pub messages: Vec<(Digest, Bytes)>,
}

/// Puts it together. `contents`: the digest of each shipped input, in the layout's order.
pub fn prepare(
    request: &ExecReq,
    outline: &Outline,
    contents: &[Digest],
    rules: &ActionRules,
    dialect: Dialect,
) -> Result<Prepared, Refusal> {
    let outputs: Vec<ClientPath> = outline.outputs.iter().map(|output| output.located.path.parent()).collect();
    let tree = tree(outline, contents, &outputs).encode();
    let (input_root, mut messages) = tree.map_err(|error| Refusal::never(error.to_string()))?;
    let command = command(request, outline, rules, dialect);
    let command = push(&mut messages, command.encode_to_vec());
    let cached = Action {
        command_digest: Some(to_reapi_digest(command)),
        input_root_digest: Some(to_reapi_digest(input_root)),
        timeout: Some(protobuf::Duration {
            seconds: i64::try_from(rules.timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        do_not_cache: false,
        salt: outline.layout.salt.clone(),
        platform: Some(outline.platform.clone()),
    };
    let action = push(&mut messages, cached.encode_to_vec());
    let uncached = push(&mut messages, Action { do_not_cache: true, ..cached }.encode_to_vec());
    Ok(Prepared { action, uncached, messages })
}

fn push(messages: &mut Vec<(Digest, Bytes)>, bytes: Vec<u8>) -> Digest {
    let digest = Digest::of(&bytes);
    messages.push((digest, bytes.into()));
    digest
}

fn below<'a>(path: &'a ClientPath, root: &ClientPath) -> &'a str {
    path.below(root).unwrap_or_default()
}

fn tree<'a>(outline: &'a Outline, contents: &[Digest], outputs: &'a [ClientPath]) -> InputTree<'a> {
    let (layout, root) = (&outline.layout, &outline.layout.root);
    let mut tree = InputTree::with_capacity(2 * (layout.inputs.len() + layout.tools.len()));
    for tool in &layout.tools {
        tool.located.through.iter().for_each(|path| tree.directory(below(path, root)));
        let at = below(&tool.located.path, root);
        match &tool.kind {
            ToolKind::File { digest, executable } => tree.file(at, *digest, *executable),
            ToolKind::Link(target) => tree.link(at, target),
        }
    }
    let links: HashSet<&ClientPath> =
        layout.tools.iter().filter(|tool| matches!(tool.kind, ToolKind::Link(_))).map(|t| &t.located.path).collect();
    for (input, digest) in layout.inputs.iter().zip(contents) {
        input.located.through.iter().for_each(|path| tree.directory(below(path, root)));
        // A client names the compiler among its inputs, too, and there follows its links.
        if !links.contains(&input.located.path) {
            tree.file(below(&input.located.path, root), *digest, false);
        }
    }
    outline
        .outputs
        .iter()
        .flat_map(|output| &output.located.through)
        .chain(outputs)
        .chain([&outline.cwd])
        .for_each(|path| tree.directory(below(path, root)));
    tree
}

#[expect(
    deprecated,
    reason = "servers before API 2.1 read nothing else; of later ones some the command's platform only"
)]
fn command(request: &ExecReq, outline: &Outline, rules: &ActionRules, dialect: Dialect) -> Command {
    let arguments = std::iter::once(outline.driver.clone()).chain(request.arg.iter().skip(1).cloned());
    let sorted = |directories: Option<bool>| {
        let wanted = |output: &&Expected| directories.is_none_or(|wanted| wanted == output.is_directory);
        let mut paths: Vec<String> = outline.outputs.iter().filter(wanted).map(|output| output.path.clone()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    };
    let old = |directories| if dialect.old_outputs { sorted(Some(directories)) } else { Vec::new() };
    Command {
        arguments: arguments.collect(),
        environment_variables: environment(request, rules),
        output_files: old(false),
        output_directories: old(true),
        output_paths: sorted(None),
        platform: Some(outline.platform.clone()),
        working_directory: outline.cwd.below(&outline.layout.root).unwrap_or_default().to_owned(),
        ..Command::default()
    }
}

/// The client's, `PATH` as configured, and `PWD` only where it is true.
fn environment(request: &ExecReq, rules: &ActionRules) -> Vec<command::EnvironmentVariable> {
    let pairs = request.env.iter().filter_map(|pair| pair.split_once('='));
    let mut all: BTreeMap<&str, &str> = pairs.filter(|(name, _)| !name.is_empty()).collect();
    all.insert("PATH", &rules.path);
    if rules.inputs.root == Root::Common {
        all.remove("PWD");
    }
    let variable =
        |(name, value): (&str, &str)| command::EnvironmentVariable { name: name.to_owned(), value: value.to_owned() };
    all.into_iter().map(variable).collect()
}

#[cfg(test)]
mod tests;
