//! What git knows of a tree: its index.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

/// The paths in git's index, asked for in the background: they are needed only once something
/// turns out to be ignored.
pub(super) struct Index {
    asked: std::sync::Mutex<Option<JoinHandle<Result<Paths, String>>>>,
    answer: OnceLock<Result<Paths, String>>,
}

/// Sorted relative paths.
#[derive(Debug, Default)]
pub(super) struct Paths(Vec<Box<[u8]>>);

impl Index {
    /// Of a tree without git: empty.
    pub(super) fn none() -> Self {
        Self { asked: std::sync::Mutex::new(None), answer: OnceLock::from(Ok(Paths::default())) }
    }

    /// Starts asking git, if `root` has a `.git`.
    pub(super) fn ask(root: &Path) -> Self {
        if std::fs::symlink_metadata(root.join(".git")).is_err() {
            return Self::none();
        }
        let root = root.to_owned();
        let asked = std::thread::Builder::new().name("git-index".to_owned()).spawn(move || list(&root)).ok();
        Self { asked: std::sync::Mutex::new(asked), answer: OnceLock::new() }
    }

    fn answer(&self) -> &Result<Paths, String> {
        self.answer.get_or_init(|| {
            let asked = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            asked.and_then(|asked| asked.join().ok()).unwrap_or_else(|| Err("git could not be asked".to_owned()))
        })
    }

    /// The paths, waiting for git if need be; none if git could not say.
    pub(super) fn paths(&self) -> &Paths {
        static NONE: Paths = Paths(Vec::new());
        self.answer().as_ref().unwrap_or(&NONE)
    }

    /// What a person should know about it.
    pub(super) fn warning(&self) -> Option<String> {
        let problem = self.answer().as_ref().err()?;
        Some(format!("{problem}; files that are both ignored and in git's index are left out"))
    }
}

impl Paths {
    fn new(listed: &[u8]) -> Self {
        let mut paths: Vec<Box<[u8]>> = listed.split(|b| *b == 0).filter(|p| !p.is_empty()).map(Box::from).collect();
        paths.sort_unstable();
        Self(paths)
    }

    /// Whether the index has this file (or submodule).
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.0.binary_search_by(|known| known[..].cmp(path)).is_ok()
    }

    /// Whether the index has something below this directory.
    pub(super) fn any_below(&self, directory: &[u8]) -> bool {
        let prefix = [directory, b"/"].concat();
        let at = self.0.partition_point(|known| known[..] < prefix[..]);
        self.0.get(at).is_some_and(|known| known.starts_with(&prefix))
    }
}

fn list(root: &Path) -> Result<Paths, String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        // An index listing needs no monitor daemon, and must not start one.
        .args(["-c", "core.fsmonitor=false", "ls-files", "-z"])
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(Paths::new(&output.stdout)),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(format!("git ls-files failed: {}", stderr.lines().next().unwrap_or("no reason given")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err("git is not installed".to_owned()),
        Err(error) => Err(format!("git could not be started: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_whole_and_by_directory() {
        let paths = Paths::new(b"a-b\0a/b/c\0z\0");
        assert!(paths.contains(b"a/b/c") && !paths.contains(b"a/b"));
        assert!(
            paths.any_below(b"a") && paths.any_below(b"a/b") && !paths.any_below(b"a-b") && !paths.any_below(b"a/b/c")
        );
    }
}
