//! What a compile reads, as the real client's include scanner would find it: here the compiler itself is asked.

use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file or link of the toolchain, as `ToolchainSpec` has it.
#[derive(Debug, Clone)]
pub struct ToolSpec {
    /// Its path.
    pub path: String,
    /// A link's target, or hash, size and executable bit of a file.
    pub kind: Result<String, (String, i64, bool)>,
}

/// The chain from a path, as spelled in `cwd`, over its links to the file.
pub fn toolchain(cwd: &Path, compiler: &Path) -> Vec<ToolSpec> {
    let mut chain = Vec::new();
    let mut at: PathBuf = compiler.to_owned();
    for _ in 0..8 {
        let path = at.display().to_string();
        if let Ok(target) = fs::read_link(cwd.join(&at)) {
            chain.push(ToolSpec { path, kind: Ok(target.display().to_string()) });
            at = at.parent().expect("a compiler has a directory").join(target);
            continue;
        }
        let content = fs::read(cwd.join(&at)).expect("the compiler can be read");
        let hash = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let executable = fs::metadata(cwd.join(&at)).expect("it is there").permissions().mode() & 0o111 != 0;
        chain.push(ToolSpec { path, kind: Err((hash, content.len() as i64, executable)) });
        break;
    }
    chain
}

/// Every file that `args` would read in `cwd`, as spelled, the source included.
pub fn read_by(args: &[&str], cwd: &Path) -> Vec<String> {
    let mut scanning = Command::new(args[0]);
    scanning.arg("-M").current_dir(cwd);
    let mut rest = args[1..].iter();
    while let Some(arg) = rest.next() {
        match *arg {
            "-o" | "-MF" | "-MT" | "-MQ" => drop(rest.next()),
            "-c" | "-MMD" | "-MD" | "-gsplit-dwarf" => {}
            other => {
                scanning.arg(other);
            }
        }
    }
    let asked = scanning.output().expect("the compiler starts");
    let text = String::from_utf8_lossy(&asked.stdout).replace("\\\n", " ");
    let mut files: Vec<String> = text.split_whitespace().skip(1).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    files
}
