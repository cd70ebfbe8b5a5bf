//! A REAPI server in this process, as strict and as careless as real ones are: its rules say which it is.
//!
//! It keeps everything in memory, can be told to fail, to lose and to lie, and counts what it is asked.

mod cas;
mod execution;
pub(crate) mod worker;

use bytes::Bytes;
use cas::CasSide;
use execution::ExecutionSide;
use motefarm_core::Digest;
use motefarm_net::dial::{Bearer, Target, lazy_channel};
use motefarm_proto::reapi::action_cache_server::ActionCacheServer;
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStreamServer;
use motefarm_proto::reapi::capabilities_server::CapabilitiesServer;
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use motefarm_proto::reapi::execution_server::ExecutionServer;
use motefarm_proto::reapi::{ActionResult, Command};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status};
use worker::Work;

/// What kind of server it is.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The major version of its API.
    pub(crate) major: i32,
    /// Lowest and highest minor of it.
    pub(crate) versions: (i32, i32),
    /// As announced, and enforced.
    pub(crate) batch_bytes: i64,
    /// Whether it hashes what is written.
    pub(crate) checks_writes: bool,
    /// The one name it knows.
    pub(crate) instance: &'static str,
    /// Its workers' properties: `Action.platform` must be exactly these.
    pub(crate) platform: BTreeMap<&'static str, &'static str>,
    /// Whether it looks at `output_paths`; otherwise at the old lists only.
    pub(crate) reads_output_paths: bool,
    /// Whether operations have metadata and are told more than once.
    pub(crate) tells_stages: bool,
    /// Whether it caches what failed.
    pub(crate) caches_failures: bool,
}

impl Rules {
    /// Buildbarn's samples: new clients only, an instance name, platforms matched exactly.
    pub(crate) fn buildbarn() -> Self {
        Self {
            major: 2,
            versions: (3, 12),
            batch_bytes: 0,
            checks_writes: true,
            instance: "local/a",
            platform: BTreeMap::from([("OSFamily", "linux"), ("container-image", "docker://x")]),
            reads_output_paths: true,
            tells_stages: true,
            caches_failures: false,
        }
    }

    /// NativeLink's: small batches, writes believed.
    pub(crate) fn nativelink() -> Self {
        Self {
            versions: (0, 3),
            batch_bytes: 65_536,
            checks_writes: false,
            instance: "",
            platform: BTreeMap::new(),
            ..Self::buildbarn()
        }
    }

    /// buildbox-casd's, an old one: no stages, failures cached, old output lists.
    pub(crate) fn old() -> Self {
        Self {
            major: 2,
            versions: (0, 0),
            batch_bytes: 4_193_280,
            checks_writes: true,
            instance: "",
            platform: BTreeMap::new(),
            reads_output_paths: false,
            tells_stages: false,
            caches_failures: true,
        }
    }
}

/// What it has and what it was asked.
#[derive(Default)]
pub(crate) struct State {
    /// Content by hash; a careless server has it under whatever it was sent as.
    pub(crate) blobs: HashMap<Digest, Bytes>,
    /// The action cache.
    pub(crate) results: HashMap<Digest, ActionResult>,
    /// Calls of each kind.
    pub(crate) calls: HashMap<&'static str, usize>,
    /// How often each blob was sent here.
    pub(crate) written: HashMap<Digest, usize>,
    /// What the next calls of a kind are answered.
    pub(crate) failures: HashMap<&'static str, VecDeque<Status>>,
    /// Blobs that come back damaged.
    pub(crate) lies: HashSet<Digest>,
    /// Execute streams that break after their first message.
    pub(crate) breaks: usize,
    /// Operations that are forgotten when waited for.
    pub(crate) forgets: bool,
    /// Blobs that go when an action is about to run.
    pub(crate) loses: Vec<Digest>,
    /// Each action that ran, with the flags it came with.
    pub(crate) ran: Vec<Ran>,
    /// Most bytes of one batch message.
    pub(crate) largest_batch: usize,
    /// Whether content is counted and thrown away.
    pub(crate) discards: bool,
}

/// An action that ran.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) command: Command,
    pub(crate) do_not_cache: bool,
    pub(crate) skip_cache_lookup: bool,
    pub(crate) salt: Vec<u8>,
    /// Files of the input root.
    pub(crate) files: Vec<String>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct FakeReapi {
    pub(crate) rules: Rules,
    state: Arc<Mutex<State>>,
    work: Work,
    /// Actions run while this is open.
    gate: watch::Sender<bool>,
    address: SocketAddr,
}

impl FakeReapi {
    /// Listens, with this worker behind it.
    pub(crate) async fn start(rules: Rules, work: Work) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), rules, work)
    }

    /// The same on a port that is known beforehand.
    pub(crate) fn start_on(listener: TcpListener, rules: Rules, work: Work) -> Self {
        let address = listener.local_addr().unwrap();
        let fake = Self { rules, state: Arc::default(), work, gate: watch::Sender::new(true), address };
        let (cas, execution) = (CasSide(fake.clone()), ExecutionSide::new(fake.clone()));
        const MIB: usize = 1 << 20;
        let server = tonic::transport::Server::builder()
            .add_service(CapabilitiesServer::new(execution.clone()))
            .add_service(ActionCacheServer::new(execution.clone()))
            .add_service(ExecutionServer::new(execution))
            // What tonic, grpc-core and Go all take unless told otherwise.
            .add_service(ContentAddressableStorageServer::new(cas.clone()).max_decoding_message_size(4 * MIB))
            .add_service(ByteStreamServer::new(cas));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    /// The bridge's way to it.
    pub(crate) fn backend(&self) -> motefarm_bridge::backend::Backend {
        let channel = lazy_channel(Target::Clear(self.address.to_string())).unwrap();
        motefarm_bridge::backend::Backend::new(channel, Bearer::none(), self.rules.instance)
    }

    /// How people write where it is.
    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How often it was called so.
    pub(crate) fn calls(&self, kind: &str) -> usize {
        self.state().calls.get(kind).copied().unwrap_or(0)
    }

    /// The next calls of this kind fail.
    pub(crate) fn fail(&self, kind: &'static str, codes: &[Code]) {
        let statuses = codes.iter().map(|code| Status::new(*code, "as the test wants it"));
        self.state().failures.entry(kind).or_default().extend(statuses);
    }

    /// Whether actions run or wait.
    pub(crate) fn open(&self, open: bool) {
        self.gate.send_replace(open);
    }

    /// Notes a call; fails if it shall.
    fn called(&self, kind: &'static str, instance: &str) -> Result<(), Status> {
        let mut state = self.state();
        *state.calls.entry(kind).or_default() += 1;
        if let Some(status) = state.failures.get_mut(kind).and_then(VecDeque::pop_front) {
            return Err(status);
        }
        if instance == self.rules.instance {
            return Ok(());
        }
        Err(Status::invalid_argument(format!("unknown instance {instance:?}")))
    }

    fn put(&self, digest: Digest, content: Bytes) -> Result<(), Status> {
        if self.rules.checks_writes && Digest::of(&content) != digest {
            return Err(Status::invalid_argument("hash mismatch"));
        }
        let mut state = self.state();
        *state.written.entry(digest).or_default() += 1;
        if !state.discards {
            state.blobs.insert(digest, content);
        }
        Ok(())
    }

    fn get(&self, digest: Digest) -> Result<Bytes, Status> {
        let state = self.state();
        if digest == Digest::EMPTY {
            return Ok(Bytes::new());
        }
        let content = state.blobs.get(&digest).ok_or_else(|| Status::not_found(format!("no blob {digest}")))?;
        if !state.lies.contains(&digest) {
            return Ok(content.clone());
        }
        let mut damaged = content.to_vec();
        damaged[0] ^= 1;
        Ok(damaged.into())
    }
}
