//! The compiler a request brings: its files, its links, and which of them is called. Pure.

use super::client_path::{ClientPath, Located, locate};
use super::refusal::Refusal;
use motefarm_core::Digest;
use motefarm_proto::goma::ExecReq;

/// A file or link of the toolchain.
#[derive(Debug, Clone)]
pub struct Tool {
    /// As in the request.
    pub spelled: String,
    /// Where it is.
    pub located: Located,
    /// What is there.
    pub kind: ToolKind,
}

/// What a [`Tool`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolKind {
    /// A file; its digest is told by the client and must be in the CAS.
    File {
        /// Of its content.
        digest: Digest,
        /// Whether it can be called.
        executable: bool,
    },
    /// A link.
    Link(String),
}

/// A request's toolchain.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// Its parts, in the client's order.
    pub tools: Vec<Tool>,
    /// How the driver is called: the first part as it was spelled, with a `/` in it, so that nobody looks for
    /// it on a PATH.
    pub driver: String,
}

const NO_TOOLCHAIN: &str = "this server knows no compilers of its own, and the request does not name one whole: \
    set GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true and restart the compiler proxy (goma_ctl.py ensure_stop)";

impl Toolchain {
    /// That of a request said in `cwd`.
    pub fn of(request: &ExecReq, cwd: &ClientPath) -> Result<Self, Refusal> {
        let first = match request.toolchain_specs.first() {
            Some(first) if request.toolchain_included() => first.path(),
            _ => return Err(Refusal::never(NO_TOOLCHAIN)),
        };
        let driver = if first.contains('/') { first.to_owned() } else { format!("./{first}") };
        let tools = request.toolchain_specs.iter().map(|spec| {
            let wrong = |what: String| Refusal::never(format!("toolchain file {:?} {what}", spec.path()));
            let located = locate(cwd, spec.path()).map_err(|error| wrong(error.to_string()))?;
            let kind = match spec.symlink_path() {
                "" => {
                    let digest = Digest::parse(spec.hash(), spec.size());
                    ToolKind::File {
                        digest: digest.map_err(|error| wrong(format!("has no digest: {error}")))?,
                        executable: spec.is_executable(),
                    }
                }
                target => ToolKind::Link(inside(&located.path, target).map_err(wrong)?),
            };
            Ok(Tool { spelled: spec.path().to_owned(), located, kind })
        });
        Ok(Self { tools: tools.collect::<Result<_, Refusal>>()?, driver })
    }
}

/// A link's target so that it stays in the tree: an absolute one is spelled from where the link is.
fn inside(link: &ClientPath, target: &str) -> Result<String, String> {
    let located = locate(&link.parent(), target).map_err(|error| format!("is a link to {target:?}, which {error}"))?;
    Ok(if target.starts_with('/') { located.path.seen_from(&link.parent()) } else { target.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::goma::ToolchainSpec;

    fn link(path: &str, target: &str) -> ToolchainSpec {
        ToolchainSpec { path: Some(path.into()), symlink_path: Some(target.into()), ..ToolchainSpec::default() }
    }

    fn file(path: &str) -> ToolchainSpec {
        let digest = Digest::of(path.as_bytes());
        ToolchainSpec {
            path: Some(path.into()),
            hash: Some(digest.hash_hex()),
            size: Some(digest.size_bytes() as i64),
            is_executable: Some(true),
            symlink_path: None,
        }
    }

    fn parse(specs: Vec<ToolchainSpec>) -> Result<Toolchain, Refusal> {
        let request = ExecReq { toolchain_included: Some(true), toolchain_specs: specs, ..ExecReq::default() };
        Toolchain::of(&request, &ClientPath::absolute("/home/u/out").unwrap())
    }

    #[test]
    fn a_chain_of_links_is_kept_and_the_first_is_called() {
        let chain = parse(vec![
            link("/usr/bin/clang++", "../lib/llvm-14/bin/clang++"),
            link("/usr/bin/../lib/llvm-14/bin/clang++", "clang"),
            file("/usr/bin/../lib/llvm-14/bin/clang"),
            link("/usr/bin/cc", "/etc/alternatives/cc"),
        ])
        .unwrap();
        assert_eq!(chain.driver, "/usr/bin/clang++");
        let kinds: Vec<&ToolKind> = chain.tools.iter().map(|tool| &tool.kind).collect();
        assert_eq!(*kinds[0], ToolKind::Link("../lib/llvm-14/bin/clang++".into()));
        assert!(matches!(kinds[2], ToolKind::File { executable: true, .. }));
        assert_eq!(chain.tools[2].located.path.to_string(), "/usr/lib/llvm-14/bin/clang");
        assert_eq!(*kinds[3], ToolKind::Link("../../etc/alternatives/cc".into()), "absolute ones stay inside");
        assert_eq!(parse(vec![file("clang")]).unwrap().driver, "./clang");
        assert_eq!(parse(vec![file("../../llvm/clang")]).unwrap().driver, "../../llvm/clang");
    }

    #[test]
    fn what_is_no_toolchain_says_what_to_do() {
        let none = Toolchain::of(&ExecReq::default(), &ClientPath::default()).unwrap_err();
        assert!(matches!(none, Refusal::Never(why) if why.contains("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true")));
        for bad in [
            link("cc", "../../../../x"),
            file("../../../../cc"),
            ToolchainSpec { hash: Some("xyz".into()), ..file("cc") },
            ToolchainSpec { size: Some(-1), ..file("cc") },
        ] {
            assert!(matches!(parse(vec![bad.clone()]), Err(Refusal::Never(_))), "{bad:?}");
        }
    }
}
