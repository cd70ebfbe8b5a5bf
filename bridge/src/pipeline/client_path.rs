//! Paths as a client spells them, and where they lead. Pure: nothing is looked up, so `..` is taken for the
//! name before it, and the directories it leaves are remembered: a tree in which they were missing could not
//! resolve the same spelling.

use std::fmt;

/// Longest path that is worked on, Linux's `PATH_MAX`.
const MAX_BYTES: usize = 4096;
/// Most names of one path: trees are walked by recursion.
const MAX_NAMES: usize = 256;

/// A place in the client's file system: absolute, without `.` and `..`. One text with a `/` before every name:
/// a request has hundreds of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientPath(String);

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
    /// It holds a NUL, or is longer or deeper than any path.
    #[error("is no path: too long, too deep, or with a NUL in it")]
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

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds it; the root's is the root.
    pub fn parent(&self) -> Self {
        Self(self.0[..self.0.rfind('/').unwrap_or(0)].to_owned())
    }

    /// Its spelling from `root` on, if it lies there; empty for `root` itself.
    pub fn below(&self, root: &Self) -> Option<&str> {
        let rest = self.0.strip_prefix(root.0.as_str())?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    }

    /// The longest directory that holds both (or is one of them).
    pub fn common(&self, other: &Self) -> Self {
        Self(self.0[..self.shared(other)].to_owned())
    }

    /// Where the names end that both begin with.
    fn shared(&self, other: &Self) -> usize {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let ends_name = |path: &[u8]| matches!(path.get(same), None | Some(b'/'));
        if ends_name(a) && ends_name(b) { same } else { self.0[..same].rfind('/').unwrap_or(0) }
    }

    /// How a program in `directory` spells it without a leading `/`; `.` for the directory itself.
    pub fn seen_from(&self, directory: &Self) -> String {
        let shared = self.shared(directory);
        let up = directory.0[shared..].matches('/').map(|_| "..");
        let down = self.0[shared..].split('/').filter(|name| !name.is_empty());
        let names: Vec<&str> = up.chain(down).collect();
        if names.is_empty() { ".".to_owned() } else { names.join("/") }
    }
}

impl fmt::Display for ClientPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
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
    let mut path = String::with_capacity(from.0.len() + text.len() + 1);
    path.push_str(&from.0);
    let mut through = Vec::new();
    let mut descended = false;
    for name in text.split('/').filter(|name| !matches!(*name, "" | ".")) {
        if name == ".." {
            if descended {
                through.push(ClientPath(path.clone()));
            }
            descended = false;
            path.truncate(path.rfind('/').ok_or(PathError::Climbs)?);
        } else {
            path.push('/');
            path.push_str(name);
            descended = true;
        }
    }
    let deep = |path: &str| path.bytes().filter(|byte| *byte == b'/').count() > MAX_NAMES;
    if deep(&path) || through.iter().any(|directory| deep(&directory.0)) {
        return Err(PathError::Unusable);
    }
    Ok(Located { path: ClientPath(path), through })
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
        assert_eq!(locate(&fake, &"a/".repeat(MAX_NAMES)), Err(PathError::Unusable));
        assert_eq!(
            locate(&fake, &format!("{}{}x", "a/".repeat(MAX_NAMES), "../".repeat(99))),
            Err(PathError::Unusable)
        );
        assert!(locate(&fake, &"a/".repeat(MAX_NAMES - 6)).is_ok());
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
        for (one, other, expected) in [
            ("/a/b/c", "/a/x", "/a"),
            ("/ab", "/a", "/"),
            ("/a", "/a/b", "/a"),
            ("/a/bc", "/a/b", "/a"),
            ("/a", "/a", "/a"),
        ] {
            assert_eq!(path(one).common(&path(other)).to_string(), expected);
            assert_eq!(path(other).common(&path(one)).to_string(), expected);
        }
        assert_eq!(path("/ab").below(&path("/a")), None);
        assert_eq!(path("/a/b/c").below(&path("/a")), Some("b/c"));
        assert_eq!((path("/a").below(&path("/a")), path("/a").below(&path("/"))), (Some(""), Some("a")));
    }
}
