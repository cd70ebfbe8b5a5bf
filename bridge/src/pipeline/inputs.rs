//! Which inputs go into the tree, and where its root is. Pure.
//!
//! A client names every header it read, those of the system by absolute paths. Where the worker takes the
//! input root for `/` they can all be shipped. Where it does not, system files can only be the worker's own;
//! then what was dropped is folded into the action's salt, because the result depends on it all the same.

use super::client_path::{ClientPath, Located, locate};
use super::refusal::Refusal;
use super::toolchain::{Tool, ToolKind, Toolchain};
use motefarm_proto::goma::ExecReq;
use sha2::{Digest as _, Sha256};

/// What becomes of files below the system's prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemFiles {
    /// They are inputs like others.
    Ship,
    /// The worker has its own; they are dropped and salted.
    WorkerProvided,
    /// A request with one is refused.
    Reject,
}

/// What the worker takes the input root for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `/`: absolute paths lead into the tree.
    Filesystem,
    /// Some directory: only relative paths do, and the root is what all inputs have in common.
    Common,
}

/// What an operator decides of inputs.
#[derive(Debug, Clone)]
pub struct InputRules {
    /// See [`Root`].
    pub root: Root,
    /// See [`SystemFiles`].
    pub system_files: SystemFiles,
    /// What counts as the system's.
    pub system_prefixes: Vec<ClientPath>,
}

impl InputRules {
    fn is_system(&self, path: &ClientPath) -> bool {
        self.system_prefixes.iter().any(|prefix| path.below(prefix).is_some())
    }
}

/// An input that goes into the tree.
#[derive(Debug, Clone)]
pub struct Shipped {
    /// Its place in the request's list.
    pub index: usize,
    /// Where it is.
    pub located: Located,
}

/// The decision for one request.
#[derive(Debug)]
pub struct Layout {
    /// What the input root is on the client's machine.
    pub root: ClientPath,
    /// Inputs that are shipped.
    pub inputs: Vec<Shipped>,
    /// Toolchain files and links that are shipped.
    pub tools: Vec<Tool>,
    /// Of what was dropped; empty if nothing was.
    pub salt: Vec<u8>,
    /// How much was dropped.
    pub dropped: usize,
}

impl Layout {
    /// Decides for a request said in `cwd`.
    pub fn decide(
        rules: &InputRules,
        request: &ExecReq,
        cwd: &ClientPath,
        toolchain: &Toolchain,
    ) -> Result<Self, Refusal> {
        let mut inputs = Vec::with_capacity(request.input.len());
        let mut dropped = Vec::new();
        for (index, input) in request.input.iter().enumerate() {
            let wrong = |what: String| Refusal::never(format!("input {:?} {what}", input.filename()));
            let located = locate(cwd, input.filename()).map_err(|error| wrong(error.to_string()))?;
            match (rules.is_system(&located.path), rules.system_files) {
                (false, _) | (true, SystemFiles::Ship) => inputs.push(Shipped { index, located }),
                (true, SystemFiles::WorkerProvided) => {
                    dropped.push(format!("input {} {}\n", located.path, input.hash_key));
                }
                (true, SystemFiles::Reject) => {
                    return Err(wrong(
                        "is a file of this system, and the bridge is configured to refuse those \
                        ([inputs] system_files = \"reject\")"
                            .to_owned(),
                    ));
                }
            }
        }
        let (kept, of_system): (Vec<Tool>, Vec<Tool>) = match rules.system_files {
            SystemFiles::WorkerProvided => {
                toolchain.tools.iter().cloned().partition(|tool| !rules.is_system(&tool.located.path))
            }
            SystemFiles::Ship | SystemFiles::Reject => (toolchain.tools.clone(), Vec::new()),
        };
        dropped.extend(of_system.iter().map(|tool: &Tool| match &tool.kind {
            ToolKind::File { digest, .. } => format!("tool {} {digest}\n", tool.located.path),
            ToolKind::Link(target) => format!("tool {} -> {target}\n", tool.located.path),
        }));
        let root = match rules.root {
            Root::Filesystem => ClientPath::default(),
            Root::Common => common_root(request, cwd, &inputs, &kept)?,
        };
        Ok(Self { root, inputs, tools: kept, salt: salt(&mut dropped), dropped: dropped.len() })
    }
}

/// The same for the same files in any order.
fn salt(dropped: &mut [String]) -> Vec<u8> {
    if dropped.is_empty() {
        return Vec::new();
    }
    dropped.sort_unstable();
    let mut sha = Sha256::new_with_prefix("mote-bridge worker-provided 1\n");
    dropped.iter().for_each(|line| sha.update(line));
    sha.finalize().to_vec()
}

fn common_root(request: &ExecReq, cwd: &ClientPath, inputs: &[Shipped], tools: &[Tool]) -> Result<ClientPath, Refusal> {
    let places = inputs.iter().map(|input| &input.located).chain(tools.iter().map(|tool| &tool.located));
    let outputs: Vec<Located> = (request.expected_output_files.iter().chain(&request.expected_output_dirs))
        .map(|name| locate(cwd, name).map_err(|error| Refusal::never(format!("output {name:?} {error}"))))
        .collect::<Result<_, _>>()?;
    let mut root = cwd.clone();
    for located in places.chain(&outputs) {
        // Most lie below what those before have in common.
        let directories = || located.through.iter().chain([&located.path]);
        if !root.is_root() && directories().all(|path| path.below(&root).is_some_and(|rest| !rest.is_empty())) {
            continue;
        }
        let shared = root.common(&located.path.parent());
        let shared = located.through.iter().fold(shared, |root, path| root.common(path));
        let before = std::mem::replace(&mut root, shared);
        if root.is_root() {
            return Err(Refusal::never(format!(
                "{} and {before} have no directory in common, and the workers are configured to know only one \
                 ([inputs] root = \"common\")",
                located.path
            )));
        }
    }
    let stated = request.requester_info.as_ref().map(|info| info.exec_root()).unwrap_or_default();
    if let Ok(stated) = ClientPath::absolute(stated)
        && root.below(&stated).is_some()
        && !stated.is_root()
    {
        root = stated;
    }
    let text = root.to_string();
    let absolute = |arg: &&String| {
        arg.match_indices(&text).any(|(at, _)| matches!(arg.as_bytes().get(at + text.len()), None | Some(b'/')))
    };
    match request.arg.iter().skip(1).find(absolute) {
        Some(arg) => Err(Refusal::never(format!(
            "argument {arg:?} holds the absolute path {text}, which the workers do not have ([inputs] root = \
             \"common\"): build with relative paths, or on workers that take the input root for /"
        ))),
        None => Ok(root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_core::Digest;
    use motefarm_proto::goma::{ToolchainSpec, exec_req};

    fn path(text: &str) -> ClientPath {
        ClientPath::absolute(text).unwrap()
    }

    fn rules(root: Root, system_files: SystemFiles) -> InputRules {
        InputRules { root, system_files, system_prefixes: vec![path("/usr"), path("/lib")] }
    }

    fn request(inputs: &[&str], tool: &str) -> ExecReq {
        let input = |name: &&str| exec_req::Input {
            filename: Some((*name).to_owned()),
            hash_key: format!("key of {name}"),
            content: None,
        };
        let digest = Digest::of(b"tool");
        ExecReq {
            input: inputs.iter().map(input).collect(),
            toolchain_included: Some(true),
            toolchain_specs: vec![ToolchainSpec {
                path: Some(tool.to_owned()),
                hash: Some(digest.hash_hex()),
                size: Some(digest.size_bytes() as i64),
                ..ToolchainSpec::default()
            }],
            ..ExecReq::default()
        }
    }

    fn decide(rules: &InputRules, request: &ExecReq) -> Result<Layout, String> {
        let cwd = path("/home/u/src/out");
        let toolchain = Toolchain::of(request, &cwd).unwrap();
        Layout::decide(rules, request, &cwd, &toolchain).map_err(|refusal| match refusal {
            Refusal::Never(why) => why,
            other => panic!("{other:?}"),
        })
    }

    const SYSTEM: [&str; 2] = ["../a.cc", "/usr/include/stdio.h"];

    #[test]
    fn system_files_are_shipped_dropped_with_salt_or_refused() {
        let request = request(&SYSTEM, "/usr/bin/gcc");
        let shipped = decide(&rules(Root::Filesystem, SystemFiles::Ship), &request).unwrap();
        assert_eq!((shipped.inputs.len(), shipped.tools.len(), shipped.salt.len()), (2, 1, 0));
        assert!(shipped.root.is_root());
        let dropped = decide(&rules(Root::Filesystem, SystemFiles::WorkerProvided), &request).unwrap();
        assert_eq!((dropped.inputs.len(), dropped.tools.len(), dropped.salt.len(), dropped.dropped), (1, 0, 32, 2));
        let refused = decide(&rules(Root::Filesystem, SystemFiles::Reject), &request).unwrap_err();
        assert!(refused.contains("/usr/include/stdio.h"), "{refused}");
    }

    /// Else a client with another system would get what was compiled with this one's headers.
    #[test]
    fn the_salt_is_of_every_dropped_file_and_of_nothing_else() {
        let rules = rules(Root::Filesystem, SystemFiles::WorkerProvided);
        let salt = |request: &ExecReq| decide(&rules, request).unwrap().salt;
        let one = request(&SYSTEM, "/usr/bin/gcc");
        let mut other_header = one.clone();
        other_header.input[1].hash_key = "another".to_owned();
        let mut other_compiler = one.clone();
        other_compiler.toolchain_specs[0].hash = Some(Digest::of(b"another").hash_hex());
        let mut other_source = one.clone();
        other_source.input[0].hash_key = "another".to_owned();
        let mut turned = one.clone();
        turned.input.reverse();
        assert_ne!(salt(&one), salt(&other_header));
        assert_ne!(salt(&one), salt(&other_compiler));
        assert_eq!(salt(&one), salt(&other_source));
        assert_eq!(salt(&one), salt(&turned));
    }

    #[test]
    fn a_common_root_holds_everything_or_is_refused_by_name() {
        let rules = rules(Root::Common, SystemFiles::WorkerProvided);
        let mut one = request(&["../a.cc", "gen/../b.h", "/usr/include/stdio.h"], "/usr/bin/gcc");
        assert_eq!(decide(&rules, &one).unwrap().root, path("/home/u/src"));
        one.expected_output_files = vec!["../../objects/a.o".to_owned()];
        assert_eq!(decide(&rules, &one).unwrap().root, path("/home/u"));
        one.requester_info.get_or_insert_default().exec_root = Some("/home".to_owned());
        assert_eq!(decide(&rules, &one).unwrap().root, path("/home"));
        let apart = decide(&rules, &request(&["../a.cc", "/opt/x.h"], "/usr/bin/gcc")).unwrap_err();
        assert!(apart.contains("/opt/x.h and /home/u/src"), "{apart}");
        let mut absolute = request(&["../a.cc"], "/usr/bin/gcc");
        absolute.arg = ["gcc", "-I/home/u/src/include"].map(str::to_owned).to_vec();
        assert!(decide(&rules, &absolute).unwrap_err().contains("-I/home/u/src/include"));
        absolute.arg = ["gcc", "-I/home/u/srcs/include"].map(str::to_owned).to_vec();
        decide(&rules, &absolute).unwrap();
    }

    #[test]
    fn inputs_that_climb_above_the_root_are_refused_by_name() {
        let climbing = decide(&rules(Root::Filesystem, SystemFiles::Ship), &request(&["../../../../../x"], "/usr/cc"));
        assert!(climbing.unwrap_err().contains("\"../../../../../x\" climbs"));
    }
}
