//! Paths as a client spells them, and where they lead. Pure: nothing is looked up, so `..` is taken for the
//! name before it, and the directories it leaves are remembered: a tree in which they were missing could not
//! resolve the same spelling.

use std::fmt;

/// Longest path that is worked on, Linux's `PATH_MAX`.
const MAX_BYTES: usize = 4096;

/// A place in the client's file system: absolute, without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientPath(Vec<String>);

/// Where a spelling leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The place.
    pub path: ClientPath,
    /// Directories that the spelling goes into and leaves again.
    pub through: Vec<ClientPath>,
}

/// Why a spelling leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It leaves the file system's root.
    #[error("climbs above the root")]
    Climbs,
    /// It does not begin with `/` and must.
    #[error("is not absolute")]
    NotAbsolute,
    /// It is the root itself or nothing at all.
    #[error("names no file")]
    Empty,
    /// It holds a NUL, or is longer than any path.
    #[error("is no path: too long, or with a NUL in it")]
    Unusable,
}

impl ClientPath {
    /// An absolute path.
    pub fn absolute(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        Ok(walk(&Self::default(), text)?.path)
    }

    /// Its names, from the root.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds it; the root's is the root.
    pub fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// Its names from `root` on, if it lies there.
    pub fn below(&self, root: &Self) -> Option<&[String]> {
        self.0.strip_prefix(root.0.as_slice())
    }

    /// The longest directory that holds both (or is one of them).
    pub fn common(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).map(|(name, _)| name.clone()).collect())
    }

    /// How a program in `directory` spells it without a leading `/`; `.` for the directory itself.
    pub fn seen_from(&self, directory: &Self) -> String {
        let shared = self.common(directory).0.len();
        let up = std::iter::repeat_n("..", directory.0.len() - shared);
        let names: Vec<&str> = up.chain(self.0[shared..].iter().map(String::as_str)).collect();
        if names.is_empty() { ".".to_owned() } else { names.join("/") }
    }
}

impl fmt::Display for ClientPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

/// Where `text`, said in `directory`, leads. Not for the root.
pub fn locate(directory: &ClientPath, text: &str) -> Result<Located, PathError> {
    let from = if text.starts_with('/') { &ClientPath::default() } else { directory };
    let located = walk(from, text)?;
    if text.is_empty() || located.path.is_root() {
        return Err(PathError::Empty);
    }
    Ok(located)
}

fn walk(from: &ClientPath, text: &str) -> Result<Located, PathError> {
    if text.len() > MAX_BYTES || text.contains('\0') {
        return Err(PathError::Unusable);
    }
    let mut names = from.0.clone();
    let mut through = Vec::new();
    let mut descended = false;
    for name in text.split('/').filter(|name| !matches!(*name, "" | ".")) {
        if name == ".." {
            if descended {
                through.push(ClientPath(names.clone()));
            }
            descended = false;
            names.pop().ok_or(PathError::Climbs)?;
        } else {
            names.push(name.to_owned());
            descended = true;
        }
    }
    Ok(Located { path: ClientPath(names), through })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ClientPath {
        ClientPath::absolute(text).unwrap()
    }

    #[test]
    fn spellings_lead_where_a_compiler_would_go() {
        let cwd = path("/home/u/src/out");
        for (text, expected, through) in [
            ("a.cc", "/home/u/src/out/a.cc", &[][..]),
            ("./x//a.cc", "/home/u/src/out/x/a.cc", &[]),
            ("../../b/x.h", "/home/u/b/x.h", &[]),
            ("gen/../b.h", "/home/u/src/out/b.h", &["/home/u/src/out/gen"]),
            ("/usr/bin/../lib/gcc/crtbegin.o", "/usr/lib/gcc/crtbegin.o", &["/usr/bin"]),
            ("/a/b/../../c/../d", "/d", &["/a/b", "/c"]),
        ] {
            let located = locate(&cwd, text).unwrap();
            assert_eq!(located.path.to_string(), expected, "{text}");
            assert_eq!(located.through.iter().map(ClientPath::to_string).collect::<Vec<_>>(), through, "{text}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_said() {
        let fake = path("/this/path/is/set/by/goma");
        assert_eq!(locate(&fake, "../../../../../../x").unwrap().path.to_string(), "/x");
        assert_eq!(locate(&fake, "../../../../../../../x"), Err(PathError::Climbs));
        assert_eq!(locate(&fake, "/.."), Err(PathError::Climbs));
        for empty in ["", "/", "/a/.."] {
            assert_eq!(locate(&fake, empty), Err(PathError::Empty), "{empty:?}");
        }
        assert_eq!(locate(&fake, "a\0b"), Err(PathError::Unusable));
        assert_eq!(locate(&fake, &"a/".repeat(3000)), Err(PathError::Unusable));
        assert_eq!(ClientPath::absolute("a/b"), Err(PathError::NotAbsolute));
    }

    #[test]
    fn places_are_spelled_from_a_directory() {
        let cwd = path("/home/u/out");
        for (place, expected) in [
            ("/home/u/out/a.o", "a.o"),
            ("/home/u/gen/a.o", "../gen/a.o"),
            ("/tmp/a.o", "../../../tmp/a.o"),
            ("/home/u/out", "."),
            ("/home/u", ".."),
        ] {
            assert_eq!(path(place).seen_from(&cwd), expected);
        }
        assert_eq!(path("/a/b/c").common(&path("/a/x")).to_string(), "/a");
        assert_eq!(path("/ab").below(&path("/a")), None);
    }
}
