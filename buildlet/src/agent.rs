//! The buildlet's state: its instances, and what every operation needs.
//!
//! The disk is the state. What is here was read from it at start and is kept in step.

mod ending;
mod executions;
mod leases;

use crate::action::ActionSandbox;
use crate::error::AgentError;
use crate::identity::Identity;
use crate::instance::Instance;
use crate::layout::DataDir;
use crate::program::Program;
use crate::sandbox::Sandbox;
use crate::unpack::UnpackLimits;
use crate::wakeups::Wakeups;
use motefarm_core::{Clock as _, HostType, InstanceId, SystemClock};
use motefarm_proto::BUILDLET_PROTOCOL_VERSION;
use motefarm_proto::convert;
use motefarm_proto::mote::{BuildletCreateInstanceRequest, BuildletDescription, BuildletReport};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

/// More instances than any machine can serve; a bound all the same.
const MOST_INSTANCES: usize = 10_000;

/// What the operator chose.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) host_type: HostType,
    pub(crate) lease_slots: u64,
    pub(crate) action_slots: u64,
    /// Whether actions have a sandbox, or why not.
    pub(crate) action_sandbox: Result<ActionSandbox, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Bound of an execution's spooled output where it names none.
    pub(crate) spool_limit_bytes: u64,
    pub(crate) reads_farm_store: bool,
    /// Bounds of every archive that is unpacked.
    pub(crate) unpack_limits: UnpackLimits,
}

/// See the module.
pub(crate) struct Agent {
    pub(crate) data: DataDir,
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) sandbox: Sandbox,
    pub(crate) program: Program,
    pub(crate) wakeups: Wakeups,
    instances: Mutex<HashMap<InstanceId, Arc<Instance>>>,
    /// Held while an instance is being made, so that two requests make one.
    creating: tokio::sync::Mutex<()>,
    /// Counts changes that a report would show.
    changes: watch::Sender<u64>,
    /// Wakes the lease sweep.
    leases_changed: Notify,
    /// Wakes the wiper.
    wiping: Notify,
}

impl Agent {
    /// Reads what there is and takes up where the last buildlet stopped. Must be called within a
    /// runtime, by the one who holds the data directory's lock.
    pub(crate) async fn start(
        data: DataDir,
        identity: Identity,
        settings: Settings,
        sandbox: Sandbox,
        program: Program,
    ) -> Result<Arc<Self>, AgentError> {
        let make = |dir: std::path::PathBuf| {
            fs::create_dir_all(&dir).map_err(AgentError::io(format!("can not make {}", dir.display())))
        };
        make(data.instances())?;
        make(data.wiping())?;
        make(data.actions())?;
        make(data.actions_wiping())?;
        let agent = Arc::new(Self {
            wakeups: Wakeups::new().map_err(AgentError::io("can not watch files"))?,
            data,
            identity,
            settings,
            sandbox,
            program,
            instances: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
            leases_changed: Notify::new(),
            wiping: Notify::new(),
        });
        agent.scan().await?;
        agent.set_actions_aside()?;
        tokio::spawn(agent.clone().sweep_leases());
        tokio::spawn(agent.clone().wipe_leftovers());
        agent.wiping.notify_one();
        Ok(agent)
    }

    async fn scan(self: &Arc<Self>) -> Result<(), AgentError> {
        let dir = self.data.instances();
        let listing = fs::read_dir(&dir).map_err(AgentError::io(format!("can not list {}", dir.display())))?;
        for entry in listing.flatten() {
            let name = entry.file_name();
            if name.to_str().is_none_or(|name| name.parse::<InstanceId>().is_err()) {
                // Half made when the last buildlet died.
                self.set_aside(&entry.path())?;
                continue;
            }
            let instance = match Instance::load(entry.path()) {
                Ok(instance) => Arc::new(instance),
                Err(error) => {
                    tracing::error!(path = %entry.path().display(), %error, "an instance's directory is unreadable; it is left alone");
                    continue;
                }
            };
            self.instances().insert(instance.id, instance.clone());
            if let Err(error) = self.take_up(&instance).await {
                tracing::error!(instance.id = %instance.id, %error, "an instance's executions are unreadable");
            }
        }
        tracing::info!(instances = self.instances().len(), sandbox = ?self.sandbox.describe(), "buildlet state read");
        Ok(())
    }

    /// Something was moved to where the wiper looks.
    pub(crate) fn wipe_soon(&self) {
        self.wiping.notify_one();
    }

    /// Actions end with the buildlet that ran them; what they left does now.
    fn set_actions_aside(&self) -> Result<(), AgentError> {
        let dir = self.data.actions();
        let listing = fs::read_dir(&dir).map_err(AgentError::io(format!("can not list {}", dir.display())))?;
        listing.flatten().try_for_each(|entry| self.set_action_aside(&entry.path()))
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn all_instances(&self) -> Vec<Arc<Instance>> {
        self.instances().values().cloned().collect()
    }

    /// An instance that is not ending; the call counts as a use.
    pub(crate) fn use_instance(&self, id: InstanceId) -> Result<Arc<Instance>, AgentError> {
        let instance = self.instances().get(&id).cloned().ok_or(AgentError::NoInstance(id))?;
        instance.check_alive()?;
        if instance.is_over(SystemClock.now()) {
            self.leases_changed.notify_one();
            return Err(AgentError::Ending(id));
        }
        // The caller knows of its own call; the time of it goes out with the next report.
        instance.touch();
        Ok(instance)
    }

    /// Makes an instance, or finds the one made before, and starts its keeper. One that was leased by
    /// use and is over makes way for a new one. Finishes once begun
    /// only if the caller spawns it.
    pub(crate) async fn create_instance(&self, request: BuildletCreateInstanceRequest) -> Result<String, AgentError> {
        let id = convert::instance_id(&request.instance_id)?;
        let instance = {
            let _creating = self.creating.lock().await;
            let mut known = self.instances().get(&id).cloned();
            if known.as_ref().is_some_and(|instance| instance.is_over(SystemClock.now())) {
                self.end_instance(id).await?;
                known = None;
            }
            match known {
                Some(instance) => {
                    instance.touch();
                    instance
                }
                None => {
                    if self.instances().len() >= MOST_INSTANCES {
                        return Err(AgentError::Exhausted(format!("this buildlet has {MOST_INSTANCES} instances")));
                    }
                    let dir = self.data.instances().join(id.to_string());
                    let instance = Arc::new(Instance::create(dir, request)?);
                    self.instances().insert(id, instance.clone());
                    tracing::info!(instance.id = %id, instance.name = %instance.name, "instance made");
                    instance
                }
            }
        };
        let _life = instance.life.read().await;
        instance.check_alive()?;
        instance.keeper(&self.sandbox, &self.program).await?;
        self.changed();
        Ok(self.sandbox.seen(&instance.dir, crate::layout::instance::WORK))
    }

    pub(crate) fn describe(&self) -> BuildletDescription {
        let (sandbox, sandbox_reason) = self.sandbox.describe();
        BuildletDescription {
            buildlet_id: self.identity.id.to_string(),
            hostname: self.identity.hostname.clone(),
            host_type: self.settings.host_type.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: BUILDLET_PROTOCOL_VERSION,
            lease_slots: self.settings.lease_slots,
            action_slots: self.settings.action_slots,
            sandbox,
            sandbox_reason,
            reads_farm_store: self.settings.reads_farm_store,
            labels: self.settings.labels.clone().into_iter().collect(),
            action_sandbox: if self.settings.action_sandbox.is_ok() { "namespaces" } else { "none" }.to_owned(),
            action_sandbox_reason: self.settings.action_sandbox.clone().err().unwrap_or_default(),
            merges_system_files: self.settings.action_sandbox.as_ref().is_ok_and(|sandbox| sandbox.merges),
        }
    }

    pub(crate) fn report(&self) -> BuildletReport {
        let instances = self.all_instances();
        let free = rustix::fs::statvfs(self.data.root()).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        BuildletReport {
            // What is ending is not gone: it holds its place until it is.
            instances: instances.iter().map(|instance| instance.report()).collect(),
            free_disk_bytes: free,
        }
    }

    /// Something a report shows has changed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Renames a directory out of the way and has it removed.
    fn set_aside(&self, dir: &std::path::Path) -> Result<(), AgentError> {
        self.move_aside(dir, &self.data.wiping())
    }

    /// The same for an action's directory.
    pub(crate) fn set_action_aside(&self, dir: &std::path::Path) -> Result<(), AgentError> {
        self.move_aside(dir, &self.data.actions_wiping())
    }

    fn move_aside(&self, dir: &std::path::Path, wiping: &std::path::Path) -> Result<(), AgentError> {
        let aside = wiping.join(uuid::Uuid::new_v4().to_string());
        match fs::rename(dir, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(AgentError::io(format!("can not move {} aside", dir.display()))(error))
            }
            _ => {
                self.wiping.notify_one();
                Ok(())
            }
        }
    }
}
