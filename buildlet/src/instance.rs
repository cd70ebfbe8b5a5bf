//! One instance: its directory, and what is known of it without looking there.
//!
//! What this holds in memory is a reading of the directory; losing it costs a scan.

mod leased_by_use;
mod meta;
mod running;

use crate::error::AgentError;
use crate::exec_dir::{ExecDir, Standing};
use crate::files::Place;
use crate::keeper::Arguments;
use crate::keeper_client::{self, Connection};
use crate::layout::instance;
use crate::program::Program;
use crate::sandbox::Sandbox;
use crate::session::Threads;
use motefarm_core::clock::Timestamp;
use motefarm_core::lease::LeaseTerms;
use motefarm_core::{Clock as _, ExecId, InstanceId, SystemClock};
use motefarm_proto::convert;
use motefarm_proto::mote::{BuildletCreateInstanceRequest, InstanceLimits, InstanceReport, KeeperDeadline};
use prost::Message as _;
use running::Running;
pub(crate) use running::Watcher;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

/// A keeper acts this much after the buildlet would have, so that the buildlet, if it lives, does it.
const KEEPER_SLACK: Duration = Duration::from_secs(15);

/// How long a restarted buildlet waits for news of leases before it ends anything.
const NEWS_PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    born: Timestamp,
    /// Not ended for want of news before this.
    not_before: Timestamp,
    terms: LeaseTerms,
    grace: Duration,
    limits: InstanceLimits,
    /// Nobody but us renews its lease.
    leased_by_use: bool,
    state: Mutex<State>,
    /// Held while a keeper is looked for and started.
    keeper: tokio::sync::Mutex<()>,
    /// Shared by what needs the instance to stay; taken whole by its end.
    pub(crate) life: tokio::sync::RwLock<()>,
    starting: Mutex<HashMap<ExecId, Arc<tokio::sync::Mutex<()>>>>,
    /// Of its sessions.
    pub(crate) session_threads: Threads,
    /// One sync at a time a destination.
    pub(crate) syncing: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

struct State {
    meta: BuildletCreateInstanceRequest,
    last_use: Timestamp,
    running: BTreeMap<ExecId, Running>,
    ended: u64,
    ending: bool,
    /// What its keeper was told last.
    keeper_ends_at: Option<Timestamp>,
}

impl Instance {
    /// Makes the directory, whole or not at all.
    pub(crate) fn create(dir: PathBuf, mut request: BuildletCreateInstanceRequest) -> Result<Self, AgentError> {
        let now = SystemClock.now();
        if request.leased_by_use {
            request.terms = Some(leased_by_use::terms(request.terms.unwrap_or_default()));
            (request.expires_at_ms, request.grace_ms) = (0, 0);
        }
        let terms = convert::lease_terms(&request.terms.unwrap_or_default())?;
        if request.expires_at_ms == 0 && !request.leased_by_use {
            request.expires_at_ms = (now + terms.idle_timeout).as_millis();
        }
        let mut temporary = dir.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let make = || {
            match fs::remove_dir_all(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            for name in [instance::WORK, instance::TMP, instance::HOME, instance::TREES, instance::EXECS] {
                fs::create_dir_all(temporary.join(name))?;
            }
            fs::write(temporary.join(instance::BORN), now.as_millis().to_string())?;
            meta::save(&temporary, &request, now)?;
            fs::rename(&temporary, &dir)
        };
        make().map_err(AgentError::io(format!("can not make {}", dir.display())))?;
        Self::from_parts(dir, request, now, now)
    }

    /// Reads the directory of an instance that was made before.
    pub(crate) fn load(dir: PathBuf) -> Result<Self, AgentError> {
        let failed = |what: &str| AgentError::io(format!("can not read {}", dir.join(what).display()));
        let bytes = fs::read(dir.join(instance::META)).map_err(failed(instance::META))?;
        let meta = BuildletCreateInstanceRequest::decode(bytes.as_slice())
            .map_err(|e| failed(instance::META)(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        let used = fs::metadata(dir.join(instance::META)).and_then(|m| m.modified()).map_err(failed(instance::META))?;
        let last_use = used.duration_since(UNIX_EPOCH).map_or(Timestamp::EPOCH, |since| Timestamp::EPOCH + since);
        let born = fs::read_to_string(dir.join(instance::BORN)).map_err(failed(instance::BORN))?;
        let born = born.trim().parse().map_or(last_use, Timestamp::from_millis);
        let staging = dir.join(instance::STAGING);
        // What was not whole when the last buildlet died.
        if let Err(error) = crate::wipe::empty(&staging)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %staging.display(), %error, "half-written files could not be removed");
        }
        let loaded = Self::from_parts(dir, meta, born, last_use)?;
        if loaded.leased_by_use {
            return Ok(loaded);
        }
        // The news may have come while no buildlet ran: whoever has it gets time to tell.
        Ok(Self { not_before: SystemClock.now() + NEWS_PATIENCE, ..loaded })
    }

    fn from_parts(
        dir: PathBuf,
        meta: BuildletCreateInstanceRequest,
        born: Timestamp,
        last_use: Timestamp,
    ) -> Result<Self, AgentError> {
        Ok(Self {
            id: convert::instance_id(&meta.instance_id)?,
            name: meta.name.clone(),
            terms: convert::lease_terms(&meta.terms.unwrap_or_default())?,
            grace: Duration::from_millis(meta.grace_ms),
            limits: meta.limits.unwrap_or_default(),
            leased_by_use: meta.leased_by_use,
            dir,
            born,
            not_before: Timestamp::EPOCH,
            state: Mutex::new(State {
                meta,
                last_use,
                running: BTreeMap::new(),
                ended: 0,
                ending: false,
                keeper_ends_at: None,
            }),
            keeper: tokio::sync::Mutex::default(),
            life: tokio::sync::RwLock::default(),
            starting: Mutex::default(),
            session_threads: Threads::default(),
            syncing: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    // Directories.

    pub(crate) fn work_dir(&self) -> PathBuf {
        self.dir.join(instance::WORK)
    }

    /// Where file work takes place.
    pub(crate) fn place(&self) -> Place {
        Place { work: self.work_dir(), staging: self.dir.join(instance::STAGING) }
    }

    pub(crate) fn execs_dir(&self) -> PathBuf {
        self.dir.join(instance::EXECS)
    }

    fn exec_path(&self, id: ExecId) -> PathBuf {
        self.execs_dir().join(id.to_string())
    }

    /// Opens an execution's directory.
    pub(crate) fn exec(&self, id: ExecId) -> Result<ExecDir, AgentError> {
        self.find_exec(id)?.ok_or(AgentError::NoExec { instance: self.id, exec: id })
    }

    pub(crate) fn find_exec(&self, id: ExecId) -> Result<Option<ExecDir>, AgentError> {
        ExecDir::open(self.exec_path(id))
    }

    pub(crate) fn create_exec(
        &self,
        id: ExecId,
        spec: &motefarm_proto::mote::SupervisorSpec,
    ) -> Result<ExecDir, AgentError> {
        ExecDir::create(self.exec_path(id), spec)
    }

    /// Those of these executions that are here.
    pub(crate) fn some_execs(&self, ids: &[ExecId]) -> Result<Vec<(ExecId, ExecDir)>, AgentError> {
        let found = ids.iter().map(|id| Ok(self.find_exec(*id)?.map(|exec| (*id, exec))));
        found.filter_map(Result::transpose).collect()
    }

    /// Every execution with its directory, in no order. Those that can not be read are logged.
    pub(crate) fn all_execs(&self) -> Result<Vec<(ExecId, ExecDir)>, AgentError> {
        let dir = self.execs_dir();
        let listing = fs::read_dir(&dir).map_err(AgentError::io(format!("can not list {}", dir.display())))?;
        let mut found = Vec::new();
        for entry in listing.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.find_exec(id) {
                Ok(Some(exec)) => found.push((id, exec)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(instance.id = %self.id, exec.id = %id, %error, "an execution is unreadable")
                }
            }
        }
        Ok(found)
    }

    // Life.

    /// Marks the end as begun; nothing new starts from here on.
    pub(crate) fn begin_end(&self) {
        self.state().ending = true;
    }

    pub(crate) fn check_alive(&self) -> Result<(), AgentError> {
        if self.state().ending { Err(AgentError::Ending(self.id)) } else { Ok(()) }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.state().ending
    }

    /// Notes a use, on disk at most once a coalescing window.
    pub(crate) fn touch(&self) {
        let now = SystemClock.now();
        let mut state = self.state();
        let write = now.since(state.last_use) >= self.terms.coalesce_window();
        state.last_use = state.last_use.max(now);
        drop(state);
        if write && let Err(error) = meta::set_used(&self.dir.join(instance::META), now) {
            tracing::warn!(instance.id = %self.id, %error, "a use could not be written down");
        }
    }

    /// Learns when the lease ends now; `true` if that is news.
    pub(crate) fn set_lease_end(&self, expires_at: Timestamp) -> Result<bool, AgentError> {
        if self.leased_by_use {
            return Ok(false);
        }
        let (meta, last_use) = {
            let mut state = self.state();
            if state.meta.expires_at_ms == expires_at.as_millis() {
                return Ok(false);
            }
            state.meta.expires_at_ms = expires_at.as_millis();
            (state.meta.clone(), state.last_use)
        };
        meta::save(&self.dir, &meta, last_use)
            .map_err(AgentError::io(format!("can not write {}", self.dir.join(instance::META).display())))?;
        Ok(true)
    }

    /// When this instance is to end if nobody says otherwise: at the lease's end or an idle timeout
    /// after the last use, whichever is later, plus the grace. A running execution is a use now, as
    /// long as somebody watches it or watched it recently enough. Never past the longest life.
    pub(crate) fn ends_at(&self, now: Timestamp) -> Timestamp {
        let state = self.state();
        let unwatched = |r: &Running| r.watchers == 0 && now.since(r.last_watched) >= self.terms.unwatched_limit;
        let used = if state.running.values().all(unwatched) { state.last_use } else { now };
        self.bounded_end(&state, used)
    }

    fn bounded_end(&self, state: &State, used: Timestamp) -> Timestamp {
        let end = Timestamp::from_millis(state.meta.expires_at_ms).max(used + self.terms.idle_timeout);
        let most = self.terms.max_lifetime.map_or(Timestamp::MAX, |most| self.born + most);
        (end.min(most) + self.grace).max(self.not_before)
    }

    /// When its keeper is to end it, should the buildlet be gone: as above, but what runs now may
    /// run as long as executions nobody watches may.
    fn keeper_ends_at(&self, now: Timestamp) -> Timestamp {
        let own = self.ends_at(now);
        let state = self.state();
        let last =
            state.running.values().map(|r| r.last_watched.max(if r.watchers > 0 { now } else { r.last_watched }));
        let running = last.max().map_or(own, |at| own.max(self.bounded_end(&state, at + self.terms.unwatched_limit)));
        running + KEEPER_SLACK
    }

    /// Tells the keeper its deadline if that changed enough to matter.
    pub(crate) async fn renew_keeper(&self) -> io::Result<()> {
        let ends_at = self.keeper_ends_at(SystemClock.now());
        let window = self.terms.coalesce_window();
        let told = self.state().keeper_ends_at;
        if told.is_some_and(|told| told.since(ends_at) < window && ends_at.since(told) < window) {
            return Ok(());
        }
        let connection = match Connection::open(&self.dir).await {
            // Nothing runs in it, so there is nothing to end.
            Err(error) if keeper_client::is_absent(&error) => return Ok(()),
            connection => connection?,
        };
        // The buildlet may die with what runs now, and be unable to say that it ended.
        let idle_after = self.terms.idle_timeout + self.grace + KEEPER_SLACK;
        let deadline = KeeperDeadline {
            ends_at_ms: ends_at.as_millis(),
            idle_ends_at_ms: (self.ends_at(SystemClock.now()) + KEEPER_SLACK).as_millis(),
            idle_after_ms: u64::try_from(idle_after.as_millis()).unwrap_or(u64::MAX),
        };
        connection.set_deadline(deadline).await?;
        self.state().keeper_ends_at = Some(ends_at);
        Ok(())
    }

    /// A connection to the keeper, which is started if there is none.
    pub(crate) async fn keeper(&self, sandbox: &Sandbox, program: &Program) -> Result<Connection, AgentError> {
        let failed = |error: io::Error| {
            AgentError::Unavailable(format!("the keeper of instance {} can not be had: {error}", self.id))
        };
        match Connection::open(&self.dir).await {
            Ok(connection) => return Ok(connection),
            Err(error) if keeper_client::is_absent(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        let _starting = self.keeper.lock().await;
        if let Ok(connection) = Connection::open(&self.dir).await {
            return Ok(connection);
        }
        let ends_at = self.keeper_ends_at(SystemClock.now());
        let arguments = Arguments::new(ends_at, &self.limits);
        let path = program.path().map_err(failed)?;
        keeper_client::start(sandbox, &path, &self.dir, self.id, &self.name, &arguments).await.map_err(failed)?;
        self.state().keeper_ends_at = Some(ends_at);
        tracing::info!(instance.id = %self.id, instance.name = %self.name, "keeper started");
        Connection::open(&self.dir).await.map_err(failed)
    }

    // Executions.

    /// Held while an execution is being started.
    pub(crate) fn starting(&self, id: ExecId) -> Arc<tokio::sync::Mutex<()>> {
        let mut starting = self.starting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        starting.retain(|_, lock| Arc::strong_count(lock) > 1);
        starting.entry(id).or_default().clone()
    }

    pub(crate) fn report(&self) -> InstanceReport {
        let state = self.state();
        InstanceReport {
            instance_id: self.id.to_string(),
            running_execs: state.running.keys().map(ExecId::to_string).collect(),
            last_use_ms: state.last_use.as_millis(),
            ended_execs: state.ended,
        }
    }

    /// Counts the ended executions found at start, and answers the others.
    pub(crate) fn take_stock(&self) -> Result<Vec<(ExecId, Standing)>, AgentError> {
        let mut open = Vec::new();
        for (id, exec) in self.all_execs()? {
            match exec.standing() {
                Ok(Standing::Ended(outcome)) => {
                    let mut state = self.state();
                    state.ended += 1;
                    state.last_use = state.last_use.max(Timestamp::from_millis(outcome.ended_at_ms));
                }
                Ok(standing) => open.push((id, standing)),
                Err(error) => {
                    tracing::warn!(instance.id = %self.id, exec.id = %id, %error, "an execution is unreadable")
                }
            }
        }
        Ok(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::mote::LeaseTerms as WireTerms;
    use std::path::Path;
    use uuid::Uuid;

    fn create(dir: &Path, terms: WireTerms) -> Instance {
        let id = Uuid::new_v4().to_string();
        let request = BuildletCreateInstanceRequest {
            instance_id: id.clone(),
            name: "n".into(),
            terms: Some(terms),
            expires_at_ms: 0,
            grace_ms: 1000,
            ..Default::default()
        };
        Instance::create(dir.join(id), request).unwrap()
    }

    fn terms(idle: u64, life: u64, unwatched: u64) -> WireTerms {
        WireTerms { idle_timeout_ms: idle, max_lifetime_ms: life, unwatched_limit_ms: unwatched }
    }

    #[test]
    fn an_instance_survives_its_buildlet_with_lease_and_last_use() {
        let dir = tempfile::tempdir().unwrap();
        let made = create(dir.path(), terms(60_000, 0, 0));
        let later = SystemClock.now() + Duration::from_secs(500);
        assert!(made.set_lease_end(later).unwrap());
        assert!(!made.set_lease_end(later).unwrap());
        let loaded = Instance::load(made.dir.clone()).unwrap();
        assert_eq!((loaded.id, loaded.born), (made.id, made.born));
        assert_eq!(loaded.ends_at(made.born), later + Duration::from_secs(1));
        assert_eq!(loaded.report().last_use_ms, made.report().last_use_ms);
    }

    #[test]
    fn a_lease_by_use_knows_no_coordinator_and_outlives_the_buildlet() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::new_v4().to_string();
        let request = BuildletCreateInstanceRequest {
            instance_id: id.clone(),
            terms: Some(terms(0, 3_600_000, 0)),
            expires_at_ms: i64::MAX,
            grace_ms: 1 << 40,
            leased_by_use: true,
            ..Default::default()
        };
        let made = Instance::create(dir.path().join(id), request).unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(made.ends_at(made.born), made.born + 30 * minute);
        assert!(!made.set_lease_end(made.born + 500 * minute).unwrap());
        std::fs::create_dir(made.place().staging).unwrap();
        std::fs::write(made.place().staging.join("half"), "x").unwrap();
        let loaded = Instance::load(made.dir.clone()).unwrap();
        assert_eq!(loaded.ends_at(made.born), made.born + 30 * minute, "no patience for news that can not come");
        assert!(!loaded.is_over(made.born + 29 * minute) && loaded.is_over(made.born + 30 * minute));
        assert_eq!(std::fs::read_dir(loaded.place().staging).unwrap().count(), 0);
        let exec = ExecId::from_uuid(Uuid::new_v4());
        loaded.note_running(exec);
        assert!(!loaded.is_over(made.born + 59 * minute), "what runs renews it");
        assert!(loaded.is_over(made.born + 60 * minute), "but not past its longest life");
        assert_eq!(loaded.keeper_ends_at(made.born), made.born + 60 * minute + KEEPER_SLACK);
    }

    #[test]
    fn running_counts_as_use_until_nobody_watched_for_long_and_never_past_the_longest_life() {
        let dir = tempfile::tempdir().unwrap();
        let second = Duration::from_secs(1);
        let instance = Arc::new(create(dir.path(), terms(60_000, 0, 300_000)));
        let start = instance.born;
        assert_eq!(instance.ends_at(start + 1000 * second), start + 61 * second);
        let exec = ExecId::from_uuid(Uuid::new_v4());
        assert!(instance.note_running(exec) && !instance.note_running(exec));
        let during = start + 200 * second;
        assert_eq!(instance.ends_at(during), during + 61 * second);
        assert!(instance.ends_at(start + 1000 * second) < start + 100 * second, "unwatched for too long");
        let watcher = instance.watcher(exec);
        let late = start + 9000 * second;
        assert_eq!(instance.ends_at(late), late + 61 * second);
        drop(watcher);
        assert!(instance.keeper_ends_at(start) > start + 300 * second);
        let short = create(dir.path(), terms(60_000, 90_000, 300_000));
        short.note_running(exec);
        assert_eq!(short.ends_at(short.born + 80 * second), short.born + 91 * second);
    }

    #[test]
    fn acknowledgements_are_forwarded_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let instance = create(dir.path(), terms(60_000, 0, 0));
        let exec = ExecId::from_uuid(Uuid::new_v4());
        assert!(!instance.acknowledge(exec, 5), "not running");
        instance.note_running(exec);
        assert!(instance.acknowledge(exec, 5));
        assert!(!instance.acknowledge(exec, 9), "somebody is at it");
        assert!(!instance.acknowledge(exec, 3));
        assert_eq!(instance.to_forward(exec, 5), Some(9));
        assert_eq!(instance.to_forward(exec, 9), None);
        assert!(instance.acknowledge(exec, 10));
    }
}
