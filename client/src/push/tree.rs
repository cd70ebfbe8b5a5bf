//! Which tree is meant, and where it goes.

use crate::error::{Error, io_words};
use motefarm_cas::snapshot::Snapshot;
use motefarm_core::WorkPath;
use motefarm_proto::mote;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a Go tree has always gone.
const GO_DEST: &str = "go";
/// And the toolchain that builds it, of whatever version.
const BOOTSTRAP_DEST: &str = "go1.4";

/// A local tree and its place in the work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Absolute, links resolved.
    pub(crate) root: PathBuf,
    /// Where, in the work directory.
    pub(crate) dest: WorkPath,
    /// Whether the rules of `gomote push` for Go's own source hold.
    pub(crate) go_tree: bool,
    /// Whether what git ignores goes too: what was built there is what is wanted.
    pub(crate) whole: bool,
    /// Why this one.
    pub(crate) chosen: Chosen,
}

/// Why a tree was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// `-C`.
    Named,
    /// `$GOROOT`.
    GoRoot,
    /// The git checkout around the current directory.
    GitRoot,
}

/// What comes first where no tree is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The checkout one is in: `push` is for any project, and some have GOROOT set always.
    Checkout,
    /// `$GOROOT`: for what is about Go's own tree.
    GoRoot,
}

/// What the choice depends on.
pub(crate) struct Surroundings {
    pub(crate) current_dir: PathBuf,
    pub(crate) goroot: Option<PathBuf>,
}

impl Tree {
    /// `named`, else the git root around the current directory and `$GOROOT`, in the order of `prefer`.
    pub(crate) fn choose(
        named: Option<&Path>,
        to: Option<&str>,
        prefer: Prefer,
        around: &Surroundings,
    ) -> Result<Self, Error> {
        let goroot = || around.goroot.as_ref().map(|root| (around.current_dir.join(root), Chosen::GoRoot));
        let checkout = || git_root(&around.current_dir).map(|root| (root, Chosen::GitRoot));
        let found = match (named, prefer) {
            (Some(dir), _) => Some((around.current_dir.join(dir), Chosen::Named)),
            (None, Prefer::Checkout) => checkout().or_else(goroot),
            (None, Prefer::GoRoot) => goroot().or_else(checkout),
        };
        let Some((root, chosen)) = found else {
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
        Ok(Self { root, dest, go_tree, whole: false, chosen })
    }

    /// The toolchain in `$GOROOT_BOOTSTRAP`, as it is there.
    pub(crate) fn bootstrap(dir: &Path) -> Result<Self, Error> {
        let wrong = |problem: String| Error::usage(problem, "set GOROOT_BOOTSTRAP to a built Go tree, or unset it");
        let root = fs::canonicalize(dir)
            .map_err(|e| wrong(format!("can not push GOROOT_BOOTSTRAP={}: {}", dir.display(), io_words(&e))))?;
        if !root.join("bin/go").is_file() && !root.join("bin/go.exe").is_file() {
            return Err(wrong(format!("GOROOT_BOOTSTRAP={} has no bin/go", dir.display())));
        }
        let dest = parse_name(BOOTSTRAP_DEST, &root)?;
        Ok(Self { root, dest, go_tree: false, whole: true, chosen: Chosen::Named })
    }

    /// Whether it is Go's own source where Go's own source goes.
    pub(crate) fn wants_bootstrap(&self) -> bool {
        self.go_tree && self.dest.as_str() == GO_DEST
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

    const CHECKOUT: Prefer = Prefer::Checkout;

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
    fn the_checkout_around_wins_over_goroot_unless_it_is_about_go_and_the_flag_over_both() {
        let (_keep, root) = make(&["proj/.git", "proj/a/b", "other", "goroot/src/cmd/go"], &["goroot/VERSION"]);
        let goroot = root.join("goroot");
        let here = around(&root.join("proj/a/b"), Some(&goroot));
        let tree = Tree::choose(None, None, CHECKOUT, &around(&root.join("proj/a/b"), None)).unwrap();
        assert_eq!((tree.root.as_path(), tree.dest.as_str()), (root.join("proj").as_path(), "proj"));
        assert_eq!((tree.chosen, tree.go_tree, tree.wants_bootstrap()), (Chosen::GitRoot, false, false));
        assert_eq!(Tree::choose(None, None, CHECKOUT, &here).unwrap().root, root.join("proj"));
        let tree = Tree::choose(None, None, Prefer::GoRoot, &here).unwrap();
        assert_eq!((tree.chosen, tree.root, tree.dest.as_str()), (Chosen::GoRoot, goroot.clone(), "go"));
        let tree = Tree::choose(Some(Path::new("../../../other")), Some("x/./y"), CHECKOUT, &here).unwrap();
        assert_eq!((tree.root.as_path(), tree.dest.as_str()), (root.join("other").as_path(), "x/y"));
        let tree = Tree::choose(None, None, CHECKOUT, &around(&root.join("other"), Some(&goroot))).unwrap();
        assert!(tree.go_tree && tree.wants_bootstrap());
        let elsewhere = Tree::choose(None, Some("src"), CHECKOUT, &around(&root.join("other"), Some(&goroot))).unwrap();
        assert!(elsewhere.go_tree && !elsewhere.wants_bootstrap());
    }

    #[test]
    fn a_bootstrap_toolchain_is_a_built_one() {
        let (_keep, root) = make(&["go/bin", "src"], &["go/bin/go"]);
        let tree = Tree::bootstrap(&root.join("go")).unwrap();
        assert_eq!((tree.dest.as_str(), tree.whole), ("go1.4", true));
        assert!(Tree::bootstrap(&root.join("src")).is_err() && Tree::bootstrap(&root.join("none")).is_err());
    }

    #[test]
    fn a_worktrees_git_file_marks_a_root_too() {
        let (_keep, root) = make(&["wt/sub"], &["wt/.git"]);
        let tree = Tree::choose(None, None, CHECKOUT, &around(&root.join("wt/sub"), None)).unwrap();
        assert_eq!(tree.root, root.join("wt"));
    }

    #[test]
    fn what_can_not_be_pushed_is_a_usage_error() {
        let (_keep, root) = make(&["x"], &[]);
        let here = around(&root.join("x"), None);
        for (named, to) in
            [(None, None), (Some("nowhere"), None), (Some("."), Some("../up")), (Some("."), Some("/abs"))]
        {
            let error = Tree::choose(named.map(Path::new), to, CHECKOUT, &here).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{named:?} {to:?}: {error}");
        }
    }
}
