//! Which tree is meant, and where it goes.

use crate::error::{Error, io_words};
use motefarm_cas::snapshot::Snapshot;
use motefarm_core::WorkPath;
use motefarm_proto::mote;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a Go tree has always gone.
const GO_DEST: &str = "go";

/// A local tree and its place in the work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Absolute, links resolved.
    pub(crate) root: PathBuf,
    /// Where, in the work directory.
    pub(crate) dest: WorkPath,
    /// Whether the rules of `gomote push` for Go's own source hold.
    pub(crate) go_tree: bool,
    /// Why this one.
    pub(crate) chosen: Chosen,
}

/// Why a tree was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// `-C`.
    Named,
    /// The git checkout around the current directory.
    GitRoot,
    /// `$GOROOT`, for want of anything else.
    GoRoot,
}

/// What the choice depends on.
pub(crate) struct Surroundings {
    pub(crate) current_dir: PathBuf,
    pub(crate) goroot: Option<PathBuf>,
}

impl Tree {
    /// `named`, else the git root around the current directory, else `$GOROOT`.
    pub(crate) fn choose(named: Option<&Path>, to: Option<&str>, around: &Surroundings) -> Result<Self, Error> {
        let (root, chosen) = if let Some(dir) = named {
            (around.current_dir.join(dir), Chosen::Named)
        } else if let Some(root) = git_root(&around.current_dir) {
            (root, Chosen::GitRoot)
        } else if let Some(root) = &around.goroot {
            (around.current_dir.join(root), Chosen::GoRoot)
        } else {
            return Err(Error::usage(
                format!("{} is in no git checkout, and GOROOT is not set", around.current_dir.display()),
                "name the tree: mote push -C DIR INSTANCE",
            ));
        };
        let root = fs::canonicalize(&root).map_err(|e| {
            let problem = format!("can not push {}: {}", root.display(), io_words(&e));
            Error::usage(problem, "name an existing directory: mote push -C DIR INSTANCE")
        })?;
        let go_tree = is_go_tree(&root);
        let dest = match to {
            Some(to) => {
                WorkPath::parse(to).map_err(|e| Error::usage(format!("-to: {e}"), "name a directory such as src"))?
            }
            None if go_tree => parse_name(GO_DEST, &root)?,
            None => parse_name(&base_name(&root)?, &root)?,
        };
        Ok(Self { root, dest, go_tree, chosen })
    }

    /// The request that makes an instance's directory equal to `walked`.
    pub(crate) fn sync(&self, walked: &Snapshot, dry_run: bool) -> mote::TreeSync {
        let rules = walked.ignore_files.iter();
        let ignore_files =
            rules.map(|(dir, lines)| mote::IgnoreFile { dir: dir.clone(), content: lines.clone().into() });
        mote::TreeSync {
            dest: self.dest.as_str().to_owned(),
            root: Some(walked.root.into()),
            ignore_files: ignore_files.collect(),
            keep: walked.keep.clone(),
            dry_run,
        }
    }
}

/// The nearest directory above (or at) `dir` with a `.git`, be it a directory or a worktree's file.
fn git_root(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_owned)
}

/// A source tree of Go itself: its command, and what tells its version.
fn is_go_tree(root: &Path) -> bool {
    root.join("src/cmd/go").is_dir()
        && (root.join("VERSION").is_file() || root.join("src/internal/goversion/goversion.go").is_file())
}

fn base_name(root: &Path) -> Result<String, Error> {
    let name = root.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| Error::usage(format!("{} has no name to go by", root.display()), "name one: -to DIR"))
}

fn parse_name(name: &str, root: &Path) -> Result<WorkPath, Error> {
    WorkPath::parse(name).map_err(|e| Error::usage(format!("{}: {e}", root.display()), "name a place: -to DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(dir: &Path, goroot: Option<&Path>) -> Surroundings {
        Surroundings { current_dir: dir.to_owned(), goroot: goroot.map(Path::to_owned) }
    }

    fn make(dirs: &[&str], files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        dirs.iter().for_each(|dir| fs::create_dir_all(root.join(dir)).unwrap());
        files.iter().for_each(|file| fs::write(root.join(file), "").unwrap());
        (temp, root)
    }

    #[test]
    fn the_checkout_around_wins_over_goroot_and_the_flag_over_both() {
        let (_keep, root) = make(&["proj/.git", "proj/a/b", "other", "goroot/src/cmd/go"], &["goroot/VERSION"]);
        let goroot = root.join("goroot");
        let here = around(&root.join("proj/a/b"), Some(&goroot));
        let tree = Tree::choose(None, None, &here).unwrap();
        assert_eq!((tree.root.as_path(), tree.dest.as_str()), (root.join("proj").as_path(), "proj"));
        assert_eq!((tree.chosen, tree.go_tree), (Chosen::GitRoot, false));
        let tree = Tree::choose(Some(Path::new("../../../other")), Some("x/./y"), &here).unwrap();
        assert_eq!((tree.root.as_path(), tree.dest.as_str()), (root.join("other").as_path(), "x/y"));
        let tree = Tree::choose(None, None, &around(&root.join("other"), Some(&goroot))).unwrap();
        assert_eq!((tree.chosen, tree.go_tree, tree.dest.as_str()), (Chosen::GoRoot, true, "go"));
    }

    #[test]
    fn a_worktrees_git_file_marks_a_root_too() {
        let (_keep, root) = make(&["wt/sub"], &["wt/.git"]);
        let tree = Tree::choose(None, None, &around(&root.join("wt/sub"), None)).unwrap();
        assert_eq!(tree.root, root.join("wt"));
    }

    #[test]
    fn what_can_not_be_pushed_is_a_usage_error() {
        let (_keep, root) = make(&["x"], &[]);
        let here = around(&root.join("x"), None);
        for (named, to) in
            [(None, None), (Some("nowhere"), None), (Some("."), Some("../up")), (Some("."), Some("/abs"))]
        {
            let error = Tree::choose(named.map(Path::new), to, &here).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{named:?} {to:?}: {error}");
        }
    }
}
