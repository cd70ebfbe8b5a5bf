//! A farm of one test: enough of the services to be believed, and a hand on every connection.

mod access;
mod admin;
mod content;
mod exec;
mod execution;
mod farm;
mod files;
mod storage;

pub(crate) use content::wrong;
pub(crate) use exec::{Exec, lines};

use motefarm_net::serve::serve_connection;
use motefarm_net::tls::Authority;
use motefarm_proto::mote::access_server::AccessServer;
use motefarm_proto::mote::admin_server::AdminServer;
use motefarm_proto::mote::content_server::ContentServer;
use motefarm_proto::mote::farm_server::FarmServer;
use motefarm_proto::mote::sign_in_server::SignInServer;
use motefarm_proto::mote::*;
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use motefarm_proto::reapi::execution_server::ExecutionServer;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    /// Listings to cut after their first part.
    pub(crate) cut_lists: u32,
    /// Content is taken and given up to a point and no further.
    pub(crate) stalls: bool,
    /// Requests ahead, counted down at each event of a create.
    pub(crate) ahead: u64,
    pub(crate) created: Vec<CreateInstanceRequest>,
    pub(crate) destroyed: Vec<String>,
    pub(crate) syncs: Vec<SyncTreeRequest>,
    pub(crate) acked: u64,
    pub(crate) groups: BTreeMap<String, Vec<String>>,
    /// By instance and path: mode and content.
    pub(crate) files: BTreeMap<(String, String), (u32, Vec<u8>)>,
    /// Archives put: instance, directory, content.
    pub(crate) tars: Vec<(String, String, Vec<u8>)>,
    /// Addresses fetched.
    pub(crate) urls: Vec<String>,
    pub(crate) removed: Vec<RemovePathsRequest>,
    pub(crate) lists: Vec<ListDirRequest>,
    pub(crate) snapshots: Vec<SnapshotInfo>,
    /// Instances whose host type has a bootstrap toolchain are all or none.
    pub(crate) has_bootstrap: bool,
    /// The next so many puts break in the middle.
    pub(crate) cut_puts: u32,
    /// Of several creates these (counted from 1) are refused.
    pub(crate) refuses: Vec<usize>,
    /// Whom it was asked about, as `authorization` said.
    pub(crate) tokens: Vec<String>,
    /// Who vouches for users; empty: nobody.
    pub(crate) issuer: String,
    /// A member of a group that the farm knows no more.
    pub(crate) gone: HashSet<String>,
}

impl State {
    /// All instances there are: the first one without being asked for.
    fn live(&self) -> Vec<InstanceInfo> {
        if self.created.is_empty() {
            return vec![self.instance(0, "id", "ready")];
        }
        let refused = |n: &usize| self.refuses.contains(&(n + 1));
        let all = self.distinct().into_iter().enumerate().filter(|(n, _)| !refused(n));
        let all = all.map(|(n, id)| self.instance(n, id, "ready"));
        all.filter(|i| !self.gone.contains(&i.name)).collect()
    }

    /// Ids that were asked for, each once.
    fn distinct(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.created.iter().map(|request| request.instance_id.as_str()).filter(|id| seen.insert(*id)).collect()
    }

    fn instance(&self, n: usize, id: &str, state: &str) -> InstanceInfo {
        let name = format!("alice-linux-amd64-{n}");
        let groups = self.groups.iter().filter(|(_, members)| members.contains(&name));
        InstanceInfo {
            instance_id: id.to_owned(),
            host_type: "linux-amd64".to_owned(),
            buildlet: "box".to_owned(),
            state: state.to_owned(),
            now_ms: 5_000,
            expires_at_ms: 5_000 + 1_800_000,
            groups: groups.map(|(group, _)| group.clone()).collect(),
            name,
            ..Default::default()
        }
    }
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
            .add_service(ContentServer::new(service.clone()))
            .add_service(ExecutionServer::new(service.clone()))
            .add_service(AccessServer::new(service.clone()))
            .add_service(SignInServer::new(service.clone()))
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

impl Service {
    fn called(&self, name: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(name);
        state
    }
}
