//! `mote-bridge seed`: brings a directory's files to a bridge before anybody compiles, so that a cold server
//! does not use up clients' attempts.

use crate::caller::Caller;
use crate::config::DEFAULT_PREFIX;
use crate::file_blob::Blob;
use crate::local_file::FileBlobs;
use anyhow::Context as _;
use http::Method;
use motefarm_proto::goma::{FileBlob, StoreFileReq, StoreFileResp};
use prost::Message as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Content of one call, before the last blob.
const CALL_BYTES: usize = 8 << 20;
/// Blobs of one call.
const CALL_BLOBS: usize = 1000;

/// What was brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seeded {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be read, or was not taken: path and reason.
    pub left_out: Vec<(PathBuf, String)>,
}

/// Blobs on their way.
struct Batch {
    caller: Caller,
    blobs: Vec<FileBlob>,
    /// Whose they are.
    paths: Vec<PathBuf>,
    bytes: usize,
    seeded: Seeded,
}

/// Brings every file below `dir`; links to files count as files, links to directories are not followed.
pub async fn seed(caller: Caller, dir: &Path) -> anyhow::Result<Seeded> {
    let mut batch = Batch { caller, blobs: Vec::new(), paths: Vec::new(), bytes: 0, seeded: Seeded::default() };
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("can not read {}", directory.display()));
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) if directory == dir => return Err(error),
            Err(error) => {
                batch.seeded.left_out.push((directory, format!("{error:#}")));
                continue;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            } else if fs::metadata(&path).is_ok_and(|meta| meta.is_file())
                && let Err(error) = batch.file(&path).await?
            {
                batch.seeded.left_out.push((path, error.to_string()));
            }
        }
    }
    batch.send().await?;
    Ok(batch.seeded)
}

impl Batch {
    /// One file. The inner error is the file's, the outer one the bridge's.
    async fn file(&mut self, path: &Path) -> anyhow::Result<std::io::Result<()>> {
        let mut blobs = match FileBlobs::open(path) {
            Ok(blobs) => blobs,
            Err(error) => return Ok(Err(error)),
        };
        for blob in blobs.by_ref() {
            match blob {
                Ok(blob) => self.add(path, blob).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        self.seeded.files += 1;
        self.seeded.bytes += blobs.bytes();
        Ok(Ok(()))
    }

    async fn add(&mut self, path: &Path, blob: Blob) -> anyhow::Result<()> {
        if let Blob::File(content) | Blob::Chunk { content, .. } = &blob {
            self.bytes += content.len();
        }
        self.blobs.push(blob.into_message());
        self.paths.push(path.to_owned());
        if self.bytes >= CALL_BYTES || self.blobs.len() >= CALL_BLOBS { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        if self.blobs.is_empty() {
            return Ok(());
        }
        let request = StoreFileReq { blob: std::mem::take(&mut self.blobs), requester_info: None }.encode_to_vec();
        self.bytes = 0;
        let answer = self.caller.call(Method::POST, &format!("{DEFAULT_PREFIX}/s"), request).await?;
        let answer = StoreFileResp::decode(answer)?;
        for (path, key) in std::mem::take(&mut self.paths).into_iter().zip(answer.hash_key) {
            if key.is_empty() {
                self.seeded.left_out.push((path, "the bridge did not take it; its log says why".to_owned()));
            }
        }
        Ok(())
    }
}
