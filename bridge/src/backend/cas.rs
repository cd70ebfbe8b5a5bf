//! The server's CAS: what it lacks, and small blobs in batches. Every blob that is read is checked against its
//! digest: servers lie, mostly by accident.

use super::in_flight::{self, Claimed};
use super::retry::{is_too_big, is_transient, retrying};
use super::{Backend, Fault, Stage};
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert::{reapi_digest, to_reapi_digest};
use motefarm_proto::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, batch_update_blobs_request,
};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::Duration;
use tonic::{Code, Status};

/// Bytes of a batch's message that a blob takes besides its content, with some air.
const BLOB_OVERHEAD_BYTES: u64 = 128;
/// Most digests of one question, as the other clients ask: 750 KB.
const FIND_DIGESTS: usize = 10_000;
/// Longest wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())));
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(late)
}

impl Backend {
    /// Which of these the CAS lacks. The empty blob is never lacking.
    pub async fn missing(&self, stage: Stage, digests: &[Digest]) -> Result<HashSet<Digest>, Fault> {
        let wanted: HashSet<Digest> = digests.iter().copied().filter(|digest| *digest != Digest::EMPTY).collect();
        let wanted: Vec<Digest> = wanted.into_iter().collect();
        let mut missing = HashSet::new();
        for some in wanted.chunks(FIND_DIGESTS) {
            let request = FindMissingBlobsRequest {
                instance_name: self.instance(),
                blob_digests: some.iter().copied().map(to_reapi_digest).collect(),
                ..FindMissingBlobsRequest::default()
            };
            let answer = retrying(stage, || {
                let (mut client, request) = (self.cas_client(), request.clone());
                async move { in_time(client.find_missing_blobs(request)).await }
            });
            missing.extend(answer.await?.into_inner().missing_blob_digests.iter().filter_map(|d| reapi_digest(d).ok()));
        }
        Ok(missing)
    }

    /// Sees to it that all of these are in the CAS: asks what is missing, sends that, and waits for what
    /// others are sending. Cancellation safe: what was sent is there.
    pub async fn put(&self, stage: Stage, blobs: &[(Digest, Bytes)]) -> Result<(), Fault> {
        let contents: HashMap<Digest, &Bytes> = blobs.iter().map(|(digest, content)| (*digest, content)).collect();
        let mut wanted: Vec<Digest> = contents.keys().copied().filter(|digest| *digest != Digest::EMPTY).collect();
        // Each round waits for others once; whoever fails leaves its blobs to those who waited.
        while !wanted.is_empty() {
            let Claimed { ours, theirs } = self.in_flight.claim(std::mem::take(&mut wanted));
            if !ours.digests().is_empty() {
                let missing = self.missing(stage, ours.digests()).await?;
                let sending: Vec<(Digest, Bytes)> =
                    missing.iter().filter_map(|d| Some((*d, (*contents.get(d)?).clone()))).collect();
                self.send(stage, sending).await?;
            }
            ours.succeeded();
            for (digest, other) in theirs {
                if !in_flight::ended(other).await {
                    wanted.push(digest);
                }
            }
        }
        Ok(())
    }

    /// Sends blobs that are missing: small ones together, each of the others by itself.
    async fn send(&self, stage: Stage, blobs: Vec<(Digest, Bytes)>) -> Result<(), Fault> {
        let limit = self.abilities().await?.batch_bytes;
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for (digest, content) in blobs {
            let bytes = digest.size_bytes() + BLOB_OVERHEAD_BYTES;
            if bytes + BLOB_OVERHEAD_BYTES > limit {
                self.write(stage, digest, content).await?;
                continue;
            }
            if batch_bytes + bytes + BLOB_OVERHEAD_BYTES > limit {
                self.send_batch(stage, std::mem::take(&mut batch)).await?;
                batch_bytes = 0;
            }
            batch_bytes += bytes;
            batch.push((digest, content));
        }
        self.send_batch(stage, batch).await
    }

    async fn send_batch(&self, stage: Stage, batch: Vec<(Digest, Bytes)>) -> Result<(), Fault> {
        if batch.is_empty() {
            return Ok(());
        }
        let requests = batch.iter().map(|(digest, content)| batch_update_blobs_request::Request {
            digest: Some(to_reapi_digest(*digest)),
            data: content.to_vec(),
            ..Default::default()
        });
        let request = BatchUpdateBlobsRequest {
            instance_name: self.instance(),
            requests: requests.collect(),
            ..BatchUpdateBlobsRequest::default()
        };
        self.sent.add(stage, batch.iter().map(|(_, content)| content.len()).sum());
        let sent = in_time(self.cas_client().batch_update_blobs(request)).await;
        let statuses = match sent {
            Ok(answer) => answer.into_inner().responses,
            // Not worth guessing which half fits: one by one they are not bounded.
            Err(status) if is_too_big(status.code()) || is_transient(status.code()) => {
                tracing::debug!(code = ?status.code(), blobs = batch.len(), "a batch was not taken; its blobs go one by one");
                return self.write_all(stage, batch).await;
            }
            Err(status) => return Err(Fault::of(stage, &status)),
        };
        let refused: HashMap<Digest, (i32, String)> = statuses
            .into_iter()
            .filter_map(|response| {
                let digest = reapi_digest(response.digest.as_ref()?).ok()?;
                let status = response.status.filter(|status| status.code != 0)?;
                Some((digest, (status.code, status.message)))
            })
            .collect();
        let again: Vec<_> = batch.into_iter().filter(|(digest, _)| refused.contains_key(digest)).collect();
        for (digest, (code, message)) in &refused {
            if !is_transient(Code::from(*code)) && !is_too_big(Code::from(*code)) {
                return Err(Fault::new(stage, Code::from(*code), format!("blob {digest} was not taken: {message}")));
            }
        }
        self.write_all(stage, again).await
    }

    async fn write_all(&self, stage: Stage, blobs: Vec<(Digest, Bytes)>) -> Result<(), Fault> {
        for (digest, content) in blobs {
            self.write(stage, digest, content).await?;
        }
        Ok(())
    }

    /// Reads blobs, each of which may be held in memory, in order.
    pub async fn read_all(&self, stage: Stage, digests: &[Digest]) -> Result<Vec<Bytes>, Fault> {
        let limit = self.abilities().await?.batch_bytes;
        let mut found: HashMap<Digest, Bytes> = HashMap::from([(Digest::EMPTY, Bytes::new())]);
        let mut batch: Vec<Digest> = Vec::new();
        let mut batch_bytes = 0;
        let mut seen = HashSet::from([Digest::EMPTY]);
        for digest in digests {
            let bytes = digest.size_bytes() + BLOB_OVERHEAD_BYTES;
            if !seen.insert(*digest) {
                continue;
            }
            if bytes + BLOB_OVERHEAD_BYTES > limit {
                found.insert(*digest, self.read(stage, *digest).await?);
                continue;
            }
            if batch_bytes + bytes + BLOB_OVERHEAD_BYTES > limit {
                self.read_batch(stage, &std::mem::take(&mut batch), &mut found).await?;
                batch_bytes = 0;
            }
            batch_bytes += bytes;
            batch.push(*digest);
        }
        self.read_batch(stage, &batch, &mut found).await?;
        digests.iter().map(|digest| found.get(digest).cloned().ok_or_else(|| lost(stage, digest))).collect()
    }

    async fn read_batch(
        &self,
        stage: Stage,
        digests: &[Digest],
        found: &mut HashMap<Digest, Bytes>,
    ) -> Result<(), Fault> {
        if digests.is_empty() {
            return Ok(());
        }
        let request = BatchReadBlobsRequest {
            instance_name: self.instance(),
            digests: digests.iter().copied().map(to_reapi_digest).collect(),
            ..BatchReadBlobsRequest::default()
        };
        let answer = retrying(stage, || {
            let (mut client, request) = (self.cas_client(), request.clone());
            async move { in_time(client.batch_read_blobs(request)).await }
        });
        let mut again: HashSet<Digest> = digests.iter().copied().collect();
        match answer.await {
            Ok(answer) => {
                for response in answer.into_inner().responses {
                    let digest = response.digest.as_ref().and_then(|digest| reapi_digest(digest).ok());
                    let Some(digest) = digest.filter(|digest| again.contains(digest)) else { continue };
                    if response.status.as_ref().is_some_and(|status| status.code != 0) {
                        continue;
                    }
                    found.insert(digest, check(stage, digest, response.data.into())?);
                    again.remove(&digest);
                }
            }
            Err(fault)
                if is_too_big(fault.code) || matches!(fault.code, Code::InvalidArgument | Code::Unimplemented) => {}
            Err(fault) => return Err(fault),
        }
        // What a batch did not bring, a stream may, or says why not.
        for digest in again {
            found.insert(digest, self.read(stage, digest).await?);
        }
        Ok(())
    }
}

/// The content, if it is what its digest says.
pub(super) fn check(stage: Stage, digest: Digest, content: Bytes) -> Result<Bytes, Fault> {
    let actual = Digest::of(&content);
    if actual == digest {
        return Ok(content);
    }
    let message = format!("the server's blob {digest} is {actual}: its content is damaged");
    Err(Fault::new(stage, Code::DataLoss, message))
}

pub(super) fn lost(stage: Stage, digest: &Digest) -> Fault {
    Fault::new(stage, Code::NotFound, format!("the server has no blob {digest}"))
}
