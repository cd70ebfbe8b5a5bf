//! Single files of a Go agent: written, read, listed, removed.

use super::answer::Next;
use super::archives::single_file;
use super::client::{Client, LONG, SHORT, encoded};
use super::listing::Lines;
use super::{blocking, refused};
use crate::link::{LinkError, LinkStream, Pieces};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use motefarm_proto::mote::list_dir_spec::Hash;
use motefarm_proto::mote::{DirListing, FileChunk, ListDirSpec, PutFileHeader, PutFileResponse};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::Status;

/// Entries of one message.
const LISTING: usize = 1000;
/// Most entries of one listing, lest an agent that lists for ever be listened to for ever.
const MOST_LISTED: usize = 4_000_000;
/// How long the agent may hash one file.
const HASHING: Duration = Duration::from_secs(600);
/// Bytes of one removal's form.
const REMOVAL_BYTES: usize = 64 * 1024;
/// Mode of a file that was given none.
const DEFAULT_MODE: u32 = 0o644;

/// Writes one file, in place.
pub(super) async fn put(client: &Client, file: PutFileHeader, content: Pieces) -> Result<PutFileResponse, LinkError> {
    let mode = if file.mode == 0 { DEFAULT_MODE } else { file.mode };
    let query = encoded([("path", file.path.as_bytes()), ("mode", mode.to_string().as_bytes())]);
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let content = content.inspect(move |piece: &Bytes| {
        count.fetch_add(piece.len() as u64, Ordering::Relaxed);
    });
    client.put(&format!("/write?{query}"), content.map(Ok).boxed()).await?;
    Ok(PutFileResponse { bytes_written: written.load(Ordering::Relaxed) })
}

/// Streams one file.
///
/// The agent has no call for that. It lists a file as an entry without a name, and archives one the same way.
pub(super) async fn get(client: &Client, path: &str) -> Result<LinkStream<FileChunk>, LinkError> {
    let query = encoded([("dir", path.as_bytes())]);
    let answer = client.get(&format!("/ls?{query}"), SHORT).await?;
    let listing = answer.text().await?;
    let (mut lines, mut entries) = (Lines::default(), Vec::new());
    // Of a directory this may be cut short or unreadable, and its entries have names.
    let read = lines.push(listing.as_bytes(), &mut entries);
    let file = entries.first().filter(|entry| entry.path.is_empty() && read.is_ok());
    let file = file.ok_or_else(|| refused(Status::invalid_argument(format!("{path} is a directory, not a file"))))?;
    if file.kind() != motefarm_proto::mote::dir_entry::Kind::File {
        return Err(refused(Status::invalid_argument(format!("{path} is a link or something else, not a file"))));
    }
    let archive = client.get(&format!("/tgz?{query}"), LONG).await?;
    let pieces = archive.pieces().map(|piece| piece.map_err(io::Error::other)).boxed();
    let reader = blocking::reader(pieces);
    let (size, mode, name) = (file.size_bytes, file.mode & 0o777, path.to_owned());
    let (content, _) = blocking::write(move |sink| single_file(reader, &name, sink));
    let mut first = true;
    let chunks = content.map(move |piece| {
        let data = piece.map_err(|error| LinkError::Lost(error.to_string()))?;
        let header = std::mem::take(&mut first);
        let (mode, size_bytes) = if header { (mode, size) } else { (0, 0) };
        Ok(FileChunk { mode, size_bytes, data })
    });
    if size == 0 {
        let empty = FileChunk { mode, size_bytes: 0, data: Bytes::new() };
        return Ok(stream::once(std::future::ready(Ok(empty))).boxed());
    }
    Ok(chunks.boxed())
}

/// Streams a listing.
pub(super) async fn list(client: &Client, spec: ListDirSpec) -> Result<LinkStream<DirListing>, LinkError> {
    if spec.hash() == Hash::Sha256 {
        return Err(refused(Status::invalid_argument("field list.hash: a Go agent hashes files with SHA-1 only")));
    }
    let flag = |on: bool| if on { &b"true"[..] } else { b"false" };
    let mut pairs = vec![
        ("dir", spec.dir.as_bytes()),
        ("recursive", flag(spec.recursive)),
        ("digest", flag(spec.hash() == Hash::Sha1)),
    ];
    pairs.extend(spec.skip.iter().map(|dir| ("skip", dir.as_bytes())));
    let answer = client.get(&format!("/ls?{}", encoded(pairs)), LONG).await?;
    Ok(stream::unfold(Some((answer, Lines::default(), 0)), |state| async {
        let (mut answer, mut lines, before) = state?;
        let mut entries = Vec::new();
        let read = loop {
            match answer.next(Some(HASHING)).await {
                Ok(Next::Piece(piece)) => match lines.push(&piece, &mut entries) {
                    Ok(()) if entries.is_empty() => {}
                    Ok(()) => break Ok(true),
                    Err(error) => break Err(refused(Status::failed_precondition(error.to_string()))),
                },
                Ok(Next::Over(_)) => match lines.finish() {
                    Ok(()) => break Ok(false),
                    Err(error) => break Err(LinkError::Lost(error.to_string())),
                },
                Err(error) => break Err(error),
            }
        };
        let listed = before + entries.len();
        match read {
            Ok(true) if listed > MOST_LISTED => {
                let text = format!("more than {MOST_LISTED} entries, the most of a listing of a Go agent");
                Some((Err(refused(Status::resource_exhausted(text))), None))
            }
            Ok(true) => Some((Ok(entries), Some((answer, lines, listed)))),
            Ok(false) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .flat_map(|read: Result<Vec<_>, LinkError>| {
        let messages: Vec<Result<DirListing, LinkError>> = match read {
            Ok(entries) => entries.chunks(LISTING).map(|some| Ok(DirListing { entries: some.to_vec() })).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(messages)
    })
    .boxed())
}

/// Removes what is at these paths; answers how many entries that were, which the agent does not tell: they
/// are counted before.
pub(super) async fn remove(client: &Client, paths: &[String]) -> Result<u64, LinkError> {
    let all: BTreeSet<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
    let mut listing = list(client, ListDirSpec { recursive: true, ..ListDirSpec::default() }).await?;
    let mut count = 0;
    while let Some(message) = listing.next().await {
        let goes = message?.entries.into_iter().filter(|entry| is_at_or_below(&all, &entry.path));
        count += goes.count() as u64;
    }
    let root = |path: &String| if path.is_empty() { b".".to_vec() } else { path.clone().into_bytes() };
    removed(client, paths.iter().map(root)).await?;
    Ok(count)
}

fn is_at_or_below(paths: &BTreeSet<&[u8]>, path: &[u8]) -> bool {
    let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    [0, path.len()].into_iter().chain(cuts).any(|at| paths.contains(&path[..at]))
}

/// Removes what is at these paths, some at a time.
pub(super) async fn removed(client: &Client, paths: impl Iterator<Item = Vec<u8>>) -> Result<(), LinkError> {
    let mut form = String::new();
    let mut forms = Vec::new();
    for path in paths {
        if form.len() > REMOVAL_BYTES {
            forms.push(std::mem::take(&mut form));
        }
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(&encoded([("path", path.as_slice())]));
    }
    forms.extend((!form.is_empty()).then_some(form));
    for form in forms {
        client.post("/removeall", form, LONG).await?.text().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_count_what_is_at_and_below() {
        let below = |paths: &[&str], path: &str| {
            is_at_or_below(&paths.iter().map(|path| path.as_bytes()).collect(), path.as_bytes())
        };
        assert!(below(&["a"], "a") && below(&["a"], "a/b/c") && below(&["a/b"], "a/b/c") && below(&[""], "x/y"));
        assert!(!below(&["a"], "ab") && !below(&["a/b"], "a") && !below(&["b"], "a/b"));
    }
}
