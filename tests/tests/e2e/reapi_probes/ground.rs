//! A farm, and a client of the Remote Execution API that says anything.

use crate::farm;
use motefarm_core::Digest;
use motefarm_proto::convert::{reapi_digest, to_reapi_digest};
use motefarm_proto::reapi::action_cache_client::ActionCacheClient;
use motefarm_proto::reapi::bytestream::byte_stream_client::ByteStreamClient;
use motefarm_proto::reapi::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::execution_client::ExecutionClient;
use motefarm_proto::reapi::longrunning::{Operation, operation};
use motefarm_proto::reapi::{
    Action, ActionResult, BatchUpdateBlobsRequest, Command, ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse,
    FindMissingBlobsRequest, batch_update_blobs_request, rpc,
};
use motefarm_tests::TestFarm;
use motefarm_tests::rpc::{Authorized, Rpc};
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::{Code, Status, Streaming};

/// See the module.
pub(super) struct Ground {
    farm: TestFarm,
    pub(super) rpc: Rpc,
    counter: AtomicU64,
}

/// What became of an Execute.
#[derive(Default)]
pub(super) struct Executed {
    /// Of each Operation, in order: -1 where it had no metadata.
    pub(super) stages: Vec<i32>,
    pub(super) response: ExecuteResponse,
    /// The status, of the call or in the response.
    pub(super) status: rpc::Status,
}

impl Executed {
    pub(super) fn result(&self) -> ActionResult {
        self.response.result.clone().unwrap_or_default()
    }

    /// The status if it is one of failure, else what `ok` says of the result.
    pub(super) fn or(&self, ok: impl FnOnce(&ActionResult) -> String) -> String {
        match Code::from_i32(self.status.code) {
            Code::Ok => ok(&self.result()),
            code => name(code),
        }
    }
}

impl Ground {
    pub(super) fn new() -> Self {
        let farm = farm().config("[reapi]\nclients_may_write_action_cache = true").start();
        let rpc = Rpc::connect(&farm.profile(), None);
        Self { farm, rpc, counter: AtomicU64::new(0) }
    }

    pub(super) fn finish(self) {
        drop(self.rpc);
        self.farm.finish();
    }

    pub(super) fn cas(&self) -> ContentAddressableStorageClient<Authorized> {
        ContentAddressableStorageClient::new(self.rpc.authorized())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20)
    }

    pub(super) fn streams(&self) -> ByteStreamClient<Authorized> {
        ByteStreamClient::new(self.rpc.authorized())
    }

    pub(super) fn action_cache(&self) -> ActionCacheClient<Authorized> {
        ActionCacheClient::new(self.rpc.authorized())
    }

    pub(super) fn execution(&self) -> ExecutionClient<Authorized> {
        ExecutionClient::new(self.rpc.authorized())
    }

    /// Content that nobody has put yet, and that does not compress.
    pub(super) fn fresh(&self, size: usize) -> Vec<u8> {
        let seed = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        motefarm_tests::Dice::new(seed).bytes(size)
    }

    /// Puts a blob in a batch.
    pub(super) fn put(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let answer = self.update(vec![entry(digest, content, 0)]);
        assert_eq!(answer, [Code::Ok], "a good blob is taken");
        digest
    }

    /// Puts a message.
    pub(super) fn put_message(&self, message: &impl Message) -> Digest {
        self.put(&message.encode_to_vec())
    }

    /// The status of each entry of a batch; of the call if that failed.
    pub(super) fn update(&self, requests: Vec<batch_update_blobs_request::Request>) -> Vec<Code> {
        let update = BatchUpdateBlobsRequest { requests, ..Default::default() };
        let code = |status: Option<rpc::Status>| Code::from_i32(status.unwrap_or_default().code);
        match self.rpc.wait(self.cas().batch_update_blobs(update)) {
            Ok(answer) => answer.into_inner().responses.into_iter().map(|entry| code(entry.status)).collect(),
            Err(status) => vec![status.code()],
        }
    }

    /// Which of these are not there.
    pub(super) fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let blob_digests = digests.iter().copied().map(to_reapi_digest).collect();
        let find = FindMissingBlobsRequest { blob_digests, ..Default::default() };
        let answer = self.rpc.wait(self.cas().find_missing_blobs(find)).expect("an answer").into_inner();
        answer.missing_blob_digests.iter().map(|digest| reapi_digest(digest).expect("a digest")).collect()
    }

    /// Writes; the committed size.
    pub(super) fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let written = self.rpc.wait(self.streams().write(tokio_stream::iter(messages)));
        written.map(|answer| answer.into_inner().committed_size)
    }

    /// Reads all that is answered.
    pub(super) fn read(&self, name: &str, read_offset: i64, read_limit: i64) -> Result<Vec<u8>, Status> {
        let request = ReadRequest { resource_name: name.to_owned(), read_offset, read_limit };
        self.rpc.wait(async {
            let mut pieces = self.streams().read(request).await?.into_inner();
            let mut content = Vec::new();
            while let Some(piece) = pieces.message().await? {
                content.extend(piece.data);
            }
            Ok(content)
        })
    }

    /// Committed size of a write, and whether it is complete.
    pub(super) fn query(&self, name: &str) -> Result<(i64, bool), Status> {
        let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
        let answer = self.rpc.wait(self.streams().query_write_status(request))?.into_inner();
        Ok((answer.committed_size, answer.complete))
    }

    /// An action over an input root that holds nothing, put with its command.
    pub(super) fn action(&self, command: &Command, shape: impl FnOnce(&mut Action)) -> Digest {
        let mut action = Action {
            command_digest: Some(to_reapi_digest(self.put_message(command))),
            input_root_digest: Some(to_reapi_digest(Digest::EMPTY)),
            ..Default::default()
        };
        shape(&mut action);
        self.put_message(&action)
    }

    /// Executes to the end.
    pub(super) fn execute(&self, action: Digest, skip_cache_lookup: bool) -> Executed {
        let action_digest = Some(to_reapi_digest(action));
        let request = ExecuteRequest { action_digest, skip_cache_lookup, ..Default::default() };
        self.rpc.wait(async {
            let mut executed = Executed::default();
            let result = match self.execution().execute(request).await {
                Ok(answer) => follow(answer.into_inner(), &mut executed).await,
                Err(status) => Err(status),
            };
            if let Err(status) = result {
                executed.status = of_call(&status);
            }
            executed
        })
    }

    /// Runs a shell script as an action that nobody has run before; what is listed in `outputs` is kept.
    pub(super) fn shell(&self, script: &str, outputs: &[&str]) -> Executed {
        let command = script_of(script, outputs);
        let salt = self.fresh(16);
        let action = self.action(&command, |action| action.salt = salt);
        self.execute(action, false)
    }
}

async fn follow(mut operations: Streaming<Operation>, executed: &mut Executed) -> Result<(), Status> {
    while let Some(operation) = operations.message().await? {
        let stage = operation.metadata.as_ref().and_then(|any| ExecuteOperationMetadata::decode(&any.value[..]).ok());
        executed.stages.push(stage.map_or(-1, |metadata| metadata.stage));
        if let Some(operation::Result::Response(any)) = operation.result {
            executed.response = ExecuteResponse::decode(&any.value[..]).expect("an ExecuteResponse");
            executed.status = executed.response.status.clone().unwrap_or_default();
        }
    }
    Ok(())
}

/// A call's status with what its trailers say.
fn of_call(status: &Status) -> rpc::Status {
    let details = rpc::Status::decode(status.details()).unwrap_or_default();
    rpc::Status { code: status.code().into(), message: status.message().to_owned(), ..details }
}

/// A shell script, keeping what is listed.
pub(super) fn script_of(script: &str, outputs: &[&str]) -> Command {
    Command {
        arguments: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
        ..Default::default()
    }
}

/// An entry of a batch.
pub(super) fn entry(digest: Digest, data: &[u8], compressor: i32) -> batch_update_blobs_request::Request {
    batch_update_blobs_request::Request { digest: Some(to_reapi_digest(digest)), data: data.to_vec(), compressor }
}

/// `INVALID_ARGUMENT` and so on, as the API spells them.
pub(super) fn name(code: Code) -> String {
    let mut name = String::new();
    for (n, c) in format!("{code:?}").chars().enumerate() {
        if c.is_uppercase() && n > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// What was answered, or the status.
pub(super) fn told<T>(answer: Result<T, Status>, ok: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(answer) => ok(answer),
        Err(status) => name(status.code()),
    }
}

/// `yes` or `no`.
pub(super) fn yes(is: bool) -> String {
    if is { "yes".to_owned() } else { "no".to_owned() }
}
