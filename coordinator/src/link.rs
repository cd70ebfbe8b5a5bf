//! The way to one buildlet.
//!
//! A trait, because there are several: [`grpc`] over whatever stream there is, [`go_agent`] over
//! connections that Go's own agent dials, and the [`fake`] that tests drive. Messages that are only handed through stay
//! messages; [`LinkError`] tells apart "it refused" from "it is not there".

pub mod fake;
pub mod go_agent;
pub mod grpc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use motefarm_cas::batch::BatchStream;
use motefarm_core::{ExecId, InstanceId, Timestamp};
use motefarm_proto::mote;
use tonic::{Code, Status};

/// Why a buildlet did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Out of contact: nothing is known of whether it was done. Calls may be repeated.
    #[error("{0}")]
    Lost(String),
    /// It answered, and refused.
    #[error("the buildlet refused: {}", .0.message())]
    Refused(Box<Status>),
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        // hyper's broken connections come as Unknown or Internal with a source; a buildlet's own
        // refusals never have one. CANCELLED is a stream reset by a dying connection.
        let transport = std::error::Error::source(&status).is_some();
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Self::Lost(status.message().to_owned()),
            _ if transport => Self::Lost(status.message().to_owned()),
            _ => Self::Refused(Box::new(status)),
        }
    }
}

/// A stream of events from a buildlet.
pub type LinkStream<T> = BoxStream<'static, Result<T, LinkError>>;

/// Content on its way to a buildlet, in pieces of at most [`motefarm_proto::MAX_CHUNK_BYTES`]. Its end means that
/// all is there; whoever can not go on gives up the call instead of ending it.
pub type Pieces = BoxStream<'static, Bytes>;

/// Everything asked of a buildlet. Every call may be repeated. Dropping a future or stream gives up
/// waiting, never undoes.
#[tonic::async_trait]
pub trait Link: Send + Sync + 'static {
    /// What it is.
    async fn describe(&self) -> Result<mote::BuildletDescription, LinkError>;
    /// Its state, now and after every change.
    async fn watch(&self) -> Result<LinkStream<mote::BuildletReport>, LinkError>;
    /// Makes an instance; answers its work directory.
    async fn create_instance(&self, request: mote::BuildletCreateInstanceRequest) -> Result<String, LinkError>;
    /// Ends every process of an instance and puts its directory out of the way.
    async fn end_instance(&self, id: InstanceId) -> Result<(), LinkError>;
    /// Tells when leases end now.
    async fn set_leases(&self, ends: Vec<(InstanceId, Timestamp)>) -> Result<(), LinkError>;
    /// Starts (once) and streams.
    async fn execute(&self, request: mote::BuildletExecuteRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError>;
    /// Streams.
    async fn attach(&self, request: mote::BuildletAttachExecRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError>;
    /// Executions of an instance: these, or all if none is named.
    async fn list_execs(&self, id: InstanceId, only: &[ExecId]) -> Result<Vec<mote::ExecInfo>, LinkError>;
    /// Releases output.
    async fn ack_output(&self, id: InstanceId, exec: ExecId, offset: u64) -> Result<(), LinkError>;
    /// Feeds stdin.
    async fn write_stdin(
        &self,
        request: mote::BuildletWriteStdinRequest,
    ) -> Result<mote::BuildletWriteStdinResponse, LinkError>;
    /// Signals.
    async fn signal(&self, id: InstanceId, exec: ExecId, signal: i32) -> Result<(), LinkError>;
    /// Cancels.
    async fn cancel(&self, id: InstanceId, exec: ExecId, grace_ms: u64) -> Result<(), LinkError>;
    /// Fills the buildlet's own store.
    async fn upload(&self, batches: BatchStream) -> Result<mote::UploadSummary, LinkError>;
    /// Makes a directory equal to a tree, or tells what blobs that lacks.
    async fn sync_tree(&self, id: InstanceId, sync: mote::TreeSync) -> Result<mote::TreeSyncResult, LinkError>;
    /// Streams an archive.
    async fn get_tar(&self, request: mote::BuildletGetTarRequest) -> Result<LinkStream<mote::TarChunk>, LinkError>;
    /// Writes one file.
    async fn put_file(
        &self,
        target: mote::BuildletPutFileTarget,
        content: Pieces,
    ) -> Result<mote::PutFileResponse, LinkError>;
    /// Unpacks an archive.
    async fn put_tar(
        &self,
        target: mote::BuildletPutTarTarget,
        archive: Pieces,
    ) -> Result<mote::PutTarResponse, LinkError>;
    /// Streams a file.
    async fn get_file(&self, request: mote::BuildletGetFileRequest) -> Result<LinkStream<mote::FileChunk>, LinkError>;
    /// Lists a directory.
    async fn list_dir(&self, request: mote::BuildletListDirRequest) -> Result<LinkStream<mote::DirListing>, LinkError>;
    /// Removes files and directories; answers how many entries that were.
    async fn remove_paths(&self, request: mote::BuildletRemovePathsRequest) -> Result<u64, LinkError>;
    /// Runs one process for as long as `input` lasts. The first input says which.
    async fn open_session(
        &self,
        input: BoxStream<'static, mote::SessionInput>,
    ) -> Result<LinkStream<mote::SessionOutput>, LinkError>;
    /// Runs one action for as long as `input` lasts. The first input says which.
    async fn run_action(
        &self,
        input: BoxStream<'static, mote::RunActionInput>,
    ) -> Result<LinkStream<mote::RunActionOutput>, LinkError>;
}
