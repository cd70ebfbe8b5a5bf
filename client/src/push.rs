//! Making directories of instances equal to a local tree.
//!
//! Walk (a stat each, if nothing changed), then ask every target at once to be that tree. If all
//! content is there already, that is all: one round trip. If not, what is missing is uploaded once
//! for all targets, and those that lacked something are asked again. A tree that changes meanwhile
//! is walked again. Every step may be repeated, so a cut costs only time.

mod target;
mod tree;
pub(crate) mod upload;

pub(crate) use target::Synced;
pub(crate) use tree::{Chosen, Prefer, Surroundings, Tree};

use crate::broadcast;
use crate::connection::Farm;
use crate::error::Error;
use crate::human;
use crate::printer::Printer;
use crate::progress::Bar;
use motefarm_cas::snapshot::{Snapshot, SnapshotError, SnapshotOptions, StatCache, snapshot};
use motefarm_core::Digest;
use motefarm_proto::mote;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use upload::UploadError;

/// Walks of a tree that changes under us.
const MAX_WALKS: u32 = 5;
/// Times a target may name content it lacks: once for a new tree, again if the store evicted some
/// of it meanwhile.
const MAX_ROUNDS: u32 = 5;
/// Warnings shown of one walk.
const MAX_WARNINGS: usize = 20;
/// Uploads smaller than this are over before anybody asks.
const TELL_FROM_BYTES: u64 = 4 * 1000 * 1000;

/// What a push did.
pub(crate) struct Pushed {
    /// Of the tree.
    pub(crate) total_files: u64,
    pub(crate) total_bytes: u64,
    /// What the farm's store did not have.
    pub(crate) uploaded: mote::UploadSummary,
    /// By instance.
    pub(crate) targets: broadcast::Results<Synced>,
}

/// One push of one tree.
pub(crate) struct Push<'a> {
    pub(crate) farm: &'a Farm,
    pub(crate) printer: Printer,
    pub(crate) tree: &'a Tree,
    pub(crate) instances: &'a [String],
    pub(crate) dry_run: bool,
    /// Where the tree's stat data is kept.
    pub(crate) cache_file: &'a Path,
}

impl Push<'_> {
    /// Pushes `first`, or what the tree has become.
    pub(crate) async fn run(&self, first: Snapshot) -> Result<Pushed, Error> {
        let mut walked = first;
        for _ in 1..MAX_WALKS {
            match self.bring(&walked).await? {
                Brought::Done(pushed) => return Ok(pushed),
                Brought::Changed(path) => {
                    self.printer.message(format_args!("{} changed; looking at the tree again", path.display()));
                    walked = walk(self.tree, self.cache_file).await?;
                }
            }
        }
        match self.bring(&walked).await? {
            Brought::Done(pushed) => Ok(pushed),
            Brought::Changed(path) => Err(Error::Local {
                doing: format!("push {}", self.tree.root.display()),
                cause: io::Error::other(format!("{} changed during each of {MAX_WALKS} tries", path.display())),
                next: Some("push again when nothing writes the tree".to_owned()),
            }),
        }
    }

    async fn bring(&self, walked: &Snapshot) -> Result<Brought, Error> {
        let sync = self.tree.sync(walked, self.dry_run);
        let mut waiting: Vec<String> = self.instances.to_vec();
        let mut pushed = Pushed {
            total_files: walked.total_files,
            total_bytes: walked.total_bytes,
            uploaded: mote::UploadSummary::default(),
            targets: Vec::with_capacity(waiting.len()),
        };
        let mut rounds = 0;
        while !waiting.is_empty() {
            rounds += 1;
            let ask = async |instance: &str| target::sync(self.farm, instance, &sync).await;
            let answers = broadcast::each(&waiting, ask).await;
            let mut missing = HashSet::new();
            let mut lacking = Vec::new();
            for (instance, answer) in answers {
                match answer {
                    Ok(target::Answer::Lacks(digests)) if rounds < MAX_ROUNDS => {
                        missing.extend(digests);
                        lacking.push(instance);
                    }
                    Ok(target::Answer::Lacks(digests)) => {
                        let problem = format!("it still lacks {} after {MAX_ROUNDS} uploads", count(&digests));
                        let error = Error::protocol(&format!("push to {instance}"), problem);
                        pushed.targets.push((instance, Err(error)));
                    }
                    Ok(target::Answer::Done(synced)) => pushed.targets.push((instance, Ok(synced))),
                    Err(error) => pushed.targets.push((instance, Err(error))),
                }
            }
            waiting = lacking;
            if waiting.is_empty() {
                break;
            }
            match self.supply(walked, missing).await {
                Ok(summary) => {
                    pushed.uploaded.stored += summary.stored;
                    pushed.uploaded.stored_bytes += summary.stored_bytes;
                }
                Err(UploadError::Changed(path)) => return Ok(Brought::Changed(path)),
                Err(UploadError::Failed(error)) => return Err(error),
            }
        }
        Ok(Brought::Done(pushed))
    }

    /// Uploads what is missing. A target that lacks a directory can not know what it lacks below
    /// it; then the store is asked about the whole tree.
    async fn supply(&self, walked: &Snapshot, missing: HashSet<Digest>) -> Result<mote::UploadSummary, UploadError> {
        let is_missing = |(digest, _): &(Digest, _)| missing.contains(digest);
        let wanted = if walked.directories.iter().any(is_missing) {
            // Dry: the shape is enough to say what would be done.
            let whole: Vec<Digest> = match self.dry_run {
                true => walked.directories.iter().map(|(digest, _)| *digest).collect(),
                false => walked.digests().collect(),
            };
            upload::find_missing(self.farm, whole).await.map_err(UploadError::Failed)?
        } else {
            missing
        };
        let bytes: u64 = wanted.iter().map(Digest::size_bytes).sum();
        if bytes >= TELL_FROM_BYTES {
            let what = human::count(wanted.len() as u64, "file");
            self.printer.message(format_args!("uploading {what} ({})", human::bytes(bytes)));
        }
        let bar = match self.dry_run {
            true => Bar::none(),
            false => Bar::bytes(self.printer, "upload", Some(bytes)),
        };
        let summary = upload::upload(self.farm, walked, wanted, &bar).await;
        bar.done();
        summary
    }
}

enum Brought {
    Done(Pushed),
    /// This file is not any more what was walked.
    Changed(PathBuf),
}

fn count(digests: &[Digest]) -> String {
    human::count(digests.len() as u64, "file")
}

/// Walks the tree off the event loop, with its stat cache.
pub(crate) async fn walk(tree: &Tree, cache_file: &Path) -> Result<Snapshot, Error> {
    let options = SnapshotOptions { go_tree: tree.go_tree, use_gitignore: !tree.whole, ..SnapshotOptions::default() };
    let (root, cache_file) = (tree.root.clone(), cache_file.to_owned());
    let walk = move || {
        let mut cache = StatCache::load(&cache_file);
        let walked = snapshot(&root, &options, &mut cache)?;
        // Only a cache: without it the next push reads every file.
        let _ = cache.save(&cache_file);
        Ok(walked)
    };
    let joined = tokio::task::spawn_blocking(walk).await;
    joined.map_err(|e| Error::local("walk the tree", io::Error::other(e)))?.map_err(|e| walk_error(&tree.root, e))
}

fn walk_error(root: &Path, error: SnapshotError) -> Error {
    let next = match &error {
        SnapshotError::NotDirectory(_) => Some("name a directory: mote push -C DIR INSTANCE"),
        SnapshotError::GoVersion(_) => Some("put a VERSION file into the Go tree's root"),
        _ => None,
    };
    let doing = format!("read the tree {}", root.display());
    Error::Local { doing, cause: io::Error::other(error), next: next.map(str::to_owned) }
}

/// Says what a person should know of a walk.
pub(crate) fn tell_warnings(printer: Printer, walked: &Snapshot) {
    for warning in walked.warnings.iter().take(MAX_WARNINGS) {
        printer.warning(warning);
    }
    if let Some(more) = walked.warnings.len().checked_sub(MAX_WARNINGS).filter(|more| *more > 0) {
        printer.warning(format_args!("... and {more} more"));
    }
}
