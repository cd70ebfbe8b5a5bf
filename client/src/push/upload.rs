//! Content on its way to the farm's store: only what is not there, in few messages.

use crate::connection::Farm;
use crate::error::Error;
use crate::progress::Bar;
use crate::resume::SHORT_PATIENCE;
use futures_util::StreamExt as _;
use motefarm_cas::batch::{self, BatchPacker, PackError};
use motefarm_cas::snapshot::Snapshot;
use motefarm_core::Digest;
use motefarm_proto::{convert, mote, reapi};
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

/// Digests in one question: 40,000 of at most 82 bytes are 3.3 MB, within REAPI's customary 4 MiB.
const MAX_ASKED: usize = 40_000;

pub(crate) enum UploadError {
    /// A file is not any more what was walked.
    Changed(PathBuf),
    /// Another walk would not help.
    Failed(Error),
}

/// Those of `digests` that the farm's store lacks.
pub(crate) async fn find_missing(
    farm: &Farm,
    digests: impl IntoIterator<Item = Digest>,
) -> Result<HashSet<Digest>, Error> {
    const DOING: &str = "ask what the farm lacks";
    let digests: Vec<_> = digests.into_iter().map(convert::to_reapi_digest).collect();
    let mut missing = HashSet::new();
    for part in digests.chunks(MAX_ASKED) {
        let request = reapi::FindMissingBlobsRequest { blob_digests: part.to_vec(), ..Default::default() };
        let ask = async |_| farm.missing_blobs(request.clone()).await;
        let answer = farm.call(DOING, ask).await?;
        for digest in &answer.missing_blob_digests {
            missing.insert(convert::reapi_digest(digest).map_err(|e| Error::protocol(DOING, e))?);
        }
    }
    Ok(missing)
}

/// Uploads `wanted`, of which `walked` has the contents. After a cut only what is then still
/// missing.
pub(crate) async fn upload(
    farm: &Farm,
    walked: &Snapshot,
    mut wanted: HashSet<Digest>,
    bar: &Bar,
) -> Result<mote::UploadSummary, UploadError> {
    let mut retry = farm.retry("upload the tree", SHORT_PATIENCE);
    loop {
        let blobs = walked.blobs(&wanted);
        let packer = BatchPacker::new(blobs);
        let packer = if farm.is_local() { packer.uncompressed() } else { packer };
        let (batches, packed) = batch::stream(packer);
        let seen = bar.clone();
        let batches = batches.inspect(move |batch| seen.add(content_bytes(batch)));
        let answer = farm.client().upload_blobs(batches).await;
        // First: a file that changed makes the farm see a short stream.
        packed.wait().await.map_err(UploadError::from)?;
        match answer {
            Ok(summary) => return Ok(summary.into_inner()),
            Err(failure) => {
                retry.wait(&failure).await.map_err(UploadError::Failed)?;
                wanted = find_missing(farm, wanted).await.map_err(UploadError::Failed)?;
                retry.contact();
                bar.restart();
            }
        }
    }
}

/// What a batch holds, before it was compressed.
fn content_bytes(batch: &mote::BlobBatch) -> u64 {
    match batch.is_piece {
        true => batch.data.len() as u64,
        false => batch.digests.iter().map(|digest| digest.size_bytes).sum(),
    }
}

impl From<PackError> for UploadError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Changed(path) => Self::Changed(path),
            PackError::Io { path, source } if source.kind() == io::ErrorKind::NotFound => Self::Changed(path),
            PackError::Io { path, source } => Self::Failed(Error::file("read", &path, source)),
            other => Self::Failed(Error::local("pack the tree", io::Error::other(other))),
        }
    }
}
