//! Compiling on the farm: actions on the real programs, asked for in the clear on loopback as Bazel and its
//! like do, and each program killed in the middle.

use crate::{farm, seconds};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::bytestream::ReadRequest;
use motefarm_proto::reapi::bytestream::byte_stream_client::ByteStreamClient;
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::execution_client::ExecutionClient;
use motefarm_proto::reapi::execution_stage::Value as Stage;
use motefarm_proto::reapi::longrunning::operations_client::OperationsClient;
use motefarm_proto::reapi::longrunning::{CancelOperationRequest, Operation, operation};
use motefarm_proto::reapi::{
    self, Action, BatchUpdateBlobsRequest, Command, Directory, ExecuteOperationMetadata, ExecuteRequest,
    ExecuteResponse, FileNode, Platform, WaitExecutionRequest, batch_update_blobs_request, command, platform,
};
use motefarm_tests::joined::{HOST_TYPE, Joined};
use motefarm_tests::rpc::Rpc;
use motefarm_tests::{Dice, TestFarm, files, processes, wait};
use prost::Message as _;
use std::path::Path;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// A client that knows nothing of TLS, tokens or this farm but its address.
struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    fn new(farm: &TestFarm) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("http://{}", farm.address())).expect("an address");
        // Lazy: it outlives the coordinator, as build tools do.
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        Self { runtime, channel }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(seconds(120), future).await };
        self.runtime.block_on(limited).expect("an answer within two minutes")
    }

    fn put(&self, content: &[u8]) -> reapi::Digest {
        let digest = to_reapi_digest(Digest::of(content));
        let blob = batch_update_blobs_request::Request {
            digest: Some(digest.clone()),
            data: content.to_vec(),
            ..Default::default()
        };
        let request = BatchUpdateBlobsRequest { requests: vec![blob], ..Default::default() };
        let mut client = ContentAddressableStorageClient::new(self.channel.clone());
        let answer = self.wait(client.batch_update_blobs(request)).expect("a batch is taken").into_inner();
        assert!(answer.responses.iter().all(|one| one.status.as_ref().is_none_or(|status| status.code == 0)));
        digest
    }

    /// An action on these files that makes `out`.
    fn action(&self, arguments: &[&str], inputs: &[(&str, &[u8])]) -> ExecuteRequest {
        self.action_on(None, arguments, inputs)
    }

    /// The same for a machine that has these properties.
    fn action_on(&self, platform: Option<Platform>, arguments: &[&str], inputs: &[(&str, &[u8])]) -> ExecuteRequest {
        let file = |(name, content): &(&str, &[u8])| FileNode {
            name: (*name).to_owned(),
            digest: Some(self.put(content)),
            ..FileNode::default()
        };
        let root = Directory { files: inputs.iter().map(file).collect(), ..Directory::default() };
        let path = command::EnvironmentVariable { name: "PATH".to_owned(), value: "/usr/bin:/bin".to_owned() };
        let command = Command {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment_variables: vec![path],
            output_paths: vec!["out".to_owned()],
            ..Command::default()
        };
        let action = Action {
            command_digest: Some(self.put(&command.encode_to_vec())),
            input_root_digest: Some(self.put(&root.encode_to_vec())),
            platform,
            ..Action::default()
        };
        ExecuteRequest { action_digest: Some(self.put(&action.encode_to_vec())), ..ExecuteRequest::default() }
    }

    fn begin(&self, request: &ExecuteRequest) -> Result<Streaming<Operation>, Status> {
        let mut client = ExecutionClient::new(self.channel.clone());
        self.wait(client.execute(request.clone())).map(tonic::Response::into_inner)
    }

    fn wait_for(&self, name: &str) -> Result<Streaming<Operation>, Status> {
        let mut client = ExecutionClient::new(self.channel.clone());
        self.wait(client.wait_execution(WaitExecutionRequest { name: name.to_owned() }))
            .map(tonic::Response::into_inner)
    }

    /// The name of an operation, once a machine has it.
    fn running(&self, stream: &mut Streaming<Operation>) -> String {
        loop {
            let operation = self.wait(stream.message()).expect("a state").expect("no end yet");
            let metadata = operation.metadata.expect("metadata on every operation");
            let metadata = ExecuteOperationMetadata::decode(metadata.value.as_slice()).expect("metadata");
            assert!(!operation.done, "it ended before it ran");
            // Begun, not only given to a machine.
            let stage = metadata.stage();
            let partial = metadata.partial_execution_metadata.unwrap_or_default();
            if stage == Stage::Executing && partial.execution_start_timestamp.is_some() {
                return operation.name;
            }
        }
    }

    fn end(&self, mut stream: Streaming<Operation>) -> Result<ExecuteResponse, Status> {
        loop {
            let operation = self.wait(stream.message())?.expect("an end");
            if let Some(operation::Result::Response(any)) = operation.result {
                return Ok(ExecuteResponse::decode(any.value.as_slice()).expect("an ExecuteResponse"));
            }
        }
    }

    #[track_caller]
    fn execute(&self, request: &ExecuteRequest) -> ExecuteResponse {
        let stream = self.begin(request).expect("an operation");
        self.end(stream).expect("an end")
    }

    /// Content of the output `out`.
    #[track_caller]
    fn out(&self, response: &ExecuteResponse) -> Vec<u8> {
        let status = response.status.clone().unwrap_or_default();
        assert_eq!(status.code, 0, "{}", status.message);
        let result = response.result.clone().expect("a result");
        let stderr = String::from_utf8_lossy(&result.stderr_raw).into_owned();
        assert_eq!(result.exit_code, 0, "{stderr}");
        let digest = result.output_files.first().and_then(|file| file.digest.clone()).expect("an output");
        let request = ReadRequest {
            resource_name: format!("blobs/{}/{}", digest.hash, digest.size_bytes),
            ..ReadRequest::default()
        };
        let mut client = ByteStreamClient::new(self.channel.clone());
        self.wait(async {
            let mut pieces = client.read(request).await.expect("the output is there").into_inner();
            let mut content = Vec::new();
            while let Some(piece) = pieces.message().await.expect("a piece") {
                content.extend(piece.data);
            }
            content
        })
    }
}

/// Says what the store holds is what it says, with the coordinator stopped.
#[track_caller]
fn store_is_whole(farm: &TestFarm) {
    farm.stop_coordinator();
    farm.coordinator(&["cas", "verify"]).ok();
    farm.start_coordinator();
}

#[test]
fn hello_is_compiled_and_then_known_also_after_a_restart() {
    if !Path::new("/usr/bin/cc").exists() {
        wait::skipped("compiling on the farm", "there is no /usr/bin/cc; install gcc");
        return;
    }
    let farm = farm().start();
    let client = Client::new(&farm);
    let source = b"#include <stdio.h>\nint main(void) { puts(\"hello from the farm\"); return 0; }\n";
    let action = client.action(&["cc", "-o", "out", "hello.c"], &[("hello.c", source)]);
    let compiled = client.execute(&action);
    assert!(!compiled.cached_result);
    let program = files::write(&farm.fresh("bin"), "hello", client.out(&compiled));
    files::chmod(&program, 0o755);
    let said = std::process::Command::new(&program).output().expect("it runs").stdout;
    assert_eq!(said, b"hello from the farm\n");
    assert!(client.execute(&action).cached_result);
    // What fails is told as the compiler tells it, and is no error of the farm's.
    let broken = client.action(&["cc", "-o", "out", "hello.c"], &[("hello.c", b"int main(void) { return x; }")]);
    let failed = client.execute(&broken);
    assert_eq!(failed.status.clone().unwrap_or_default().code, 0);
    let result = failed.result.expect("a result");
    assert_ne!(result.exit_code, 0);
    assert!(String::from_utf8_lossy(&result.stderr_raw).contains('x') || result.stderr_digest.is_some());
    store_is_whole(&farm);
    assert!(client.execute(&action).cached_result, "results outlive the coordinator");
    // The same over TLS, by token.
    let rpc = Rpc::connect(&farm.profile(), None);
    let stream = rpc.wait(ExecutionClient::new(rpc.authorized()).execute(action)).expect("an operation").into_inner();
    assert!(client.end(stream).expect("an end").cached_result);
    drop((rpc, client));
    farm.finish();
}

#[test]
fn a_kill_in_the_middle_of_an_action_costs_nothing_but_time() {
    let farm = farm().start();
    let client = Client::new(&farm);
    let slow = |name: &str| client.action(&["sh", "-c", "sleep 2; echo $0 >out", name], &[]);

    // The buildlet: another attempt, unseen but for the stages.
    let action = slow("buildlet");
    let mut stream = client.begin(&action).expect("an operation");
    client.running(&mut stream);
    assert!(farm.kill_buildlet().is_some());
    assert_eq!(client.out(&client.end(stream).expect("an end")), b"buildlet\n");

    // The client: whoever comes back finds it.
    let action = slow("client");
    let mut stream = client.begin(&action).expect("an operation");
    let name = client.running(&mut stream);
    drop(stream);
    let again = client.wait_for(&name).expect("the operation goes on");
    assert_eq!(client.out(&client.end(again).expect("an end")), b"client\n");

    // The coordinator: the operation is unknown, and asking anew works.
    let action = slow("coordinator");
    let mut stream = client.begin(&action).expect("an operation");
    let name = client.running(&mut stream);
    farm.kill_coordinator();
    client.end(stream).expect_err("the connection is gone");
    farm.start_coordinator();
    assert_eq!(client.wait_for(&name).expect_err("it died with the coordinator").code(), Code::NotFound);
    assert_eq!(client.out(&client.execute(&action)), b"coordinator\n");

    store_is_whole(&farm);
    assert!(client.execute(&action).cached_result);
    drop(client);
    farm.finish();
}

#[test]
fn an_attempt_that_is_cut_off_leaves_nothing_running() {
    let farm = farm().start();
    let client = Client::new(&farm);
    // Seconds that nothing else on the machine sleeps.
    let [one, two] = [1, 2].map(|n| format!("100{n}.{:08}", rand::random::<u32>() % 100_000_000));
    let long = |time: &str| client.action(&["sh", "-c", "sleep $0; echo >out", time], &[]);
    let gone = |pids: &[i32]| {
        wait::until_true("an attempt is gone", seconds(20), || !pids.iter().any(|pid| processes::is_alive(*pid)));
    };
    let pids_of = |time: &str| {
        wait::until("the command runs", seconds(20), || {
            let pids: Vec<i32> = processes::with_arg(time).iter().map(|process| process.pid).collect();
            // The shell, and what it waits for.
            (pids.len() >= 2).then_some(pids)
        })
    };

    let mut stream = client.begin(&long(&one)).expect("an operation");
    client.running(&mut stream);
    let first = pids_of(&one);
    assert!(farm.kill_buildlet().is_some());
    gone(&first);
    // It is begun again, and cancelled.
    let name = client.running(&mut stream);
    let second = pids_of(&one);
    let mut operations = OperationsClient::new(client.channel.clone());
    client.wait(operations.cancel_operation(CancelOperationRequest { name })).expect("it is ours to cancel");
    let ended = client.end(stream).expect("an end").status.expect("a status");
    assert_eq!(Code::from(ended.code), Code::Cancelled, "{}", ended.message);
    gone(&second);

    let mut stream = client.begin(&long(&two)).expect("an operation");
    client.running(&mut stream);
    let third = pids_of(&two);
    farm.kill_coordinator();
    gone(&third);
    farm.start_coordinator();
    drop((stream, client));
    farm.finish();
}

#[test]
fn a_joined_machine_is_sent_the_inputs_and_sends_the_outputs_also_when_it_was_killed() {
    let farm = farm().no_buildlet().start();
    let mut joined = Joined::start(&farm, &farm.address(), &[]);
    let client = Client::new(&farm);
    let on_joined =
        Platform { properties: vec![platform::Property { name: "host-type".to_owned(), value: HOST_TYPE.to_owned() }] };
    // More than a message holds, both ways.
    let input = Dice::new(5).bytes(5 << 19);
    let arguments = ["sh", "-c", "cat in in >out"];
    let twice = client.action_on(Some(on_joined.clone()), &arguments, &[("in", &input)]);
    assert_eq!(client.out(&client.execute(&twice)), [input.clone(), input.clone()].concat());
    let slow = client.action_on(Some(on_joined), &["sh", "-c", "sleep 2; cat in >out"], &[("in", &input)]);
    let mut stream = client.begin(&slow).expect("an operation");
    client.running(&mut stream);
    joined.kill9();
    joined.restart();
    assert_eq!(client.out(&client.end(stream).expect("an end")), input);
    store_is_whole(&farm);
    drop(client);
    joined.finish(&farm);
    farm.finish();
}
