//! A tree, directory by directory, for `GetTree`.

use super::status;
use crate::store::{BlobSource, Store};
use crate::tree::MAX_DIRECTORY_BYTES;
use motefarm_core::Digest;
use motefarm_proto::convert;
use motefarm_proto::reapi::{Directory, GetTreeResponse};
use prost::Message as _;
use std::collections::{HashSet, VecDeque};
use tonic::Status;

/// A page is closed when its directories are this large together: under the 4 MiB that clients
/// receive by default, unless one directory alone is larger.
const PAGE_BYTES: usize = 2 << 20;
/// Directories on a page when the client does not say.
const PAGE_DIRECTORIES: usize = 1000;

/// Yields the pages of a tree, root first, each different directory once. Directories that are not
/// there, or are none, are left out: the API leaves completeness to the reader.
pub(super) struct TreePages {
    store: Store,
    queue: VecDeque<Digest>,
    seen: HashSet<Digest>,
    page_size: usize,
    /// Directories sent or skipped so far; a page token is this number.
    sent: u64,
    skip: u64,
    done: bool,
}

impl TreePages {
    /// Pages from `token` on. NOT_FOUND without the root, INVALID_ARGUMENT if it is no directory.
    pub(super) fn new(store: Store, root: Digest, page_size: i32, token: &str) -> Result<Self, Status> {
        let skip = match token {
            "" => 0,
            token => token.parse().map_err(|_| Status::invalid_argument("page_token is none of ours"))?,
        };
        let page_size = usize::try_from(page_size).map_err(|_| Status::invalid_argument("page_size is negative"))?;
        let read = store.read(&root, MAX_DIRECTORY_BYTES).map_err(|error| status::of_store(&error))?;
        let bytes = read.ok_or_else(|| Status::not_found(format!("directory {root} is not in the store")))?;
        if let Err(error) = Directory::decode(&bytes[..]) {
            return Err(Status::invalid_argument(format!("root_digest {root} is no Directory: {error}")));
        }
        let page_size = if page_size == 0 { PAGE_DIRECTORIES } else { page_size };
        Ok(Self {
            store,
            queue: VecDeque::from([root]),
            seen: HashSet::from([root]),
            page_size,
            sent: 0,
            skip,
            done: false,
        })
    }

    /// The next directory that is there.
    fn directory(&mut self) -> Result<Option<(Directory, usize)>, Status> {
        while let Some(digest) = self.queue.pop_front() {
            let read = self.store.read(&digest, MAX_DIRECTORY_BYTES).map_err(|error| status::of_store(&error))?;
            let Some(bytes) = read else { continue };
            let Ok(directory) = Directory::decode(&bytes[..]) else { continue };
            for node in &directory.directories {
                let digest = node.digest.as_ref().and_then(|digest| convert::reapi_digest(digest).ok());
                self.queue.extend(digest.filter(|digest| self.seen.insert(*digest)));
            }
            self.sent += 1;
            if self.sent > self.skip {
                return Ok(Some((directory, bytes.len())));
            }
        }
        Ok(None)
    }

    fn page(&mut self) -> Result<GetTreeResponse, Status> {
        let mut page = GetTreeResponse::default();
        let mut bytes = 0;
        while page.directories.len() < self.page_size && bytes < PAGE_BYTES {
            let Some((directory, size)) = self.directory()? else {
                self.done = true;
                return Ok(page);
            };
            bytes += size;
            page.directories.push(directory);
        }
        if self.queue.is_empty() {
            self.done = true;
        } else {
            page.next_page_token = self.sent.to_string();
        }
        Ok(page)
    }
}

impl Iterator for TreePages {
    type Item = Result<GetTreeResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let page = self.page();
        self.done |= page.is_err();
        Some(page)
    }
}
