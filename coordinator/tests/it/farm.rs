//! A farm in process.

use futures_util::StreamExt as _;
use motefarm_cas::store::{Store as Cas, StoreLimits};
use motefarm_coordinator::app::App;
use motefarm_coordinator::config::{Config, File, Overrides};
use motefarm_coordinator::farm::contact::{self, Origin};
use motefarm_coordinator::farm::create::Wish;
use motefarm_coordinator::farm::reap::Reaper;
use motefarm_coordinator::farm::{FarmError, allocate, create, snapshots};
use motefarm_coordinator::identity::{Identity, Role};
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_coordinator::store::{InstanceRow, NewExecution, Store};
use motefarm_core::instance::InstanceState;
use motefarm_core::{ExecId, InstanceId, SettableClock, Timestamp};
use motefarm_proto::mote;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const TYPE: &str = "fake-type";
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct TestFarm {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Arc<SettableClock>,
    pub(crate) reaper: Reaper,
    dir: Arc<tempfile::TempDir>,
    config: String,
}

impl TestFarm {
    pub(crate) async fn new(config: &str) -> Self {
        let clock = Arc::new(SettableClock::new(Timestamp::from_millis(1_700_000_000_000)));
        Self::in_dir(Arc::new(tempfile::tempdir().unwrap()), clock, config.to_owned()).await
    }

    async fn in_dir(dir: Arc<tempfile::TempDir>, clock: Arc<SettableClock>, config: String) -> Self {
        let text = format!("{config}\n[host_types.{TYPE}]\n");
        let resolved: Config =
            File::parse(&text).unwrap().resolve(Overrides::default(), dir.path().to_owned()).unwrap();
        let store = Store::open(&dir.path().join("farm.db")).await.unwrap();
        store.all_lost().await.unwrap();
        let limits = StoreLimits { max_bytes: resolved.cas_max_bytes, ..StoreLimits::default() };
        let cas = Cas::open(&dir.path().join("cas"), limits).unwrap();
        let app = App::new(resolved, store, cas, clock.clone());
        snapshots::pin_again(&app).await.unwrap();
        Self { app, clock, reaper: Reaper::default(), dir, config }
    }

    /// As after `kill -9`: nothing is closed in order, everything is read again.
    pub(crate) async fn restart(self) -> Self {
        self.app.shutdown.cancel();
        self.app.tasks.close();
        self.app.tasks.wait().await;
        self.app.store.close().await;
        let Self { app, clock, dir, config, .. } = self;
        drop(app);
        Self::in_dir(dir, clock, config).await
    }

    /// Brings a faked buildlet into contact and waits until it is.
    pub(crate) async fn connect(&self, link: &FakeLink, buildlet_id: &str) {
        let (app, link) = (self.app.clone(), link.clone());
        let origin = Origin {
            provider: "join",
            host_type: None,
            buildlet_id: None,
            join_token_id: None,
            cut: CancellationToken::new(),
        };
        self.app.spawn(async move {
            let _ = contact::serve(&app, Arc::new(link), &origin).await;
        });
        assert!(self.app.registry.wait_for(buildlet_id, Duration::from_secs(10)).await.is_some(), "not in contact");
    }

    pub(crate) fn alice() -> Identity {
        Identity { user: "alice".parse().unwrap(), role: Role::User }
    }

    pub(crate) fn bob() -> Identity {
        Identity { user: "bob".parse().unwrap(), role: Role::User }
    }

    /// A farm with one buildlet, `b1`, in contact.
    pub(crate) async fn with_buildlet(config: &str) -> (Self, FakeLink) {
        let farm = Self::new(config).await;
        let buildlet = FakeLink::new("b1", TYPE, 8);
        farm.connect(&buildlet, "b1").await;
        (farm, buildlet)
    }

    pub(crate) fn wish(n: u128) -> Wish {
        let id = InstanceId::from_uuid(Uuid::from_u128(n));
        Wish { id, host_type: TYPE.parse().unwrap(), idle_timeout: None, from_snapshot: None, groups: Vec::new() }
    }

    /// Asks for what is wished and answers the first word of it.
    pub(crate) async fn ask(&self, caller: &Identity, wish: Wish) -> Result<mote::InstanceInfo, FarmError> {
        let mut stream = create::create_from(&self.app, caller, wish).await?;
        Ok(stream.next().await.unwrap()?.instance.unwrap())
    }

    /// Where the farm keeps everything.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn request(&self, n: u128) -> Result<InstanceId, FarmError> {
        let id = InstanceId::from_uuid(Uuid::from_u128(n));
        let mut stream = create::create(&self.app, &Self::alice(), id, TYPE.parse().unwrap(), None).await?;
        stream.next().await.unwrap()?;
        Ok(id)
    }

    /// Requests, allocates, waits until ready.
    pub(crate) async fn lease(&self, n: u128) -> InstanceRow {
        let id = self.request(n).await.unwrap();
        allocate::pass(&self.app).await.unwrap();
        self.reached(id, InstanceState::Ready).await
    }

    /// Waits for a state.
    pub(crate) async fn reached(&self, id: InstanceId, state: InstanceState) -> InstanceRow {
        let mut changes = self.app.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let row = self.app.store.instance(id).await.unwrap().unwrap();
                if row.state == state {
                    return row;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the state was not reached")
    }

    /// Records an execution, as asking for one does.
    pub(crate) async fn begin_execution(&self, row: &InstanceRow) {
        let new = NewExecution {
            id: ExecId::from_uuid(Uuid::from_u128(1)),
            instance_id: row.id,
            spec: b"",
            actor: "alice",
            instance_name: &row.name,
            command: "sleep",
        };
        self.app.store.begin_execution(&new, 0, self.app.now()).await.unwrap();
    }

    pub(crate) async fn sweep(&self) {
        self.reaper.pass(&self.app, self.app.now()).await.unwrap();
    }
}
