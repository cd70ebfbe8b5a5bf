//! What a Go agent's directory has against what a tree wants. Pure.

use super::sha1_cache::Hash;
use super::wanted::{Want, Wanted};
use bytes::Bytes;
use motefarm_cas::sync::{Keeper, Rules, Verdict};
use motefarm_core::Digest;
use motefarm_proto::mote::DirEntry;
use motefarm_proto::mote::dir_entry::Kind;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the agent makes for itself at the top of its work directory.
const OWN_DIRECTORIES: [&[u8]; 3] = [b"tmp", b"gocache", b"goplscache"];
/// The bits that make a file a program.
const EXECUTABLE: u32 = 0o100;
/// Without it the agent can not write into a file.
const WRITABLE: u32 = 0o200;

/// What is there, by path.
pub(super) type There = BTreeMap<Bytes, DirEntry>;

/// What is to be done: first removed, then made and written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// With all below them; none lies in another.
    pub(super) remove: Vec<Bytes>,
    pub(super) directories: Vec<Vec<u8>>,
    /// Path, content, mode.
    pub(super) files: Vec<(Vec<u8>, Digest, u32)>,
    pub(super) unchanged: u64,
    /// Entries that go and that nothing takes the place of.
    pub(super) deleted: u64,
    /// Of the files, those that have the right content already.
    pub(super) modes_changed: u64,
    /// What the agent does not make.
    pub(super) links: Vec<Vec<u8>>,
}

/// Blobs whose hashes decide: of files that are there with the right size.
pub(super) fn undecided(wanted: &Wanted, there: &There) -> BTreeSet<Digest> {
    let file = |(path, want): (&Vec<u8>, &Want)| match want {
        Want::File { digest, .. } => {
            let entry = there.get(path.as_slice())?;
            (entry.kind() == Kind::File && entry.size_bytes == digest.size_bytes()).then_some(*digest)
        }
        _ => None,
    };
    wanted.iter().filter_map(file).collect()
}

/// Compares. `hashes` has those of [`undecided`] blobs; `is_top` tells that this is the work directory itself.
pub(super) fn compare(
    wanted: &Wanted,
    there: &There,
    hashes: &HashMap<Digest, Hash>,
    keeper: &Keeper,
    has_modes: bool,
    is_top: bool,
) -> Difference {
    let mut difference = Difference::default();
    // What has to go for something else.
    let mut replaced: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, want) in wanted {
        let entry = there.get(path.as_slice());
        match want {
            Want::Symlink => difference.links.push(path.clone()),
            Want::Directory => {
                if entry.is_none_or(|entry| entry.kind() != Kind::Directory) {
                    difference.directories.push(path.clone());
                    replaced.extend(entry.map(|_| path.as_slice()));
                }
            }
            Want::File { digest, mode } => {
                let file = entry.filter(|entry| entry.kind() == Kind::File);
                let same_content = file.is_some_and(|file| {
                    file.size_bytes == digest.size_bytes()
                        && hashes.get(digest).is_some_and(|hash| hash[..] == file.hash[..])
                });
                let mode_bits = |file: &DirEntry| file.mode & EXECUTABLE == mode & EXECUTABLE;
                let same_mode = !has_modes || file.is_some_and(mode_bits);
                if same_content && same_mode {
                    difference.unchanged += 1;
                    continue;
                }
                difference.modes_changed += u64::from(same_content);
                difference.files.push((path.clone(), *digest, *mode));
                // It writes into what is there and leaves its mode as it is.
                let in_place = file.is_some_and(|file| same_mode && file.mode & WRITABLE != 0);
                if !in_place {
                    replaced.extend(entry.map(|_| path.as_slice()));
                }
            }
        }
    }
    let goes = extras(wanted, there, keeper, is_top);
    let mut whole: BTreeSet<&[u8]> = BTreeSet::new();
    for path in there.keys() {
        let replaces = replaced.contains(&path[..]);
        let inside = ancestors(path).any(|above| whole.contains(above));
        if replaces || inside || goes.contains(&path[..]) {
            difference.deleted += u64::from(!replaces);
            if !inside {
                whole.insert(path);
                difference.remove.push(path.clone());
            }
        }
    }
    difference
}

/// What is there, not wanted and not kept; directories only if nothing in them is kept.
fn extras<'a>(wanted: &Wanted, there: &'a There, keeper: &Keeper, is_top: bool) -> BTreeSet<&'a [u8]> {
    let mut rules: HashMap<Vec<u8>, Rules> = HashMap::from([(Vec::new(), keeper.enter(&Rules::default(), b""))]);
    let mut goes = BTreeSet::new();
    let mut kept: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, entry) in there {
        let is_dir = entry.kind() == Kind::Directory;
        let above = ancestors(path).next().unwrap_or_default();
        let inside_kept = ancestors(path).any(|above| kept.contains(above));
        let here = rules.get(above).cloned().unwrap_or_default();
        if is_dir {
            rules.insert(path.to_vec(), keeper.enter(&here, path));
        }
        if wanted.contains_key(&path[..]) {
            continue;
        }
        let own = is_top && OWN_DIRECTORIES.contains(&&path[..]);
        if inside_kept || own || keeper.judge(&here, path, is_dir) == Verdict::Stays {
            kept.insert(path);
        } else {
            goes.insert(&path[..]);
        }
    }
    for path in &kept {
        ancestors(path).for_each(|above| {
            goes.remove(above);
        });
    }
    goes
}

/// The directories a path lies in, nearest first; the last is the empty path, for whatever lies at the top.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let cuts = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    cuts.chain([0]).map(|at| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_cas::sync::SyncPlan;

    fn keeper(ignore: &str, keep: &[&str]) -> Keeper {
        Keeper::new(&SyncPlan {
            root: Digest::EMPTY,
            ignore_files: vec![(String::new(), ignore.as_bytes().to_vec())],
            keep: keep.iter().map(|path| (*path).to_owned()).collect(),
            dry_run: false,
        })
    }

    fn hash(content: &str) -> Hash {
        use sha1::Digest as _;
        sha1::Sha1::digest(content).into()
    }

    /// What is there: a directory's name ends with a slash, a link's with `@`.
    fn there(entries: &[(&str, &str, u32)]) -> There {
        let entry = |(name, content, mode): &(&str, &str, u32)| {
            let (kind, path) = match (name.strip_suffix('/'), name.strip_suffix('@')) {
                (Some(path), _) => (Kind::Directory, path),
                (_, Some(path)) => (Kind::Symlink, path),
                _ => (Kind::File, *name),
            };
            let path = Bytes::copy_from_slice(path.as_bytes());
            let mut entry = DirEntry { path: path.clone(), kind: kind.into(), mode: *mode, ..DirEntry::default() };
            if kind == Kind::File {
                entry.size_bytes = content.len() as u64;
                entry.hash = hash(content).to_vec().into();
            }
            (path, entry)
        };
        entries.iter().map(entry).collect()
    }

    fn wanted(entries: &[(&str, &str, u32)]) -> (Wanted, HashMap<Digest, Hash>) {
        let mut hashes = HashMap::new();
        let mut want = Wanted::new();
        for (name, content, mode) in entries {
            let (path, kind) = match (name.strip_suffix('/'), name.strip_suffix('@')) {
                (Some(path), _) => (path, Want::Directory),
                (_, Some(path)) => (path, Want::Symlink),
                _ => {
                    let digest = Digest::of(content.as_bytes());
                    hashes.insert(digest, hash(content));
                    (*name, Want::File { digest, mode: *mode })
                }
            };
            want.insert(path.as_bytes().to_vec(), kind);
        }
        (want, hashes)
    }

    fn paths<P: AsRef<[u8]>>(all: &[P]) -> Vec<&str> {
        all.iter().map(|path| std::str::from_utf8(path.as_ref()).unwrap()).collect()
    }

    fn files(difference: &Difference) -> Vec<&str> {
        difference.files.iter().map(|(path, ..)| std::str::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn only_what_differs_is_written_and_only_same_sizes_are_hashed() {
        let (wanted, hashes) = wanted(&[
            ("d/", "", 0),
            ("d/same", "abc", 0o644),
            ("d/other", "xyz", 0o644),
            ("longer", "abcd", 0o644),
            ("new", "n", 0o755),
            ("empty/", "", 0),
        ]);
        let there =
            there(&[("d/", "", 0o755), ("d/same", "abc", 0o600), ("d/other", "xyy", 0o644), ("longer", "abc", 0o644)]);
        let hashed = undecided(&wanted, &there);
        assert_eq!(hashed, BTreeSet::from([Digest::of(b"abc"), Digest::of(b"xyz")]));
        let difference = compare(&wanted, &there, &hashes, &keeper("", &[]), true, false);
        assert_eq!(files(&difference), ["d/other", "longer", "new"]);
        assert_eq!(paths(&difference.directories), ["empty"]);
        assert_eq!((difference.unchanged, difference.deleted, difference.remove.len()), (1, 0, 0));
    }

    #[test]
    fn what_can_not_be_written_over_goes_first() {
        let (wanted, hashes) = wanted(&[
            ("now-program", "same", 0o755),
            ("read-only", "new text", 0o644),
            ("was-dir", "x", 0o644),
            ("was-link", "x", 0o644),
            ("now-dir/", "", 0),
            ("now-dir/f", "x", 0o644),
        ]);
        let there = there(&[
            ("now-program", "same", 0o644),
            ("read-only", "old text", 0o444),
            ("was-dir/", "", 0o755),
            ("was-dir/in", "x", 0o644),
            ("was-link@", "", 0o777),
            ("now-dir", "x", 0o644),
        ]);
        let difference = compare(&wanted, &there, &hashes, &keeper("", &[]), true, false);
        assert_eq!(paths(&difference.remove), ["now-dir", "now-program", "read-only", "was-dir", "was-link"]);
        assert_eq!(files(&difference), ["now-dir/f", "now-program", "read-only", "was-dir", "was-link"]);
        assert_eq!((difference.modes_changed, difference.deleted), (1, 1));
        // Where files have no modes none is wrong.
        let difference = compare(&wanted, &there, &hashes, &keeper("", &[]), false, false);
        assert!(!files(&difference).contains(&"now-program"));
    }

    #[test]
    fn what_is_extra_goes_unless_it_is_kept() {
        let (wanted, hashes) = wanted(&[("src/", "", 0), ("src/a", "a", 0o644), ("link@", "", 0)]);
        let there = there(&[
            ("src/", "", 0o755),
            ("src/a", "a", 0o644),
            ("src/gone", "x", 0o644),
            ("src-old", "x", 0o644),
            ("src/x.o", "x", 0o644),
            ("old/", "", 0o755),
            ("old/deep/", "", 0o755),
            ("old/deep/f", "x", 0o644),
            ("half/", "", 0o755),
            ("half/f", "x", 0o644),
            ("half/y.o", "x", 0o644),
            ("made/", "", 0o755),
            ("made/there/", "", 0o755),
            ("made/there/f", "x", 0o644),
            ("tmp/", "", 0o755),
            ("tmp/f", "x", 0o644),
            ("link", "not ours to judge", 0o644),
        ]);
        let keeper = keeper("*.o\n", &["made/there"]);
        let difference = compare(&wanted, &there, &hashes, &keeper, true, true);
        assert_eq!(paths(&difference.remove), ["half/f", "old", "src-old", "src/gone"]);
        assert_eq!((difference.deleted, difference.unchanged), (6, 1));
        assert_eq!(paths(&difference.links), ["link"]);
        // Below the top the agent has nothing of its own.
        let difference = compare(&wanted, &there, &hashes, &keeper, true, false);
        assert!(paths(&difference.remove).contains(&"tmp"));
    }
}
