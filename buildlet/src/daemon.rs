//! The buildlet itself: what its three modes share, from start to stop.

mod front;
mod join;
mod listen;
mod local;

use crate::action::{Actions, Runners};
use crate::agent::{Agent, Settings};
use crate::cli::{Cli, Common, Mode};
use crate::grpc::Service;
use crate::identity::{self, Identity};
use crate::layout::DataDir;
use crate::program::Program;
use crate::sandbox::Sandbox;
use crate::trees::Blobs;
use crate::unpack::UnpackLimits;
use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use motefarm_core::HostType;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Directory below the user's data directory.
const DATA_DIR_NAME: &str = "motefarm-buildlet";
/// Leases idle most of the time.
const SLOTS_PER_CPU: u64 = 4;
const LEAST_SLOTS: u64 = 16;

/// Runs until SIGTERM or SIGINT. Executions live on.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    match cli.mode {
        Mode::Serve(mode) => {
            let started = start(&mode.common, mode.farm_store.as_deref()).await?;
            let socket = mode.socket.unwrap_or_else(|| started.data.socket());
            local::serve(&started, &socket, stop).await
        }
        Mode::Join(mode) => {
            let started = start(&mode.common, None).await?;
            join::serve(&started, &mode.coordinator, &mode.token_file, stop).await
        }
        Mode::Listen(mode) => {
            let started = start(&mode.common, None).await?;
            listen::serve(&started, mode.addr, mode.token_file, mode.insecure_no_auth, stop).await
        }
    }
}

/// A started buildlet that nobody reaches yet.
struct Started {
    data: DataDir,
    agent: Arc<Agent>,
    service: Service,
    _lock: identity::DataLock,
}

async fn start(common: &Common, farm_store: Option<&Path>) -> anyhow::Result<Started> {
    let data = DataDir::new(data_dir(common)?);
    let at = || data.root().display().to_string();
    let lock = identity::lock(&data)
        .with_context(|| format!("can not take the data directory {} (does another buildlet run on it?)", at()))?;
    // Instances may not look around in it, sandbox or no sandbox.
    let identity =
        Identity::load_or_create(&data).with_context(|| format!("can not read this buildlet's id in {}", at()))?;
    let program = Program::open(data.root().join("keeper")).context("can not open this program's own file")?;
    let sandbox = if common.no_sandbox {
        Sandbox::Absent { reason: "switched off by --no-sandbox".to_owned() }
    } else {
        // Going without is the operator's to say, not an accident's.
        Sandbox::probe(&data.sandbox(), common.show.clone())
            .map_err(anyhow::Error::msg)
            .context("can not find out whether this machine has a sandbox; start it again, or say --no-sandbox")?
    };
    if let Sandbox::Absent { reason } = &sandbox {
        tracing::warn!(%reason, "no sandbox: instances run as plain processes of this user and see its files");
    }
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let action_slots = common.action_slots.unwrap_or(cpus);
    let without = match common.no_sandbox {
        _ if action_slots == 0 => Some("there are no action slots".to_owned()),
        true => Some("switched off by --no-sandbox".to_owned()),
        false => None,
    };
    let (runners, action_sandbox) = Runners::probe(&data, &program, &common.show, without)
        .await
        .context("can not find out whether this machine has a sandbox for actions")?;
    if let (Err(reason), true) = (&action_sandbox, action_slots > 0) {
        tracing::warn!(%reason, "no sandbox: actions run as plain processes of this user and see its files");
    }
    let settings = Settings {
        host_type: common
            .host_type
            .clone()
            .unwrap_or_else(|| HostType::of_machine(std::env::consts::OS, std::env::consts::ARCH)),
        lease_slots: common.slots.unwrap_or((SLOTS_PER_CPU * cpus).max(LEAST_SLOTS)),
        action_slots,
        action_sandbox,
        labels: common.labels.iter().cloned().collect(),
        spool_limit_bytes: common.spool_limit_mib << 20,
        reads_farm_store: farm_store.is_some(),
        unpack_limits: UnpackLimits {
            bytes: common.unpack_limit_gib << 30,
            entries: common.unpack_limit_entries,
            ..UnpackLimits::default()
        },
    };
    let blobs = Blobs::open(farm_store, &data).context("can not open the store of blobs")?;
    let agent = Agent::start(data.clone(), identity, settings, sandbox, program)
        .await
        .with_context(|| format!("can not take up the instances in {}", at()))?;
    let actions = Arc::new(Actions::new(agent.clone(), blobs.clone(), runners));
    let service = Service::new(agent.clone(), blobs, actions);
    Ok(Started { data, agent, service, _lock: lock })
}

fn data_dir(common: &Common) -> anyhow::Result<PathBuf> {
    let given = match &common.data_dir {
        Some(dir) => dir.clone(),
        None => {
            let dirs = etcetera::base_strategy::choose_base_strategy()
                .context("can not tell the data directory: set HOME, or say --data-dir")?;
            dirs.data_dir().join(DATA_DIR_NAME)
        }
    };
    // Absolute: it is given to processes that run elsewhere.
    std::path::absolute(&given).with_context(|| format!("can not make {} absolute", given.display()))
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("can not await SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can not await SIGINT")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; executions live on");
        stopping.cancel();
    });
    Ok(stop)
}

/// Tells systemd, if it is there, that requests are served.
fn tell_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "systemd was not told");
    }
}
