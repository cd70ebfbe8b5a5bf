//! `TYPE@host:port`, against buildlets that live in the test.

use crate::mote::{Home, Ran, write_tree};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_core::Digest as CoreDigest;
use motefarm_net::serve::serve_connection;
use motefarm_net::tls::Authority;
use motefarm_proto::convert;
use motefarm_proto::mote::buildlet_server::{Buildlet, BuildletServer};
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

const TYPE: &str = "linux-amd64";
const OUTPUT: &str = "before the cut, behind the cut\n";
const CUT_AT: usize = 14;

#[derive(Default)]
struct State {
    created: Vec<BuildletCreateInstanceRequest>,
    ended: Vec<String>,
    /// Instance and offset of each.
    executed: Vec<(String, u64)>,
    attached: Vec<(String, u64)>,
    blobs: HashSet<CoreDigest>,
    uploads: u32,
    put: Vec<(String, Vec<u8>)>,
}

struct FakeBuildlet {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    ca: PathBuf,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl FakeBuildlet {
    fn start() -> Self {
        Self::of(|dir| Authority::load_or_create(dir).unwrap())
    }

    /// With the CA of another, so that one `--ca` does for both.
    fn beside(other: &Self) -> Self {
        Self::of(|_| Authority::load_or_create(other.ca.parent().unwrap()).unwrap())
    }

    fn of(authority: impl FnOnce(&std::path::Path) -> Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path());
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, authority.ca_pem()).unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(authority.server_config(&[]).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let id = address.port().to_string();
        let routes = tonic::service::Routes::new(BuildletServer::new(Service { state: state.clone(), id }));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, routes) = (tls.clone(), routes.clone().prepare());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let _ = serve_connection(stream, routes, CancellationToken::new()).await;
                });
            }
        });
        Self { state, address, ca, _dir: dir, _runtime: runtime }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn word(&self) -> String {
        format!("{TYPE}@{}", self.address)
    }

    /// A call of `mote` with what this buildlet wants to see.
    fn mote(&self, home: &Home, user: &str, args: &[&str]) -> Ran {
        let mut command = home.command(args);
        command.env("MOTE_CA", &self.ca).env("MOTE_TOKEN", "mote_t").env("USER", user);
        Ran::from(command.output().unwrap())
    }
}

/// A home that knows of no farm.
fn home() -> Home {
    Home::new("127.0.0.1:1", "none")
}

#[test]
fn the_first_use_makes_an_instance_of_ones_own_and_a_cut_no_other() {
    let there = FakeBuildlet::start();
    let (home, word) = (home(), there.word());
    let ran = there.mote(&home, "alice", &["run", &word, "/bin/halves"]);
    assert_eq!((ran.code, ran.text()), (Some(5), OUTPUT), "{ran:?}");
    {
        let state = there.state();
        let [created] = state.created.as_slice() else { panic!("made {} times", state.created.len()) };
        assert!(created.leased_by_use);
        assert_eq!(created.terms.unwrap().idle_timeout_ms, 30 * 60 * 1000);
        let id = created.instance_id.clone();
        assert_eq!(state.executed, [(id.clone(), 0)], "it is started once");
        assert_eq!(state.attached, [(id, CUT_AT as u64)], "and gone on with where it was cut");
    }
    assert_eq!(there.mote(&home, "bob", &["ls", &word]).code, Some(0));
    assert_eq!(there.mote(&home, "alice", &["ls", &word]).code, Some(0));
    let created: Vec<String> = there.state().created.iter().map(|request| request.instance_id.clone()).collect();
    assert_eq!(created[0], created[2], "the same user has the same one");
    assert_ne!(created[0], created[1], "and another another");
    assert_eq!(there.mote(&home, "alice", &["destroy", &word]).code, Some(0));
    assert_eq!(there.state().ended, created[..1]);
}

#[test]
fn a_shorter_idle_time_is_asked_for_and_a_longer_one_refused() {
    let there = FakeBuildlet::start();
    let (home, word) = (home(), there.word());
    let ran = there.mote(&home, "alice", &["create", "-ttl", "10m", &word]);
    assert_eq!((ran.code, ran.text().trim()), (Some(0), word.as_str()), "{ran:?}");
    assert_eq!(there.state().created[0].terms.unwrap().idle_timeout_ms, 600_000);
    let refused = there.mote(&home, "alice", &["create", "-ttl", "2h", &word]);
    assert!(refused.code == Some(1) && refused.stderr.contains("at most 30 minutes"), "{refused:?}");
}

#[test]
fn every_buildlet_of_a_push_gets_what_it_lacks() {
    let one = FakeBuildlet::start();
    let other = FakeBuildlet::beside(&one);
    let home = home();
    write_tree(&home.path("proj"), &[("a.txt", "one"), ("sub/b.txt", "two")]);
    let pushed = one.mote(&home, "alice", &["push", "-C", "proj", &one.word(), &other.word()]);
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    for there in [&one, &other] {
        let state = there.state();
        assert_eq!((state.uploads, state.blobs.len()), (1, 4), "two directories, two files");
    }
}

#[test]
fn a_file_arrives_whole() {
    let there = FakeBuildlet::start();
    let (home, content) = (home(), "x".repeat(1_000_000));
    write_tree(&home.path("."), &[("file", &content)]);
    let put = there.mote(&home, "alice", &["put", &there.word(), "file", "there"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    assert_eq!(there.state().put, [("there".to_owned(), content.into_bytes())]);
}

#[test]
fn what_only_a_coordinator_has_is_refused_with_what_to_do() {
    let there = FakeBuildlet::start();
    let (home, word) = (home(), there.word());
    let says = |args: &[&str], code: i32, text: &str| {
        let ran = there.mote(&home, "alice", args);
        assert!(ran.code == Some(code) && ran.stderr.contains(text), "{ran:?}");
    };
    says(&["snapshot", "create", &word, "name"], 1, "mote gettar");
    says(&["puttar", &word, "https://example.org/x.tar.gz"], 1, "curl");
    says(&["ping", &word, "alice-linux-amd64-0"], 2, "commands of their own");
    says(&["-group", "g", "ping", &word], 2, "-group");
    says(&["ping", &format!("linux-arm64@{}", there.address)], 2, &word);
    assert!(there.state().created.is_empty());
}

struct Service {
    state: Arc<Mutex<State>>,
    id: String,
}

type Answer<T> = Result<Response<T>, Status>;
type Events = BoxStream<'static, Result<ExecEvent, Status>>;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not at this buildlet"))
}

fn output(from: usize, to: usize) -> Result<ExecEvent, Status> {
    let data = OUTPUT.as_bytes()[from..to].to_vec().into();
    let stream = output_chunk::Stream::Stdout.into();
    Ok(ExecEvent { event: Some(Event::Output(OutputChunk { stream, offset: from as u64, time_ms: 1, data })) })
}

fn started(exec_id: String) -> Result<ExecEvent, Status> {
    Ok(ExecEvent { event: Some(Event::Started(ExecStarted { exec_id, started_at_ms: 1 })) })
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn missing(&self, digests: impl Iterator<Item = CoreDigest>) -> Vec<Digest> {
        let state = self.state();
        digests.filter(|digest| !state.blobs.contains(digest)).map(Digest::from).collect()
    }
}

#[tonic::async_trait]
impl Buildlet for Service {
    type OpenSessionStream = BoxStream<'static, Result<SessionOutput, Status>>;
    type RunActionStream = BoxStream<'static, Result<RunActionOutput, Status>>;
    type WatchStream = BoxStream<'static, Result<BuildletReport, Status>>;
    type ExecuteStream = Events;
    type AttachExecStream = Events;
    type GetTarStream = BoxStream<'static, Result<TarChunk, Status>>;
    type GetFileStream = BoxStream<'static, Result<FileChunk, Status>>;
    type ListDirStream = BoxStream<'static, Result<DirListing, Status>>;

    async fn describe(&self, request: Request<DescribeRequest>) -> Answer<BuildletDescription> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if token != Some("Bearer mote_t") {
            return Err(Status::unauthenticated("the token is not known"));
        }
        let (buildlet_id, host_type) = (self.id.clone(), TYPE.to_owned());
        Ok(Response::new(BuildletDescription { buildlet_id, host_type, ..Default::default() }))
    }

    async fn create_instance(
        &self,
        request: Request<BuildletCreateInstanceRequest>,
    ) -> Answer<BuildletCreateInstanceResponse> {
        self.state().created.push(request.into_inner());
        Ok(Response::new(BuildletCreateInstanceResponse { work_dir: "/workdir".to_owned() }))
    }

    async fn end_instance(&self, request: Request<EndInstanceRequest>) -> Answer<EndInstanceResponse> {
        self.state().ended.push(request.into_inner().instance_id);
        Ok(Response::new(EndInstanceResponse {}))
    }

    /// Half of it, and then the stream just ends.
    async fn execute(&self, request: Request<BuildletExecuteRequest>) -> Answer<Events> {
        let request = request.into_inner();
        self.state().executed.push((request.instance_id, request.offset));
        Ok(Response::new(stream::iter([started(request.exec_id), output(0, CUT_AT)]).boxed()))
    }

    async fn attach_exec(&self, request: Request<BuildletAttachExecRequest>) -> Answer<Events> {
        let request = request.into_inner();
        let from = usize::try_from(request.offset).unwrap();
        self.state().attached.push((request.instance_id, request.offset));
        let outcome = ExecOutcome { ending: Ending::Exited.into(), code: 5, ..Default::default() };
        let end = ExecEvent { event: Some(Event::Outcome(outcome)) };
        let events = [started(request.exec_id), output(from, OUTPUT.len()), Ok(end)];
        Ok(Response::new(stream::iter(events).boxed()))
    }

    async fn list_execs(&self, _: Request<BuildletListExecsRequest>) -> Answer<BuildletListExecsResponse> {
        Ok(Response::new(BuildletListExecsResponse { execs: Vec::new() }))
    }

    async fn find_missing(&self, request: Request<FindMissingRequest>) -> Answer<FindMissingResponse> {
        let missing = self.missing(request.get_ref().digests.iter().map(|digest| convert::digest(digest).unwrap()));
        Ok(Response::new(FindMissingResponse { missing }))
    }

    async fn upload_blobs(&self, request: Request<Streaming<BlobBatch>>) -> Answer<UploadSummary> {
        let mut batches = request.into_inner();
        let mut stored = 0;
        while let Some(batch) = batches.message().await? {
            for digest in &batch.digests {
                stored += u64::from(self.state().blobs.insert(convert::digest(digest).unwrap()));
            }
        }
        self.state().uploads += 1;
        Ok(Response::new(UploadSummary { stored, stored_bytes: 0 }))
    }

    async fn sync_tree(&self, request: Request<BuildletSyncTreeRequest>) -> Answer<TreeSyncResult> {
        let root = request.into_inner().sync.unwrap().root.unwrap();
        let missing = self.missing(std::iter::once(convert::digest(&root).unwrap()));
        let files_written = u64::from(missing.is_empty());
        Ok(Response::new(TreeSyncResult { missing, files_written, ..Default::default() }))
    }

    async fn put_file(&self, request: Request<Streaming<BuildletPutFileRequest>>) -> Answer<PutFileResponse> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.unwrap();
        let path = first.header.unwrap().file.unwrap().path;
        let mut content = first.data.to_vec();
        let mut whole = false;
        while let Some(piece) = pieces.message().await? {
            content.extend_from_slice(&piece.data);
            whole |= piece.end;
        }
        assert!(whole, "the last message was not passed on");
        let bytes_written = content.len() as u64;
        self.state().put.push((path, content));
        Ok(Response::new(PutFileResponse { bytes_written }))
    }

    async fn list_dir(&self, _: Request<BuildletListDirRequest>) -> Answer<Self::ListDirStream> {
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        no()
    }

    async fn set_leases(&self, _: Request<SetLeasesRequest>) -> Answer<SetLeasesResponse> {
        no()
    }

    async fn ack_output(&self, _: Request<BuildletAckOutputRequest>) -> Answer<BuildletAckOutputResponse> {
        Ok(Response::new(BuildletAckOutputResponse {}))
    }

    async fn write_stdin(&self, _: Request<BuildletWriteStdinRequest>) -> Answer<BuildletWriteStdinResponse> {
        no()
    }

    async fn signal_exec(&self, _: Request<BuildletSignalExecRequest>) -> Answer<BuildletSignalExecResponse> {
        no()
    }

    async fn cancel_exec(&self, _: Request<BuildletCancelExecRequest>) -> Answer<BuildletCancelExecResponse> {
        no()
    }

    async fn get_tar(&self, _: Request<BuildletGetTarRequest>) -> Answer<Self::GetTarStream> {
        no()
    }

    async fn put_tar(&self, _: Request<Streaming<BuildletPutTarRequest>>) -> Answer<PutTarResponse> {
        no()
    }

    async fn get_file(&self, _: Request<BuildletGetFileRequest>) -> Answer<Self::GetFileStream> {
        no()
    }

    async fn remove_paths(&self, _: Request<BuildletRemovePathsRequest>) -> Answer<RemovePathsResponse> {
        no()
    }

    async fn open_session(&self, _: Request<Streaming<SessionInput>>) -> Answer<Self::OpenSessionStream> {
        no()
    }

    async fn run_action(&self, _: Request<Streaming<RunActionInput>>) -> Answer<Self::RunActionStream> {
        no()
    }
}
