//! A caller of `RunAction`: it makes actions, brings what is missing, and takes what is offered.

use crate::harness::*;
use motefarm_cas::batch::{BatchPacker, BatchReceiver, Content, LocalBlob};
use motefarm_cas::store::{BlobSource as _, Store, StoreLimits};
use motefarm_core::Digest;
use motefarm_proto::convert::{self, to_reapi_digest};
use motefarm_proto::mote::run_action_finished::End;
use motefarm_proto::mote::run_action_input::Input;
use motefarm_proto::mote::run_action_output::Output;
use motefarm_proto::mote::*;
use motefarm_proto::reapi;
use motefarm_proto::reapi::command::EnvironmentVariable;
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

/// An entry of an input tree.
#[derive(Clone)]
pub(crate) enum Node {
    File(Vec<u8>, bool),
    Link(String),
    Dir(BTreeMap<String, Node>),
}

/// An action to be, and the blobs it is made of.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) command: reapi::Command,
    pub(crate) tree: BTreeMap<String, Node>,
    pub(crate) start: RunActionStart,
}

impl Job {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self {
            command: reapi::Command {
                arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
                ..Default::default()
            },
            tree: BTreeMap::new(),
            start: RunActionStart {
                operation: "test".into(),
                timeout_ms: 60_000,
                inline_bytes: 1 << 20,
                ..Default::default()
            },
        }
    }

    /// With a PATH, so that a script finds its programs.
    pub(crate) fn sh(script: &str) -> Self {
        let mut job = Self::new(&["/bin/sh", "-c", script]);
        let variable = |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
        job.command.environment_variables = vec![variable("PATH", "/usr/bin:/bin")];
        job
    }

    pub(crate) fn node(mut self, path: &str, node: Node) -> Self {
        let mut at = &mut self.tree;
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            let below = at.entry(part.to_owned()).or_insert_with(|| Node::Dir(BTreeMap::new()));
            let Node::Dir(below) = below else { panic!("{part} is no directory") };
            at = below;
        }
        at.insert(name.to_owned(), node);
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.node(path, Node::File(content.as_bytes().to_vec(), false))
    }

    pub(crate) fn program(self, path: &str, content: &str) -> Self {
        self.node(path, Node::File(content.as_bytes().to_vec(), true))
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.node(path, Node::Link(target.to_owned()))
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.node(path, Node::Dir(BTreeMap::new()))
    }

    pub(crate) fn outputs(mut self, paths: &[&str]) -> Self {
        self.command.output_paths = paths.iter().map(|path| (*path).to_owned()).collect();
        self
    }

    pub(crate) fn timeout_ms(mut self, ms: u64) -> Self {
        self.start.timeout_ms = ms;
        self
    }

    /// The first message, and every blob by digest.
    pub(crate) fn finish(&self) -> (RunActionStart, HashMap<Digest, Vec<u8>>) {
        let mut blobs = HashMap::new();
        let root = encode(&self.tree, &mut blobs);
        (self.start_with(root), blobs)
    }

    /// The first message for any root.
    pub(crate) fn start_with(&self, root: Digest) -> RunActionStart {
        let command = self.command.encode_to_vec();
        let action = reapi::Action {
            command_digest: Some(to_reapi_digest(Digest::of(&command))),
            input_root_digest: Some(to_reapi_digest(root)),
            ..Default::default()
        };
        let action = action.encode_to_vec();
        RunActionStart {
            action_digest: Some(Digest::of(&action).into()),
            action: action.into(),
            command: command.into(),
            ..self.start.clone()
        }
    }
}

fn encode(tree: &BTreeMap<String, Node>, blobs: &mut HashMap<Digest, Vec<u8>>) -> Digest {
    let mut directory = reapi::Directory::default();
    for (name, node) in tree {
        let name = name.clone();
        match node {
            Node::File(content, is_executable) => {
                let digest = Digest::of(content);
                blobs.insert(digest, content.clone());
                directory.files.push(reapi::FileNode {
                    name,
                    digest: Some(to_reapi_digest(digest)),
                    is_executable: *is_executable,
                    ..Default::default()
                });
            }
            Node::Link(target) => {
                directory.symlinks.push(reapi::SymlinkNode { name, target: target.clone(), ..Default::default() });
            }
            Node::Dir(below) => {
                let digest = Some(to_reapi_digest(encode(below, blobs)));
                directory.directories.push(reapi::DirectoryNode { name, digest });
            }
        }
    }
    let bytes = directory.encode_to_vec();
    let digest = Digest::of(&bytes);
    blobs.insert(digest, bytes);
    digest
}

/// Puts blobs into the buildlet's store.
pub(crate) async fn upload(client: &mut Client, blobs: impl IntoIterator<Item = (Digest, Vec<u8>)>) {
    let blobs: Vec<LocalBlob> = blobs
        .into_iter()
        .map(|(digest, content)| LocalBlob { digest, content: Content::Bytes(content.into()) })
        .collect();
    let batches: Vec<BlobBatch> = BatchPacker::new(blobs).map(Result::unwrap).collect();
    client.upload_blobs(tokio_stream::iter(batches)).await.unwrap();
}

/// All that came of an action.
#[derive(Default)]
pub(crate) struct Came {
    pub(crate) result: Option<reapi::ActionResult>,
    pub(crate) timed_out: bool,
    pub(crate) failed: Option<RunActionFailed>,
    /// In the order in which it was asked for.
    pub(crate) missing: Vec<Vec<Digest>>,
    pub(crate) started: Option<RunActionStarted>,
    pub(crate) offered: usize,
    pub(crate) status: Option<Status>,
    outputs: Option<(tempfile::TempDir, Store)>,
}

impl Came {
    pub(crate) fn result(&self) -> &reapi::ActionResult {
        self.result.as_ref().unwrap_or_else(|| panic!("no result: {:?} {:?}", self.status, self.failed))
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.result().stdout_raw).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.result().stderr_raw).into_owned()
    }

    pub(crate) fn failed(&self) -> &RunActionFailed {
        self.failed.as_ref().unwrap_or_else(|| panic!("it has not failed: {:?} {:?}", self.status, self.result))
    }

    pub(crate) fn status(&self) -> &Status {
        self.status.as_ref().unwrap_or_else(|| panic!("no error: {:?} {:?}", self.failed, self.result))
    }

    /// The content of an output that was sent.
    pub(crate) fn blob(&self, digest: Option<&reapi::Digest>) -> Vec<u8> {
        let digest = convert::reapi_digest(digest.unwrap()).unwrap();
        if digest == Digest::EMPTY {
            return Vec::new();
        }
        let (_, store) = self.outputs.as_ref().unwrap();
        store.read(&digest, u64::MAX).unwrap().expect("an output that was not sent").to_vec()
    }

    pub(crate) fn file(&self, path: &str) -> (String, bool) {
        let found = self.result().output_files.iter().find(|file| file.path == path);
        let found = found.unwrap_or_else(|| panic!("no {path} in {:?}", self.result()));
        (String::from_utf8_lossy(&self.blob(found.digest.as_ref())).into_owned(), found.is_executable)
    }
}

/// A stream both ways.
pub(crate) struct Call {
    pub(crate) say: UnboundedSender<RunActionInput>,
    pub(crate) hear: Streaming<RunActionOutput>,
}

impl Call {
    pub(crate) async fn begin(client: &mut Client, start: RunActionStart) -> Result<Self, Status> {
        let (say, queue) = unbounded_channel();
        say.send(RunActionInput { input: Some(Input::Start(start)) }).unwrap();
        let hear = client.run_action(UnboundedReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { say, hear })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Output>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.hear.message()).await.expect("the action hangs")?;
        Ok(message.map(|message| message.output.unwrap()))
    }

    fn say(&self, input: Input) {
        self.say.send(RunActionInput { input: Some(input) }).unwrap();
    }

    /// Until the command runs.
    pub(crate) async fn until_started(&mut self) {
        while !matches!(self.next().await.unwrap().unwrap(), Output::Started(_)) {}
    }
}

/// Runs an action, bringing from `blobs` what is missing.
pub(crate) async fn run_with(client: &mut Client, start: RunActionStart, blobs: &HashMap<Digest, Vec<u8>>) -> Came {
    let mut came = Came::default();
    let mut call = match Call::begin(client, start).await {
        Ok(call) => call,
        Err(status) => return Came { status: Some(status), ..came },
    };
    let mut receiver = None;
    loop {
        match call.next().await {
            Err(status) => {
                came.status = Some(status);
                return came;
            }
            Ok(None) => panic!("it ended without a last word"),
            Ok(Some(Output::Missing(missing))) => {
                let missing: Vec<Digest> = missing.digests.iter().map(|d| convert::digest(d).unwrap()).collect();
                let brought = missing.iter().filter_map(|digest| Some((*digest, blobs.get(digest)?.clone())));
                upload(client, brought.collect::<Vec<_>>()).await;
                came.missing.push(missing);
                call.say(Input::Again(RunActionAgain {}));
            }
            Ok(Some(Output::Started(started))) => came.started = Some(started),
            Ok(Some(Output::Outputs(outputs))) => {
                came.offered += outputs.digests.len();
                call.say(Input::Wanted(RunActionWanted { digests: outputs.digests }));
            }
            Ok(Some(Output::Blobs(batch))) => {
                let receiver = receiver.get_or_insert_with(|| {
                    let dir = tempfile::tempdir().unwrap();
                    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
                    came.outputs = Some((dir, store.clone()));
                    BatchReceiver::new(store)
                });
                receiver.accept(batch).unwrap();
            }
            Ok(Some(Output::Finished(finished))) => {
                match finished.end.unwrap() {
                    End::Result(result) => came.result = Some(reapi::ActionResult::decode(result).unwrap()),
                    End::TimedOut(timed_out) => {
                        came.timed_out = true;
                        came.result = Some(reapi::ActionResult::decode(timed_out.result).unwrap());
                    }
                    End::Failed(failed) => came.failed = Some(failed),
                }
                if let Some(receiver) = receiver {
                    receiver.finish().unwrap();
                }
                assert!(call.next().await.unwrap().is_none(), "finished is the last word");
                return came;
            }
        }
    }
}

/// Runs a job.
pub(crate) async fn run_job(client: &mut Client, job: &Job) -> Came {
    let (start, blobs) = job.finish();
    run_with(client, start, &blobs).await
}
