//! What is left alone although the tree does not have it.

use super::SyncPlan;
use super::write::TEMP_PREFIX;
use crate::ignore_rules::IgnoreRules;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The plan's `keep` and ignore files, by directory.
pub struct Keeper {
    kept: BTreeSet<Vec<u8>>,
    ignore_files: HashMap<Vec<u8>, Vec<Vec<u8>>>,
}

/// What holds in one directory.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: IgnoreRules,
    /// The directory, or one above it, is ignored, and so is everything in it.
    inside_ignored: bool,
}

/// What becomes of an entry the tree does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It and all below it stay.
    Stays,
    /// It goes; what lies below it is judged by itself.
    Goes,
}

impl Keeper {
    /// Those of a plan.
    pub fn new(plan: &SyncPlan) -> Self {
        let kept = plan.keep.iter().map(|path| path.trim_matches('/').as_bytes().to_vec());
        let mut ignore_files: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for (dir, content) in &plan.ignore_files {
            ignore_files.entry(dir.trim_matches('/').as_bytes().to_vec()).or_default().push(content.clone());
        }
        Self { kept: kept.filter(|path| !path.is_empty()).collect(), ignore_files }
    }

    /// The rules of the directory `path`, which lies in one with the rules `above`.
    pub fn enter(&self, above: &Rules, path: &[u8]) -> Rules {
        let os_path = Path::new(OsStr::from_bytes(path));
        let mut rules = above.rules.clone();
        for content in self.ignore_files.get(path).into_iter().flatten() {
            rules = rules.with(os_path, content);
        }
        let inside_ignored = above.inside_ignored || (!path.is_empty() && above.rules.ignores(os_path, true));
        Rules { rules, inside_ignored }
    }

    /// Judges `path`, an entry of a directory with `rules`.
    pub fn judge(&self, rules: &Rules, path: &[u8], is_dir: bool) -> Verdict {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        if name.starts_with(TEMP_PREFIX.as_bytes()) && !is_dir {
            return Verdict::Goes;
        }
        let ignored = rules.inside_ignored || rules.rules.ignores(Path::new(OsStr::from_bytes(path)), is_dir);
        if ignored || self.kept.contains(path) { Verdict::Stays } else { Verdict::Goes }
    }
}
