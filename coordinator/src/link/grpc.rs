//! A link over gRPC: `mote.v1.Buildlet` on any channel.

use super::{Link, LinkError, LinkStream, Pieces};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use motefarm_cas::batch::BatchStream;
use motefarm_core::{ExecId, InstanceId, Timestamp};
use motefarm_net::dial::Bearer;
use motefarm_proto::mote::buildlet_client::BuildletClient;
use motefarm_proto::{MAX_MESSAGE_BYTES, mote};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Time for a call whose answer needs no work worth the name.
const SHORT: Duration = Duration::from_secs(15);
/// Time for a call that makes directories or ends processes.
const LONG: Duration = Duration::from_secs(60);
/// Time for a whole tree, its blobs or its files, over a slow line or onto a slow disk.
const BULK: Duration = Duration::from_secs(1800);
/// How long nothing may move on a stream of content. A piece costs a disk's write or a file's hash at most.
const SILENCE: Duration = Duration::from_secs(120);

type Client = BuildletClient<InterceptedService<Channel, Bearer>>;

/// See the module.
pub struct GrpcLink {
    /// Small messages.
    control: Client,
    /// Bulk: output, trees, archives. A connection of its own where there are two.
    bulk: Client,
}

impl GrpcLink {
    /// Over one channel for what is small and one (or the same) for what is not.
    pub fn new(control: Channel, bulk: Channel, bearer: Bearer) -> Self {
        let client = |channel| {
            BuildletClient::with_interceptor(channel, bearer.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
        Self { control: client(control), bulk: client(bulk) }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(LinkError::Lost(format!("no answer within {} s", limit.as_secs()))),
    }
}

fn stream<T: Send + 'static>(streaming: tonic::Streaming<T>) -> LinkStream<T> {
    streaming.map(|item| item.map_err(LinkError::from)).boxed()
}

/// A stream that is over when nothing comes on it for long.
fn moving<T: Send + 'static>(streaming: tonic::Streaming<T>) -> LinkStream<T> {
    stream::unfold(Some(streaming), |streaming| async move {
        let mut streaming = streaming?;
        match tokio::time::timeout(SILENCE, streaming.next()).await {
            Ok(Some(Ok(item))) => Some((Ok(item), Some(streaming))),
            Ok(Some(Err(status))) => Some((Err(status.into()), None)),
            Ok(None) => None,
            Err(_) => Some((Err(silent()), None)),
        }
    })
    .boxed()
}

fn silent() -> LinkError {
    LinkError::Lost(format!("nothing moved for {} s", SILENCE.as_secs()))
}

/// A put's messages. A type of its own, because the compiler can not see that a call fed by a boxed stream
/// may cross threads.
struct Feed<M>(BoxStream<'static, M>);

impl<M> Stream for Feed<M> {
    type Item = M;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.poll_next_unpin(context)
    }
}

/// A put's messages, and what is told whenever the buildlet has room for one more. The last one is
/// sent only when the pieces have ended: until then the buildlet takes nothing for whole.
fn feed<M: Send + 'static>(first: M, pieces: Pieces, message: fn(Bytes) -> M, last: M) -> (Feed<M>, Arc<Notify>) {
    let taken = Arc::new(Notify::new());
    let tell = taken.clone();
    let messages = stream::once(std::future::ready(first)).chain(pieces.map(message));
    let messages = messages.chain(stream::once(std::future::ready(last)));
    (Feed(messages.inspect(move |_| tell.notify_one()).boxed()), taken)
}

/// A call that may last as long as its stream of requests moves.
async fn while_taken<T>(
    taken: Arc<Notify>,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, LinkError> {
    let stands_still = async { while tokio::time::timeout(SILENCE, taken.notified()).await.is_ok() {} };
    tokio::select! {
        answer = call => Ok(answer?.into_inner()),
        () = stands_still => Err(silent()),
    }
}

#[tonic::async_trait]
impl Link for GrpcLink {
    async fn describe(&self) -> Result<mote::BuildletDescription, LinkError> {
        within(SHORT, self.control.clone().describe(mote::DescribeRequest {})).await
    }

    async fn watch(&self) -> Result<LinkStream<mote::BuildletReport>, LinkError> {
        within(SHORT, self.control.clone().watch(mote::WatchRequest {})).await.map(stream)
    }

    async fn create_instance(&self, request: mote::BuildletCreateInstanceRequest) -> Result<String, LinkError> {
        Ok(within(LONG, self.control.clone().create_instance(request)).await?.work_dir)
    }

    async fn end_instance(&self, id: InstanceId) -> Result<(), LinkError> {
        let request = mote::EndInstanceRequest { instance_id: id.to_string() };
        within(LONG, self.control.clone().end_instance(request)).await.map(drop)
    }

    async fn set_leases(&self, ends: Vec<(InstanceId, Timestamp)>) -> Result<(), LinkError> {
        let leases = ends
            .into_iter()
            .map(|(id, end)| mote::LeaseEnd { instance_id: id.to_string(), expires_at_ms: end.as_millis() })
            .collect();
        within(SHORT, self.control.clone().set_leases(mote::SetLeasesRequest { leases })).await.map(drop)
    }

    async fn execute(&self, request: mote::BuildletExecuteRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        within(LONG, self.bulk.clone().execute(request)).await.map(stream)
    }

    async fn attach(&self, request: mote::BuildletAttachExecRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        within(LONG, self.bulk.clone().attach_exec(request)).await.map(stream)
    }

    async fn list_execs(&self, id: InstanceId, only: &[ExecId]) -> Result<Vec<mote::ExecInfo>, LinkError> {
        let exec_ids = only.iter().map(ToString::to_string).collect();
        let request = mote::BuildletListExecsRequest { instance_id: id.to_string(), exec_ids };
        Ok(within(SHORT, self.control.clone().list_execs(request)).await?.execs)
    }

    async fn ack_output(&self, id: InstanceId, exec: ExecId, offset: u64) -> Result<(), LinkError> {
        let request = mote::BuildletAckOutputRequest { instance_id: id.to_string(), exec_id: exec.to_string(), offset };
        within(SHORT, self.control.clone().ack_output(request)).await.map(drop)
    }

    async fn write_stdin(
        &self,
        request: mote::BuildletWriteStdinRequest,
    ) -> Result<mote::BuildletWriteStdinResponse, LinkError> {
        within(SHORT, self.control.clone().write_stdin(request)).await
    }

    async fn signal(&self, id: InstanceId, exec: ExecId, signal: i32) -> Result<(), LinkError> {
        let request =
            mote::BuildletSignalExecRequest { instance_id: id.to_string(), exec_id: exec.to_string(), signal };
        within(SHORT, self.control.clone().signal_exec(request)).await.map(drop)
    }

    async fn cancel(&self, id: InstanceId, exec: ExecId, grace_ms: u64) -> Result<(), LinkError> {
        let request =
            mote::BuildletCancelExecRequest { instance_id: id.to_string(), exec_id: exec.to_string(), grace_ms };
        within(LONG, self.control.clone().cancel_exec(request)).await.map(drop)
    }

    async fn upload(&self, batches: BatchStream) -> Result<mote::UploadSummary, LinkError> {
        within(BULK, self.bulk.clone().upload_blobs(Request::new(batches))).await
    }

    async fn sync_tree(&self, id: InstanceId, sync: mote::TreeSync) -> Result<mote::TreeSyncResult, LinkError> {
        let request = mote::BuildletSyncTreeRequest { instance_id: id.to_string(), sync: Some(sync) };
        within(BULK, self.bulk.clone().sync_tree(request)).await
    }

    async fn get_tar(&self, request: mote::BuildletGetTarRequest) -> Result<LinkStream<mote::TarChunk>, LinkError> {
        within(LONG, self.bulk.clone().get_tar(request)).await.map(moving)
    }

    async fn put_file(
        &self,
        target: mote::BuildletPutFileTarget,
        content: Pieces,
    ) -> Result<mote::PutFileResponse, LinkError> {
        let first = mote::BuildletPutFileRequest { header: Some(target), ..Default::default() };
        let last = mote::BuildletPutFileRequest { end: true, ..Default::default() };
        let message = |data| mote::BuildletPutFileRequest { data, ..Default::default() };
        let (messages, taken) = feed(first, content, message, last);
        while_taken(taken, self.bulk.clone().put_file(Request::new(messages))).await
    }

    async fn put_tar(
        &self,
        target: mote::BuildletPutTarTarget,
        archive: Pieces,
    ) -> Result<mote::PutTarResponse, LinkError> {
        let first = mote::BuildletPutTarRequest { header: Some(target), ..Default::default() };
        let last = mote::BuildletPutTarRequest { end: true, ..Default::default() };
        let message = |data| mote::BuildletPutTarRequest { data, ..Default::default() };
        let (messages, taken) = feed(first, archive, message, last);
        while_taken(taken, self.bulk.clone().put_tar(Request::new(messages))).await
    }

    async fn get_file(&self, request: mote::BuildletGetFileRequest) -> Result<LinkStream<mote::FileChunk>, LinkError> {
        within(LONG, self.bulk.clone().get_file(request)).await.map(moving)
    }

    async fn list_dir(&self, request: mote::BuildletListDirRequest) -> Result<LinkStream<mote::DirListing>, LinkError> {
        within(LONG, self.bulk.clone().list_dir(request)).await.map(moving)
    }

    async fn remove_paths(&self, request: mote::BuildletRemovePathsRequest) -> Result<u64, LinkError> {
        Ok(within(BULK, self.bulk.clone().remove_paths(request)).await?.removed)
    }

    async fn open_session(
        &self,
        input: BoxStream<'static, mote::SessionInput>,
    ) -> Result<LinkStream<mote::SessionOutput>, LinkError> {
        within(LONG, self.bulk.clone().open_session(Request::new(Feed(input)))).await.map(stream)
    }

    async fn run_action(
        &self,
        input: BoxStream<'static, mote::RunActionInput>,
    ) -> Result<LinkStream<mote::RunActionOutput>, LinkError> {
        within(LONG, self.bulk.clone().run_action(Request::new(Feed(input)))).await.map(stream)
    }
}
