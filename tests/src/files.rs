//! Trees of files: made, read and compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// What stands at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file, with its mode.
    File(Vec<u8>, u32),
    /// A symbolic link.
    Link(PathBuf),
    /// A directory.
    Dir,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(content, mode) => {
                let shown = String::from_utf8_lossy(&content[..content.len().min(40)]).into_owned();
                write!(f, "file of {} bytes, mode {mode:03o}, {shown:?}", content.len())
            }
            Self::Link(target) => write!(f, "link to {target:?}"),
            Self::Dir => f.write_str("directory"),
        }
    }
}

/// Everything below a directory, by relative path.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Reads a tree; `skip` names entries (at any depth) that do not count.
#[track_caller]
pub fn read(dir: &Path, skip: &[&str]) -> Tree {
    let mut tree = Tree::new();
    match read_into(&mut tree, dir, Path::new(""), skip) {
        Ok(()) => tree,
        Err(error) => panic!("can not read {}: {error}", dir.display()),
    }
}

/// Reads a tree in which things come and go meanwhile: again, until nothing vanishes in between.
#[track_caller]
pub fn read_moving(dir: &Path) -> Tree {
    crate::wait::until("a tree can be read", std::time::Duration::from_secs(10), || {
        let mut tree = Tree::new();
        read_into(&mut tree, dir, Path::new(""), &[]).ok().map(|()| tree)
    })
}

fn read_into(tree: &mut Tree, root: &Path, below: &Path, skip: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        if skip.iter().any(|name| OsStr::new(name) == entry.file_name()) {
            continue;
        }
        let path = below.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            tree.insert(path.clone(), Entry::Dir);
            read_into(tree, root, &path, skip)?;
        } else if meta.is_symlink() {
            tree.insert(path, Entry::Link(fs::read_link(entry.path())?));
        } else {
            tree.insert(path, Entry::File(fs::read(entry.path())?, meta.permissions().mode() & 0o777));
        }
    }
    Ok(())
}

/// Panics with the first differences unless two trees are equal.
#[track_caller]
pub fn assert_equal(found: &Tree, wanted: &Tree) {
    if found == wanted {
        return;
    }
    let paths: std::collections::BTreeSet<&PathBuf> = found.keys().chain(wanted.keys()).collect();
    let differing: Vec<_> = paths.into_iter().filter(|path| found.get(*path) != wanted.get(*path)).collect();
    let shown: Vec<String> = differing
        .iter()
        .take(8)
        .map(|path| format!("{}: found {:?}, wanted {:?}", path.display(), found.get(*path), wanted.get(*path)))
        .collect();
    panic!("{} paths differ:\n  {}", differing.len(), shown.join("\n  "));
}

/// Writes a file, with its directories.
#[track_caller]
pub fn write(dir: &Path, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(Path::new(path.as_ref()));
    fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
    fs::write(&path, content).expect("a file");
    path
}

/// Writes a file that can be run.
#[track_caller]
pub fn write_script(dir: &Path, path: &str, script: &str) -> PathBuf {
    let path = write(dir, path, format!("#!/bin/sh\n{script}\n"));
    chmod(&path, 0o755);
    path
}

/// Sets a mode.
#[track_caller]
pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode can be set");
}

/// Makes a link.
#[track_caller]
pub fn link(dir: &Path, path: &str, target: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().expect("a link is in a directory")).expect("a directory");
    symlink(target, path).expect("a link");
}

/// A name that is not UTF-8.
pub fn strange_name() -> &'static OsStr {
    OsStr::from_bytes(b"strange-\xff\xfe name\n.txt")
}

/// Makes a git repository of a directory, with what is there committed.
#[track_caller]
pub fn git_init(dir: &Path) {
    git(dir, &["init", "-q"]);
    git_commit(dir);
}

/// Commits everything that is not ignored.
#[track_caller]
pub fn git_commit(dir: &Path) {
    git(dir, &["add", "-A"]);
    git(dir, &["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "state"]);
}

/// Runs git, which is to succeed.
#[track_caller]
pub fn git(dir: &Path, args: &[&str]) {
    let mut command = std::process::Command::new("git");
    command.current_dir(dir).args(args).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir);
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
