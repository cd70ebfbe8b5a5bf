//! Walking the directory: what is in it, and which files the cache knows.

use super::git::Index;
use super::{SnapshotError, SnapshotOptions, go_tree, platform};
use crate::ignore_rules::IgnoreRules;
use crate::stat_cache::{CachedFile, FileStat, StatCache};
use crate::tree::{self, MAX_DEPTH};
use crate::work_queue::{self, WorkQueue};
use bytes::Bytes;
use motefarm_core::Digest;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a walk found. Directories come after those that hold them.
pub(super) struct Walked {
    pub(super) directories: Vec<Directory>,
    pub(super) warnings: Vec<String>,
    ignore_files: Vec<(String, Vec<u8>)>,
    /// Files the cache knew at the beginning.
    cached_before: usize,
    /// Whether some file was unknown to the cache.
    pub(super) news: bool,
}

/// One directory.
pub(super) struct Directory {
    /// Relative to the tree.
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) items: Vec<Item>,
    /// It went away while it was walked.
    pub(super) vanished: bool,
}

pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) kind: ItemKind,
}

pub(super) enum ItemKind {
    File {
        stat: FileStat,
        content: FileContent,
    },
    Directory {
        id: usize,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// It went away while the tree was walked.
    Vanished,
}

pub(super) enum FileContent {
    /// To be hashed.
    Unknown,
    /// `settled`: its stat data will tell it from later content.
    Known { digest: Digest, settled: bool },
    /// No file has it.
    MadeUp { digest: Digest, bytes: Bytes },
}

/// A directory to be walked.
struct Job {
    id: usize,
    path: PathBuf,
    rules: IgnoreRules,
    /// An ignored directory: only what git's index has counts.
    only_tracked: bool,
    depth: usize,
}

struct Walker<'a> {
    root: &'a Path,
    options: &'a SnapshotOptions,
    cache: &'a StatCache,
    index: Index,
    extra: IgnoreRules,
    found: Mutex<Walked>,
}

pub(super) fn walk(root: &Path, options: &SnapshotOptions, cache: &StatCache) -> Result<Walked, SnapshotError> {
    let meta = std::fs::metadata(root).map_err(SnapshotError::io(root))?;
    if !meta.is_dir() {
        return Err(SnapshotError::NotDirectory(root.to_owned()));
    }
    let index = if options.use_gitignore { Index::ask(root) } else { Index::none() };
    let mut ignore_files = Vec::new();
    let mut rules = IgnoreRules::default();
    if options.use_gitignore {
        let global = ignore::gitignore::gitconfig_excludes_path();
        for path in global.into_iter().chain([root.join(".git/info/exclude")]) {
            if let Ok(content) = std::fs::read(&path) {
                rules = rules.with(Path::new(""), &content);
                ignore_files.push((String::new(), content));
            }
        }
    }
    let extra_lines = options.extra_skip.join("\n").into_bytes();
    let top = Directory { path: PathBuf::new(), mode: platform::directory_mode(&meta), items: vec![], vanished: false };
    let walker = Walker {
        root,
        options,
        cache,
        index,
        extra: IgnoreRules::default().with(Path::new(""), &extra_lines),
        found: Mutex::new(Walked {
            directories: vec![top],
            warnings: Vec::new(),
            ignore_files,
            cached_before: cache.len(),
            news: false,
        }),
    };
    let first = Job { id: 0, path: PathBuf::new(), rules, only_tracked: false, depth: 0 };
    work_queue::run(vec![first], |job, queue| walker.directory(job, queue))?;
    let mut found = walker.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.warnings.extend(walker.index.warning());
    if !extra_lines.is_empty() {
        found.ignore_files.push((String::new(), extra_lines));
    }
    Ok(found)
}

impl Walker<'_> {
    fn found(&self) -> MutexGuard<'_, Walked> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, mut job: Job, queue: &WorkQueue<Job>) -> Result<(), SnapshotError> {
        let absolute = self.root.join(&job.path);
        if job.depth > MAX_DEPTH {
            return Err(SnapshotError::TooDeep(absolute));
        }
        let read = std::fs::read_dir(&absolute).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = match read {
            Ok(entries) => entries,
            // Vanished, or made something else, since its parent was read.
            Err(error) if job.id > 0 && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                self.found().directories[job.id].vanished = true;
                return Ok(());
            }
            Err(error) => return Err(SnapshotError::io(&absolute)(error)),
        };
        if self.options.use_gitignore && entries.iter().any(|entry| entry.file_name() == ".gitignore") {
            self.read_ignore_file(&mut job, &absolute);
        }
        let cached = self.cache.directory(&path_bytes(&job.path));
        let mut items = Vec::with_capacity(entries.len());
        let mut below = Vec::new();
        let mut news = false;
        let mut path = job.path.clone();
        for entry in entries {
            let name = entry.file_name();
            path.push(&name);
            let Some(found) = self.entry(&entry, name, &path, &job)? else {
                path.pop();
                continue;
            };
            let kind = match found {
                Found::Directory { mode, only_tracked } => {
                    below.push((items.len(), path.clone(), mode, only_tracked));
                    ItemKind::Directory { id: 0 }
                }
                Found::File(stat) => {
                    let name = entry.file_name();
                    let known = cached.and_then(|cached| cached.lookup(&platform::name_bytes(&name), &stat));
                    news |= known.is_none();
                    let content =
                        known.map_or(FileContent::Unknown, |digest| FileContent::Known { digest, settled: true });
                    ItemKind::File { stat, content }
                }
                Found::Symlink(target) => ItemKind::Symlink { target },
            };
            items.push(Item { name: platform::name_bytes(&entry.file_name()).into_owned(), kind });
            path.pop();
        }
        let mut found = self.found();
        found.news |= news;
        let first = found.directories.len();
        for (n, (at, path, mode, only_tracked)) in below.into_iter().enumerate() {
            let id = first + n;
            items[at].kind = ItemKind::Directory { id };
            found.directories.push(Directory { path: path.clone(), mode, items: vec![], vanished: false });
            queue.push(Job { id, path, rules: job.rules.clone(), only_tracked, depth: job.depth + 1 });
        }
        found.directories[job.id].items = items;
        Ok(())
    }

    /// What an entry is to the tree; `None` if it is left out.
    fn entry(&self, entry: &DirEntry, name: OsString, path: &Path, job: &Job) -> Result<Option<Found>, SnapshotError> {
        if name == ".git" {
            return Ok(None);
        }
        let Ok(file_type) = entry.file_type() else { return Ok(None) };
        let is_dir = file_type.is_dir();
        if self.extra.ignores(path, is_dir) || (self.options.go_tree && go_tree::skips(path, is_dir)) {
            return Ok(None);
        }
        let mut only_tracked = false;
        if job.only_tracked || job.rules.ignores(path, is_dir) {
            let bytes = path_bytes(path);
            if is_dir && !self.index.paths().contains(&bytes) {
                if !self.index.paths().any_below(&bytes) {
                    return Ok(None);
                }
                only_tracked = true;
            } else if !self.index.paths().contains(&bytes) {
                return Ok(None);
            }
        }
        let gone = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        if file_type.is_symlink() {
            return match std::fs::read_link(entry.path()) {
                Ok(target) => Ok(Some(Found::Symlink(platform::target_bytes(&target)))),
                Err(error) if gone(&error) => Ok(None),
                Err(error) => Err(SnapshotError::io(&entry.path())(error)),
            };
        }
        if !is_dir && !file_type.is_file() {
            let warning = format!("{} is a socket, pipe or device and is left out", path.display());
            self.found().warnings.push(warning);
            return Ok(None);
        }
        match entry.metadata() {
            Ok(meta) if is_dir => Ok(Some(Found::Directory { mode: platform::directory_mode(&meta), only_tracked })),
            Ok(meta) => {
                let mut stat = platform::file_stat(&meta);
                if cfg!(windows) && self.options.go_tree && go_tree::is_script(path) {
                    stat.mode = tree::EXECUTABLE_FILE_MODE;
                }
                Ok(Some(Found::File(stat)))
            }
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(SnapshotError::io(&entry.path())(error)),
        }
    }

    fn read_ignore_file(&self, job: &mut Job, absolute: &Path) {
        let file = absolute.join(".gitignore");
        // As git: a link is not followed, and what can not be read has no rules.
        if !std::fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
            return;
        }
        let Ok(content) = std::fs::read(&file) else {
            self.found().warnings.push(format!("{} could not be read and is not followed", file.display()));
            return;
        };
        job.rules = job.rules.with(&job.path, &content);
        let Ok(dir) = String::from_utf8(path_bytes(&job.path)) else {
            let warning =
                format!("{} is followed here, but not where the tree goes: its path is not UTF-8", file.display());
            self.found().warnings.push(warning);
            return;
        };
        self.found().ignore_files.push((dir, content));
    }
}

enum Found {
    Directory { mode: u32, only_tracked: bool },
    File(FileStat),
    Symlink(Vec<u8>),
}

/// A relative path with `/` between its parts.
fn path_bytes(path: &Path) -> Vec<u8> {
    let bytes = platform::name_bytes(path.as_os_str()).into_owned();
    if cfg!(windows) { bytes.into_iter().map(|b| if b == b'\\' { b'/' } else { b }).collect() } else { bytes }
}

impl Walked {
    /// Brings the cache up to date, if anything changed.
    pub(super) fn remember(&self, cache: &mut StatCache) {
        let files = |directory: &Directory| {
            let known = directory.items.iter().filter_map(|item| match &item.kind {
                ItemKind::File { stat, content: FileContent::Known { digest, settled: true } } => {
                    Some(CachedFile { name: item.name.clone(), stat: *stat, hash: *digest.hash() })
                }
                _ => None,
            });
            known.collect::<Vec<_>>()
        };
        let count = self.directories.iter().flat_map(|directory| &directory.items);
        let count = count.filter(|item| matches!(item.kind, ItemKind::File { .. })).count();
        if self.news || count != self.cached_before {
            cache.replace(self.directories.iter().map(|directory| (path_bytes(&directory.path), files(directory))));
        }
    }

    /// The ignore files, a directory's before those below it: the later is the stronger.
    pub(super) fn take_ignore_files(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut files = std::mem::take(&mut self.ignore_files);
        // Stable: of the root's several, the order of their strength stays.
        files.sort_by_key(|(dir, _)| if dir.is_empty() { 0 } else { dir.split('/').count() });
        files
    }

    /// What the receiving side should leave alone besides what is ignored.
    pub(super) fn keep(&self, options: &SnapshotOptions) -> Vec<String> {
        if options.go_tree { go_tree::kept() } else { Vec::new() }
    }
}
