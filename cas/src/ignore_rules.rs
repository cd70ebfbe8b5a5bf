//! gitignore rules of a tree, from the weakest to the strongest.

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;
use std::sync::Arc;

/// The rules that hold in one directory: those of its own ignore file, then its parents', and so
/// on. Paths are relative to the tree. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct IgnoreRules(Option<Arc<Level>>);

#[derive(Debug)]
struct Level {
    rules: Gitignore,
    weaker: IgnoreRules,
}

impl IgnoreRules {
    /// Adds the lines of an ignore file in `dir` (empty for the root) as the strongest rules. Lines
    /// that are no pattern are left out, as git does.
    #[must_use]
    pub(crate) fn with(&self, dir: &Path, content: &[u8]) -> Self {
        let mut builder = GitignoreBuilder::new(dir);
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        for line in String::from_utf8_lossy(content).lines() {
            if let Err(error) = builder.add_line(None, line) {
                tracing::debug!(line, %error, "ignore rule left out");
            }
        }
        match builder.build() {
            Ok(rules) if !rules.is_empty() => Self(Some(Arc::new(Level { rules, weaker: self.clone() }))),
            Ok(_) => self.clone(),
            Err(error) => {
                tracing::debug!(dir = %dir.display(), %error, "ignore file left out");
                self.clone()
            }
        }
    }

    /// Whether the strongest rule that speaks of `path` ignores it. Says nothing of its parents: what
    /// lies in an ignored directory is ignored, which is the walker's to know.
    pub(crate) fn ignores(&self, path: &Path, is_dir: bool) -> bool {
        let mut next = &self.0;
        while let Some(level) = next {
            match level.rules.matched(path, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => next = &level.weaker.0,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rule_decides() {
        let root = IgnoreRules::default().with(Path::new(""), b"*.o\nbuild/\n/only-root\n\\ \n[\n");
        let below = root.with(Path::new("a/b"), b"!keep.o\r\n/anchored\n");
        let ignored = |rules: &IgnoreRules, path: &str, is_dir| rules.ignores(Path::new(path), is_dir);
        assert!(ignored(&root, "x.o", false) && ignored(&below, "a/b/x.o", false));
        assert!(!ignored(&below, "a/b/keep.o", false));
        assert!(ignored(&root, "a/build", true) && !ignored(&root, "a/build", false));
        assert!(ignored(&root, "only-root", false) && !ignored(&root, "a/only-root", false));
        assert!(ignored(&below, "a/b/anchored", false) && !ignored(&below, "a/b/c/anchored", false));
        assert!(!ignored(&IgnoreRules::default(), "x.o", false));
    }
}
