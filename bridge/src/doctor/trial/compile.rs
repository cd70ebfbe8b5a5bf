//! The trial as the client would describe it: what the compiler reads, and the compiler itself.

use super::super::programs;
use super::{OBJECT, SOURCE, Trial, here};
use crate::file_blob::Blob;
use crate::local_file::FileBlobs;
use motefarm_core::Digest;
use motefarm_proto::goma::requester_info::PathStyle;
use motefarm_proto::goma::{CommandSpec, ExecReq, RequesterInfo, ToolchainSpec, exec_req};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// Links that are followed from a compiler's name to its file.
const MAX_LINKS: usize = 8;

/// A file that goes along.
#[derive(Debug)]
pub(super) struct Input {
    /// As the compiler spells it.
    pub name: String,
    /// Its blobs; the last is what it is known by.
    pub blobs: Vec<Blob>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Compile {
    /// All but the inputs.
    pub request: ExecReq,
    /// Them.
    pub inputs: Vec<Input>,
}

impl Compile {
    pub(super) async fn of(trial: &Trial, dir: &Path) -> io::Result<Self> {
        let compiler = trial.compiler.display().to_string();
        let toolchain = toolchain(&trial.compiler)?;
        let read = here(&trial.compiler, &["-M", SOURCE], dir).await?;
        let mut names = prerequisites(&String::from_utf8_lossy(&read.stdout));
        let (mut specs, mut binary) = (Vec::new(), (String::new(), 0));
        for part in toolchain {
            let spec = match part.target {
                Some(target) => ToolchainSpec { symlink_path: Some(target), ..ToolchainSpec::default() },
                None => {
                    let content = fs::read(&part.path)?;
                    let digest = Digest::of(&content);
                    let size = i64::try_from(digest.size_bytes()).unwrap_or(i64::MAX);
                    binary = (digest.hash_hex(), size);
                    let executable = fs::metadata(&part.path)?.permissions().mode() & 0o111 != 0;
                    names.push(part.path.clone());
                    ToolchainSpec {
                        hash: Some(digest.hash_hex()),
                        size: Some(size),
                        is_executable: Some(executable),
                        ..ToolchainSpec::default()
                    }
                }
            };
            specs.push(ToolchainSpec { path: Some(part.path), ..spec });
        }
        names.sort();
        names.dedup();
        let inputs = names.into_iter().map(|name| {
            let blobs = FileBlobs::open(&dir.join(&name))?.collect::<io::Result<_>>()?;
            Ok(Input { name, blobs })
        });
        let inputs = inputs.collect::<io::Result<Vec<_>>>()?;
        let request = ExecReq {
            command_spec: CommandSpec {
                name: Some(family(&trial.compiler).to_owned()),
                version: word(&trial.compiler, "-dumpversion").await,
                target: word(&trial.compiler, "-dumpmachine").await,
                // Hexadecimal digits, as bytes.
                binary_hash: Some(binary.0.into_bytes().into()),
                local_compiler_path: Some(compiler.clone()),
                size: Some(binary.1),
                ..CommandSpec::default()
            },
            arg: [compiler.as_str(), "-c", SOURCE, "-o", OBJECT].map(str::to_owned).to_vec(),
            env: vec![format!("PWD={}", dir.display())],
            cwd: Some(dir.display().to_string()),
            hermetic_mode: Some(true),
            expected_output_files: vec![OBJECT.to_owned()],
            toolchain_included: Some(trial.toolchain_included),
            toolchain_specs: if trial.toolchain_included { specs } else { Vec::new() },
            ..ExecReq::default()
        };
        Ok(Self { request, inputs })
    }

    /// The request of an attempt; `embedded` says of each input whether its content goes along.
    pub(super) fn attempt(&self, attempt: i32, embedded: &[bool]) -> ExecReq {
        let inputs = self.inputs.iter().zip(embedded).filter_map(|(input, is_embedded)| {
            let blob = input.blobs.last()?;
            Some(exec_req::Input {
                filename: Some(input.name.clone()),
                hash_key: blob.key().to_string(),
                content: is_embedded.then(|| blob.clone().into_message()),
            })
        });
        let requester = RequesterInfo {
            compiler_proxy_id: Some(format!("doctor@localhost:0/{}/1", std::process::id())),
            api_version: Some(2),
            pid: i32::try_from(std::process::id()).ok(),
            retry: Some(attempt),
            dimensions: vec!["os:linux".to_owned()],
            path_style: Some(PathStyle::PosixStyle.into()),
            ..RequesterInfo::default()
        };
        ExecReq { input: inputs.collect(), requester_info: Some(requester), ..self.request.clone() }
    }
}

/// The client's name for a compiler.
fn family(compiler: &Path) -> &'static str {
    let real = fs::canonicalize(compiler).unwrap_or_else(|_| compiler.to_owned());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.contains("clang") { "clang" } else { "gcc" }
}

async fn word(compiler: &Path, flag: &str) -> Option<String> {
    let mut command = Command::new(compiler);
    command.arg(flag);
    let ran = programs::run(command, Duration::from_secs(10)).await.ok()?;
    Some(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// A link or file on the way from a compiler's name to its program.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    path: String,
    target: Option<String>,
}

/// Spelled as the links spell it, `..` and all.
fn toolchain(compiler: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut at = PathBuf::from(compiler);
    while parts.len() <= MAX_LINKS {
        let path = at.display().to_string();
        let Ok(target) = fs::read_link(&at) else {
            parts.push(Part { path, target: None });
            return Ok(parts);
        };
        at = at.parent().unwrap_or(Path::new("/")).join(&target);
        parts.push(Part { path, target: Some(target.display().to_string()) });
    }
    Err(io::Error::other(format!("{} is a link to a link, and so on without end", compiler.display())))
}

/// The files of a rule of make, as `-M` writes it: a blank in a name is `\ `.
fn prerequisites(rule: &str) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), String::new());
    let text = rule.split_once(": ").map_or("", |(_, files)| files);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('\n') | None => names.push(std::mem::take(&mut name)),
                Some(other) => name.push(other),
            },
            letter if letter.is_whitespace() => names.push(std::mem::take(&mut name)),
            letter => name.push(letter),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_rule_of_make_names_its_files() {
        let rule = "trial.o: trial.c /usr/include/stdc-predef.h \\\n a\\ b.h \\\n /usr/include/stdio.h\n";
        assert_eq!(prerequisites(rule), ["trial.c", "/usr/include/stdc-predef.h", "a b.h", "/usr/include/stdio.h"]);
        assert_eq!(prerequisites("nothing"), Vec::<String>::new());
    }

    #[test]
    fn links_are_followed_to_the_file_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("gcc-12"), "").unwrap();
        symlink("../gcc-12", dir.path().join("bin/gcc")).unwrap();
        let chain = toolchain(&dir.path().join("bin/gcc")).unwrap();
        assert_eq!(chain[0].target.as_deref(), Some("../gcc-12"));
        assert!(chain[1].path.ends_with("/bin/../gcc-12") && chain[1].target.is_none());
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(toolchain(&dir.path().join("loop")).is_err());
    }
}
