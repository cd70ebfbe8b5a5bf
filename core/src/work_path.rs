//! Paths inside an instance's work directory.

use std::fmt;

/// The longest path accepted, in bytes: Linux's `PATH_MAX` less room for the root it is joined to.
pub const MAX_PATH_BYTES: usize = 3072;

/// A path below the work directory: relative, slash-separated, free of `.`, `..`, empty parts and
/// NUL. The empty path is the work directory itself. A `WorkPath` can not name anything outside by
/// its text; links on the way are the opener's matter (directory-relative opens).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WorkPath(String);

/// Why a text is no path inside the work directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkPathError {
    /// It begins at the root of the file system.
    #[error("path {0:?} is absolute; paths are relative to the work directory")]
    Absolute(String),
    /// It climbs out by `..`.
    #[error("path {0:?} leads out of the work directory")]
    Climbs(String),
    /// It holds a NUL byte.
    #[error("path {0:?} holds a NUL byte")]
    Nul(String),
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("a path of {0} bytes is longer than the {MAX_PATH_BYTES} allowed")]
    TooLong(usize),
}

impl WorkPath {
    /// The work directory itself.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Parses what a user typed: `a/./b//c/` is `a/b/c`, `a/../b` is `b`, `""` and `.` are the
    /// root. A `..` that would climb above the root is refused, not clamped.
    pub fn parse(text: &str) -> Result<Self, WorkPathError> {
        let shown = || text.chars().take(200).collect::<String>();
        if text.len() > MAX_PATH_BYTES {
            return Err(WorkPathError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(WorkPathError::Nul(shown()));
        }
        if text.starts_with('/') {
            return Err(WorkPathError::Absolute(shown()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| WorkPathError::Climbs(shown()))?;
                }
                name => parts.push(name),
            }
        }
        Ok(Self(parts.join("/")))
    }

    /// The text; empty for the work directory itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the work directory itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts, outermost first; none for the root.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// The directory that holds it; the root's parent is the root.
    pub fn parent(&self) -> Self {
        self.0.rsplit_once('/').map_or_else(Self::root, |(parent, _)| Self(parent.to_owned()))
    }
}

impl fmt::Display for WorkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_users_type_is_made_plain() {
        for (typed, plain) in [("", ""), (".", ""), ("a/./b//c/", "a/b/c"), ("a/../b", "b"), ("./go", "go")] {
            assert_eq!(WorkPath::parse(typed).unwrap().as_str(), plain);
        }
        assert_eq!(WorkPath::parse("a/b").unwrap().parent().as_str(), "a");
        assert_eq!(WorkPath::root().to_string(), ".");
    }

    #[test]
    fn what_leads_out_is_refused() {
        for bad in ["/", "/etc", "..", "a/../..", "a\0b", &"a/".repeat(2000)] {
            assert!(WorkPath::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_path_never_climbs(text in "[a./\0]{0,24}") {
            if let Ok(path) = WorkPath::parse(&text) {
                prop_assert!(path.parts().all(|p| p != ".." && p != "." && !p.is_empty()));
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert_eq!(WorkPath::parse(path.as_str()).unwrap(), path);
            }
        }
    }
}
