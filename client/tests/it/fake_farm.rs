//! A farm of one test: enough of the services to be believed, and a hand on every connection.
//!
//! What a command does is in its name: `/lines N` prints N numbered lines, `/mixed` writes to both
//! outputs, `/sleep` waits to be ended, `/cat` ends with its stdin, `/absent` can not be started.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_net::serve::serve_connection;
use motefarm_net::tls::Authority;
use motefarm_proto::mote::admin_server::{Admin, AdminServer};
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::farm_server::{Farm, FarmServer};
use motefarm_proto::mote::output_chunk::Stream as Which;
use motefarm_proto::mote::*;
use motefarm_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use motefarm_proto::{convert, reapi};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) execs: HashMap<String, Exec>,
    /// Every call, by name.
    pub(crate) calls: Vec<&'static str>,
    pub(crate) blobs: HashSet<motefarm_core::Digest>,
    /// Connections break after this many bytes of output on one stream.
    pub(crate) cut_every: Option<usize>,
    /// The next so many archives break in the middle.
    pub(crate) cut_tars: u32,
    /// Requests ahead, counted down at each event of a create.
    pub(crate) ahead: u64,
    pub(crate) created: Vec<CreateInstanceRequest>,
    pub(crate) destroyed: Vec<String>,
    pub(crate) syncs: Vec<SyncTreeRequest>,
    pub(crate) acked: u64,
}

pub(crate) struct Exec {
    pub(crate) spec: ExecSpec,
    pub(crate) signals: Vec<i32>,
    pub(crate) stdin: Vec<u8>,
    output: Vec<(Which, Bytes)>,
    outcome: watch::Sender<Option<ExecOutcome>>,
}

pub(crate) struct FakeFarm {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    cutter: Arc<Mutex<CancellationToken>>,
}

impl FakeFarm {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(authority.server_config(&[]).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let cutter = Arc::new(Mutex::new(CancellationToken::new()));
        let service = Service { state: state.clone(), cutter };
        let routes = tonic::service::Routes::new(FarmServer::new(service.clone()))
            .add_service(AdminServer::new(service.clone()))
            .add_service(ContentAddressableStorageServer::new(service.clone()));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, routes) = (tls.clone(), routes.clone().prepare());
                let cut = service.cutter.lock().unwrap().clone();
                tokio::spawn(async move {
                    tcp.set_nodelay(true).unwrap();
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let serving = serve_connection(stream, routes, CancellationToken::new());
                    tokio::select! {
                        _ = serving => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        Self { state, address, ca_pem: authority.ca_pem().to_owned(), _runtime: runtime }
    }

    pub(crate) fn home(&self) -> crate::mote::Home {
        crate::mote::Home::new(&self.address.to_string(), &self.ca_pem)
    }

    /// What the newest sync asked for.
    pub(crate) fn last_sync(&self) -> TreeSync {
        self.state().syncs.last().and_then(|request| request.sync.clone()).unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The one execution, when `ready` says so.
    pub(crate) fn wait_for<T>(&self, what: &str, ready: impl Fn(&State) -> Option<T>) -> T {
        for _ in 0..2_000 {
            if let Some(value) = ready(&self.state()) {
                return value;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{what} did not happen within 10 s; calls: {:?}", self.state().calls);
    }
}

fn cut(cutter: &Mutex<CancellationToken>) {
    let mut cutter = cutter.lock().unwrap();
    std::mem::replace(&mut *cutter, CancellationToken::new()).cancel();
}

pub(crate) fn lines(n: u64) -> Vec<u8> {
    (0..n).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
}

fn outcome(ending: Ending, code: i32) -> ExecOutcome {
    ExecOutcome { ending: ending.into(), code, started_at_ms: 1_000, ended_at_ms: 3_000, ..Default::default() }
}

impl Exec {
    fn start(spec: ExecSpec) -> Self {
        let number = |at: usize| spec.args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(0);
        let (output, end) = match spec.program.as_str() {
            "/lines" => {
                let all = Bytes::from(lines(number(0)));
                let pieces = all.chunks(997).map(|piece| (Which::Stdout, all.slice_ref(piece))).collect();
                (pieces, Some(outcome(Ending::Exited, number(1) as i32)))
            }
            "/mixed" => {
                let pieces = vec![(Which::Stdout, "out\n".into()), (Which::Stderr, "err\n".into())];
                (pieces, Some(outcome(Ending::Exited, 0)))
            }
            "/absent" => {
                let reason = "no such file".to_owned();
                (Vec::new(), Some(ExecOutcome { reason, ..outcome(Ending::NotStarted, 0) }))
            }
            "/killed" => (Vec::new(), Some(outcome(Ending::Signaled, 9))),
            "/sleep" => (vec![(Which::Stdout, "sleeping\n".into())], None),
            "/flood" => (vec![(Which::Stdout, vec![b'x'; 256 * 1024].into()); 64], None),
            _ => (Vec::new(), None),
        };
        let outcome = watch::Sender::new(end);
        Self { spec, signals: Vec::new(), stdin: Vec::new(), output, outcome }
    }

    pub(crate) fn end(&self, ending: Ending, code: i32) {
        self.outcome.send_replace(Some(outcome(ending, code)));
    }
}

impl Service {
    fn called(&self, name: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(name);
        state
    }

    fn events(&self, exec_id: &str, offset: u64, follow: bool) -> Result<Events, Status> {
        let state = self.state.lock().unwrap();
        let exec = state.execs.get(exec_id).ok_or_else(|| Status::not_found("no such execution"))?;
        let (output, mut outcome, cut_every) = (exec.output.clone(), exec.outcome.subscribe(), state.cut_every);
        let (events, receiver) = mpsc::channel(4);
        let (exec_id, cutter) = (exec_id.to_owned(), self.cutter.clone());
        tokio::spawn(async move {
            let started = ExecStarted { exec_id, started_at_ms: 1_000 };
            let _ = events.send(Event::Started(started)).await;
            let (mut at, mut sent) = (0, 0);
            for (which, data) in output {
                let end = at + data.len() as u64;
                if end > offset {
                    // Sometimes a little of what is known already, as a real reader of frames may give.
                    let chunk = OutputChunk { stream: which.into(), offset: at, time_ms: 1_500, data: data.clone() };
                    sent += data.len();
                    if events.send(Event::Output(chunk)).await.is_err() {
                        return;
                    }
                }
                at = end;
                if cut_every.is_some_and(|every| sent >= every) {
                    cut(&cutter);
                    return;
                }
            }
            if !follow && outcome.borrow().is_none() {
                return;
            }
            let ended = outcome.wait_for(Option::is_some).await.map(|ended| ended.clone());
            if let Ok(Some(ended)) = ended {
                let _ = events.send(Event::Outcome(ended)).await;
            }
        });
        let as_stream = stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            Some((Ok(ExecEvent { event: Some(event) }), receiver))
        });
        Ok(Response::new(as_stream.boxed()))
    }
}

type Events = Response<BoxStream<'static, Result<ExecEvent, Status>>>;

fn instance(id: &str, state: &str) -> InstanceInfo {
    InstanceInfo {
        instance_id: id.to_owned(),
        name: "alice-linux-amd64-0".to_owned(),
        host_type: "linux-amd64".to_owned(),
        state: state.to_owned(),
        now_ms: 5_000,
        expires_at_ms: 5_000 + 1_800_000,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Farm for Service {
    type CreateInstanceStream = BoxStream<'static, Result<CreateInstanceEvent, Status>>;
    type ExecuteStream = BoxStream<'static, Result<ExecEvent, Status>>;
    type AttachExecStream = BoxStream<'static, Result<ExecEvent, Status>>;
    type GetTarStream = BoxStream<'static, Result<TarChunk, Status>>;

    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_host_types(
        &self,
        _: Request<ListHostTypesRequest>,
    ) -> Result<Response<ListHostTypesResponse>, Status> {
        let only =
            HostTypeInfo { host_type: "linux-amd64".into(), total_slots: 16, free_slots: 15, ..Default::default() };
        Ok(Response::new(ListHostTypesResponse { host_types: vec![only] }))
    }

    async fn create_instance(
        &self,
        request: Request<CreateInstanceRequest>,
    ) -> Result<Response<Self::CreateInstanceStream>, Status> {
        let mut state = self.called("create");
        let request = request.into_inner();
        if request.host_type != "linux-amd64" {
            return Err(Status::not_found("no host type \"nonsense\"; there are: linux-amd64"));
        }
        let id = request.instance_id.clone();
        state.created.push(request);
        let mut events = Vec::new();
        match state.ahead {
            0 => events.push((0, "ready")),
            // Never: until its caller goes.
            u64::MAX => events.push((3, "queued")),
            ahead => {
                state.ahead = ahead - 1;
                events.push((ahead, "queued"));
            }
        }
        let waits = state.ahead == u64::MAX;
        let events = events.into_iter().map(move |(waiters_ahead, word)| {
            Ok(CreateInstanceEvent { instance: Some(instance(&id, word)), waiters_ahead })
        });
        let events = stream::iter(events);
        // A queued stream ends here: the client has to ask again.
        Ok(Response::new(if waits { events.chain(stream::pending()).boxed() } else { events.boxed() }))
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if token != Some("Bearer mote_t") {
            return Err(Status::unauthenticated("the token is not known"));
        }
        Ok(Response::new(ListInstancesResponse { instances: vec![instance("id", "ready")] }))
    }

    async fn ping_instance(
        &self,
        request: Request<PingInstanceRequest>,
    ) -> Result<Response<PingInstanceResponse>, Status> {
        drop(self.called("ping"));
        match request.into_inner().instance.as_str() {
            "dead" => Err(Status::unavailable("its buildlet is out of contact for 40 s")),
            _ => {
                Ok(Response::new(PingInstanceResponse { instance: Some(instance("id", "ready")), round_trip_us: 400 }))
            }
        }
    }

    async fn destroy_instance(
        &self,
        request: Request<DestroyInstanceRequest>,
    ) -> Result<Response<DestroyInstanceResponse>, Status> {
        let name = request.into_inner().instance;
        if name == "nobody" {
            return Err(Status::not_found("no instance \"nobody\""));
        }
        self.called("destroy").destroyed.push(name);
        Ok(Response::new(DestroyInstanceResponse {}))
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Events, Status> {
        let request = request.into_inner();
        if request.instance == "nobody" {
            return Err(Status::not_found("no instance \"nobody\""));
        }
        let spec = request.spec.unwrap_or_default();
        self.called("execute").execs.entry(request.exec_id.clone()).or_insert_with(|| Exec::start(spec));
        self.events(&request.exec_id, request.offset, true)
    }

    async fn attach_exec(&self, request: Request<AttachExecRequest>) -> Result<Events, Status> {
        drop(self.called("attach"));
        let request = request.into_inner();
        self.events(&request.exec_id, request.offset, request.follow)
    }

    async fn list_execs(&self, request: Request<ListExecsRequest>) -> Result<Response<ListExecsResponse>, Status> {
        if request.into_inner().instance != "alice-linux-amd64-0" {
            return Err(Status::not_found("no such instance"));
        }
        let state = self.called("list_execs");
        let mut execs: Vec<ExecInfo> = state
            .execs
            .iter()
            .map(|(id, exec)| ExecInfo {
                exec_id: id.clone(),
                outcome: exec.outcome.borrow().clone(),
                ..Default::default()
            })
            .collect();
        execs.sort_by(|a, b| a.exec_id.cmp(&b.exec_id));
        Ok(Response::new(ListExecsResponse { execs }))
    }

    async fn ack_output(&self, request: Request<AckOutputRequest>) -> Result<Response<AckOutputResponse>, Status> {
        self.called("ack").acked = request.into_inner().offset;
        Ok(Response::new(AckOutputResponse {}))
    }

    async fn write_stdin(&self, request: Request<WriteStdinRequest>) -> Result<Response<WriteStdinResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.called("stdin");
        let cut_now = state.calls.len().is_multiple_of(7) && state.cut_every.is_some();
        let exec = state.execs.get_mut(&request.exec_id).ok_or_else(|| Status::not_found("no such execution"))?;
        let known = exec.stdin.len() as u64;
        if request.offset > known {
            return Err(Status::out_of_range("a gap"));
        }
        let fresh = usize::try_from(known - request.offset).unwrap().min(request.data.len());
        // A small pipe.
        let taken = request.data[fresh..].iter().take(20_000);
        exec.stdin.extend(taken);
        let accepted = exec.stdin.len() as u64;
        if request.eof && accepted == request.offset + request.data.len() as u64 {
            exec.end(Ending::Exited, 0);
        }
        if cut_now {
            cut(&self.cutter);
        }
        Ok(Response::new(WriteStdinResponse { accepted, closed: false }))
    }

    async fn signal_exec(&self, request: Request<SignalExecRequest>) -> Result<Response<SignalExecResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.called("signal");
        let exec = state.execs.get_mut(&request.exec_id).ok_or_else(|| Status::not_found("no such execution"))?;
        exec.signals.push(request.signal);
        if request.signal == 13 {
            exec.end(Ending::Signaled, 13);
        }
        Ok(Response::new(SignalExecResponse {}))
    }

    async fn cancel_exec(&self, request: Request<CancelExecRequest>) -> Result<Response<CancelExecResponse>, Status> {
        let state = self.called("cancel");
        let exec = state.execs.get(&request.into_inner().exec_id);
        exec.ok_or_else(|| Status::not_found("no such execution"))?.end(Ending::Cancelled, 0);
        Ok(Response::new(CancelExecResponse {}))
    }

    async fn upload_blobs(&self, request: Request<Streaming<BlobBatch>>) -> Result<Response<UploadSummary>, Status> {
        let mut batches = request.into_inner();
        let (mut stored, mut stored_bytes) = (0, 0);
        while let Some(batch) = batches.message().await? {
            if batch.compression() == blob_batch::Compression::Zstd {
                return Err(Status::invalid_argument("compressed for a farm on the same machine"));
            }
            let mut data = batch.data;
            let mut state = self.called("upload");
            for digest in &batch.digests {
                let digest = convert::digest(digest)?;
                let content = data.split_to(usize::try_from(digest.size_bytes()).unwrap());
                if motefarm_core::Digest::of(&content) != digest {
                    return Err(Status::invalid_argument("a wrong digest"));
                }
                stored += 1;
                stored_bytes += digest.size_bytes();
                state.blobs.insert(digest);
            }
        }
        Ok(Response::new(UploadSummary { stored, stored_bytes }))
    }

    async fn sync_tree(&self, request: Request<SyncTreeRequest>) -> Result<Response<TreeSyncResult>, Status> {
        let mut state = self.called("sync");
        let request = request.into_inner();
        let root = request.sync.as_ref().and_then(|sync| sync.root.as_ref());
        let root = convert::digest(root.ok_or_else(|| Status::invalid_argument("no root"))?)?;
        if !state.blobs.contains(&root) {
            return Ok(Response::new(TreeSyncResult { missing: vec![root.into()], ..Default::default() }));
        }
        let files_written = if state.syncs.contains(&request) { 0 } else { 2 };
        state.syncs.push(request);
        Ok(Response::new(TreeSyncResult { files_written, ..Default::default() }))
    }

    async fn get_tar(&self, _: Request<GetTarRequest>) -> Result<Response<Self::GetTarStream>, Status> {
        let mut state = self.called("tar");
        let breaks = state.cut_tars > 0;
        state.cut_tars = state.cut_tars.saturating_sub(1);
        let chunk = |byte: u8| TarChunk { data: vec![byte; 100_000].into() };
        let cutter = self.cutter.clone();
        let chunks = stream::iter((0..20).map(chunk)).then(move |chunk| {
            let cutter = cutter.clone();
            async move {
                if breaks && chunk.data[0] == 10 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    cut(&cutter);
                    std::future::pending::<()>().await;
                }
                Ok(chunk)
            }
        });
        Ok(Response::new(chunks.boxed()))
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this farm"))
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    type GetTreeStream = BoxStream<'static, Result<reapi::GetTreeResponse, Status>>;
    type GetChunkMappingStream = BoxStream<'static, Result<reapi::GetChunkMappingResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Answer<reapi::FindMissingBlobsResponse> {
        let state = self.called("find_missing");
        let asked = request.into_inner().blob_digests;
        let is_missing = |digest: &reapi::Digest| !state.blobs.contains(&convert::reapi_digest(digest).unwrap());
        let missing_blob_digests = asked.into_iter().filter(is_missing).collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        _: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Answer<reapi::BatchUpdateBlobsResponse> {
        no()
    }

    async fn batch_read_blobs(
        &self,
        _: Request<reapi::BatchReadBlobsRequest>,
    ) -> Answer<reapi::BatchReadBlobsResponse> {
        no()
    }

    async fn get_tree(&self, _: Request<reapi::GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        no()
    }

    async fn split_blob(&self, _: Request<reapi::SplitBlobRequest>) -> Answer<reapi::SplitBlobResponse> {
        no()
    }

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Answer<Self::GetChunkMappingStream> {
        no()
    }

    async fn splice_blob(&self, _: Request<reapi::SpliceBlobRequest>) -> Answer<reapi::SpliceBlobResponse> {
        no()
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Answer<reapi::RegisterChunkMappingResponse> {
        no()
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let token = "id.secret.hash".to_owned();
        let made = CreateJoinTokenResponse {
            token,
            id: "id".into(),
            coordinator: "farm:8119".into(),
            expires_at_ms: i64::MAX,
        };
        Ok(Response::new(made))
    }

    async fn create_token(&self, _: Request<CreateTokenRequest>) -> Result<Response<CreateTokenResponse>, Status> {
        Ok(Response::new(CreateTokenResponse { token: "mote_new".into() }))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(Status::permission_denied("alice is no admin"))
    }

    async fn add_user(&self, _: Request<AddUserRequest>) -> Result<Response<AddUserResponse>, Status> {
        Ok(Response::new(AddUserResponse {}))
    }

    async fn remove_user(&self, _: Request<RemoveUserRequest>) -> Result<Response<RemoveUserResponse>, Status> {
        Ok(Response::new(RemoveUserResponse {}))
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        let token = TokenInfo { user: "alice".into(), name: "default".into(), created_at_ms: 1, ..Default::default() };
        Ok(Response::new(ListTokensResponse { tokens: vec![token] }))
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        Ok(Response::new(RevokeTokenResponse {}))
    }

    async fn list_join_tokens(
        &self,
        _: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        Ok(Response::new(ListJoinTokensResponse { tokens: Vec::new() }))
    }

    async fn revoke_join_token(
        &self,
        _: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        Ok(Response::new(RevokeJoinTokenResponse {}))
    }

    async fn list_buildlets(
        &self,
        _: Request<ListBuildletsRequest>,
    ) -> Result<Response<ListBuildletsResponse>, Status> {
        Ok(Response::new(ListBuildletsResponse { buildlets: Vec::new() }))
    }
}
