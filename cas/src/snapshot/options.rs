//! What to leave out.

/// How a snapshot is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// More rules, a line of gitignore syntax each, relative to the root. Unlike git's they also
    /// leave out files in git's index.
    pub extra_skip: Vec<String>,
    /// The tree is a Go source tree: follow the rules of `gomote push` besides.
    pub go_tree: bool,
    /// Follow ignore files. Default.
    pub use_gitignore: bool,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { extra_skip: Vec::new(), go_tree: false, use_gitignore: true }
    }
}
