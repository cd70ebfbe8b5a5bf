//! The resident buildlet on the coordinator's own machine.
//!
//! It is a daemon of its own and outlives us: whoever answers on its socket is it. If nobody does,
//! one is started (unless configured to be a service of its own), within a second of the last one's death.

use super::Provider;
use crate::app::App;
use crate::farm::FarmError;
use crate::farm::contact::{self, Origin};
use crate::link::grpc::GrpcLink;
use motefarm_core::HostType;
use motefarm_net::dial::{Bearer, DialError, Target, channel};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_millis(50);
/// A buildlet that is not taken is asked again this often.
const NOT_TAKEN: Duration = Duration::from_secs(5);
/// A buildlet that dies as soon as it starts is started again this often at most.
const RESTART: Duration = Duration::from_millis(500);

/// See the module.
pub struct Local {
    /// The buildlet's data directory.
    pub data_dir: PathBuf,
    /// The coordinator's content store, which it reads.
    pub farm_store: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// What it serves.
    pub host_type: HostType,
    /// Lease slots, if not its own default.
    pub slots: Option<u64>,
    /// Action slots, if not its own default.
    pub action_slots: Option<u64>,
    /// Its program; `None`: it is a service of its own, never started here.
    pub program: Option<PathBuf>,
}

/// Where the buildlet's program is if nothing is configured: beside this one, else on PATH.
pub fn default_program() -> PathBuf {
    let name = format!("mote-buildlet{}", std::env::consts::EXE_SUFFIX);
    match std::env::current_exe().ok().and_then(|own| own.parent().map(|dir| dir.join(&name))) {
        Some(beside) if beside.is_file() => beside,
        _ => PathBuf::from(name),
    }
}

#[tonic::async_trait]
impl Provider for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn run(self: Box<Self>, app: Arc<App>) {
        let shutdown = app.shutdown.clone();
        tokio::select! {
            () = self.keep_contact(&app) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

impl Local {
    async fn keep_contact(&self, app: &Arc<App>) {
        let origin = Origin {
            provider: "local",
            host_type: Some(self.host_type.clone()),
            buildlet_id: None,
            join_token_id: None,
            cut: CancellationToken::new(),
        };
        let mut child: Option<Child> = None;
        let mut last_start: Option<Instant> = None;
        let mut last_complaint = String::new();
        loop {
            match self.connect().await {
                Ok(link) => match contact::serve(app, Arc::new(link), &origin).await {
                    Ok(()) => {}
                    // A cut connection is made anew at once; contact logs why it ended.
                    Err(FarmError::Unavailable(why)) => tracing::debug!(why, "contact with the local buildlet ended"),
                    Err(error) => {
                        let complaint = error.to_string();
                        if complaint != last_complaint {
                            tracing::error!("the local buildlet is not taken: {complaint}");
                            last_complaint = complaint;
                        }
                        tokio::time::sleep(NOT_TAKEN).await;
                    }
                },
                Err(error) => {
                    let too_soon = last_start.is_some_and(|started| started.elapsed() < RESTART);
                    if child.is_none() && !too_soon {
                        let complaint = match &self.program {
                            Some(program) => match self.spawn(program) {
                                Ok(started) => {
                                    child = Some(started);
                                    last_start = Some(Instant::now());
                                    String::new()
                                }
                                Err(error) => format!("can not start {}: {error}", program.display()),
                            },
                            None => format!("no buildlet answers: {error}"),
                        };
                        if !complaint.is_empty() && complaint != last_complaint {
                            tracing::error!("{complaint}; instances of {} wait until it is there", self.host_type);
                            last_complaint = complaint;
                        }
                    }
                }
            }
            // Reap a child that died, so that it is no zombie.
            if let Some(running) = &mut child
                && let Ok(Some(status)) = running.try_wait()
            {
                tracing::warn!(%status, "the local buildlet ended");
                child = None;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(&self) -> Result<GrpcLink, DialError> {
        let target = || Target::Unix(self.socket.clone());
        let (control, bulk) = tokio::try_join!(channel(target()), channel(target()))?;
        Ok(GrpcLink::new(control, bulk, Bearer::none()))
    }

    /// Starts the buildlet by `posix_spawn`: no `pre_exec`, user or group, which would fork us.
    fn spawn(&self, program: &Path) -> std::io::Result<Child> {
        motefarm_net::private_file::create_dir(&self.data_dir)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.data_dir.join("log"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--data-dir").arg(&self.data_dir);
        command.arg("--socket").arg(&self.socket).arg("--farm-store").arg(&self.farm_store);
        command.arg("--host-type").arg(self.host_type.as_str());
        if let Some(slots) = self.slots {
            command.arg("--slots").arg(slots.to_string());
        }
        if let Some(slots) = self.action_slots {
            command.arg("--action-slots").arg(slots.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(false);
        let child = command.spawn()?;
        tracing::info!(pid = child.id(), program = %program.display(), "local buildlet started");
        Ok(child)
    }
}
