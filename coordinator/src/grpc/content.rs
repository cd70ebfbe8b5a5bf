//! `mote.v1.Content`.

use super::status::caller;
use crate::app::App;
use crate::farm::content;
use crate::identity::Identity;
use motefarm_cas::store::VerifyProgress;
use motefarm_core::Digest;
use motefarm_proto::mote;
use motefarm_proto::mote::content_server::Content;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(super) struct ContentService(pub(super) Arc<App>);

type Answer<T> = Result<Response<T>, Status>;
type Events = mpsc::Sender<Result<mote::VerifyContentEvent, Status>>;

/// How often somebody who verifies hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Blobs looked at and not yet told.
const AHEAD: usize = 1024;

#[tonic::async_trait]
impl Content for ContentService {
    async fn describe_content(
        &self,
        _: Request<mote::DescribeContentRequest>,
    ) -> Answer<mote::DescribeContentResponse> {
        let stats = self.0.cas.stats();
        Ok(Response::new(mote::DescribeContentResponse {
            blobs: stats.blobs,
            blob_bytes: stats.blob_bytes,
            disk_bytes: stats.disk_bytes,
            max_bytes: stats.max_bytes,
            packs: stats.packs,
            large_files: stats.large_files,
            pinned: stats.pinned,
        }))
    }

    async fn collect_content(
        &self,
        request: Request<mote::CollectContentRequest>,
    ) -> Answer<mote::CollectContentResponse> {
        let caller = caller(&request)?;
        let (collected, disk_bytes) = content::collect(&self.0, &caller, request.get_ref().target_bytes).await?;
        Ok(Response::new(mote::CollectContentResponse {
            blobs: collected.blobs,
            freed_bytes: collected.disk_bytes,
            disk_bytes,
        }))
    }

    type VerifyContentStream = ReceiverStream<Result<mote::VerifyContentEvent, Status>>;

    /// Stops when the caller leaves.
    async fn verify_content(&self, request: Request<mote::VerifyContentRequest>) -> Answer<Self::VerifyContentStream> {
        let (caller, discard) = (caller(&request)?, request.get_ref().discard);
        let (events, receiver) = mpsc::channel(4);
        let app = self.0.clone();
        self.0.spawn(async move {
            let shutdown = app.shutdown.clone();
            tokio::select! {
                result = verify(&app, &caller, discard, &events) => {
                    if let Err(status) = result {
                        let _ = events.send(Err(status)).await;
                    }
                }
                () = shutdown.cancelled() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn verify(app: &Arc<App>, caller: &Identity, discard: bool, events: &Events) -> Result<(), Status> {
    let (tell, mut told) = mpsc::channel::<VerifyProgress>(AHEAD);
    let reading = {
        let app = app.clone();
        tokio::spawn(async move { content::verify(&app, tell).await })
    };
    let mut event = mote::VerifyContentEvent::default();
    let mut bad: Vec<Digest> = Vec::new();
    let mut next = Instant::now() + TELL_EVERY;
    while let Some(progress) = told.recv().await {
        event.blobs = progress.blobs;
        event.bytes = progress.bytes;
        event.all_blobs = progress.all_blobs;
        event.all_bytes = progress.all_bytes;
        event.bad.extend(progress.bad.map(mote::Digest::from));
        bad.extend(progress.bad);
        if progress.bad.is_some() || Instant::now() >= next {
            next = Instant::now() + TELL_EVERY;
            let so_far = mote::VerifyContentEvent { bad: std::mem::take(&mut event.bad), ..event.clone() };
            if events.send(Ok(so_far)).await.is_err() {
                return Ok(());
            }
        }
    }
    reading.await.map_err(|_| Status::internal("the verification was not finished"))??;
    if discard {
        event.discarded = content::discard(app, caller, bad).await?;
    }
    event.end = true;
    let _ = events.send(Ok(event)).await;
    Ok(())
}
