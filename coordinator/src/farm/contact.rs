//! A buildlet in contact: from its first word to the end of its connection.

use super::{FarmError, allocate, renew};
use crate::app::App;
use crate::link::{Link, LinkError};
use crate::registry::Session;
use crate::store::{BuildletRow, InstanceRow};
use futures_util::StreamExt as _;
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::{ExecId, HostType, InstanceId, Timestamp};
use motefarm_proto::mote;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Executions asked about in one call.
const MOST_EXECS_ASKED: usize = 1000;

/// How a buildlet came here.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `local`, `join`, `static` or `go-agent`.
    pub provider: &'static str,
    /// What it is taken for, whatever it says of itself; `None`: believe it.
    pub host_type: Option<HostType>,
    /// Who it must be (the one that proved itself when joining); `None`: believe it.
    pub buildlet_id: Option<String>,
    /// By which token, for `join` and `go-agent`.
    pub join_token_id: Option<String>,
    /// Ends the contact early: what it goes over has been replaced.
    pub cut: CancellationToken,
}

/// Serves one connection to a buildlet until it ends or the coordinator stops. Errors are why it
/// did not come about or how it ended.
pub async fn serve(app: &Arc<App>, link: Arc<dyn Link>, origin: &Origin) -> Result<(), FarmError> {
    let mut description = link.describe().await?;
    let host_type = match &origin.host_type {
        Some(host_type) => host_type.clone(),
        None => {
            description.host_type.parse().map_err(|e| FarmError::Invalid(format!("the buildlet's host type: {e}")))?
        }
    };
    if origin.buildlet_id.as_ref().is_some_and(|id| *id != description.buildlet_id) {
        return Err(FarmError::Invalid("the buildlet gave another id than it joined with".to_owned()));
    }
    if description.sandbox == "none" {
        check_unsandboxed(app, &description).await?;
    }
    if description.action_slots > 0 && description.action_sandbox == "none" && !may_be_unsandboxed(app).await? {
        let (hostname, reason) = (&description.hostname, &description.action_sandbox_reason);
        tracing::warn!(
            hostname,
            reason,
            "a buildlet without a sandbox for actions gets none: this farm has several users or is reached from other machines (allow_unsandboxed)"
        );
        description.action_slots = 0;
    }
    app.store
        .save_buildlet(&BuildletRow {
            id: description.buildlet_id.clone(),
            hostname: description.hostname.clone(),
            host_type: host_type.clone(),
            provider: origin.provider.to_owned(),
            slots: description.lease_slots,
            version: description.version.clone(),
            join_token_id: origin.join_token_id.clone(),
            last_seen_at: app.now(),
        })
        .await?;
    // Before the first report is asked for: what is ready now must be in it.
    let expected = app.store.instances_of_buildlet(&description.buildlet_id).await?;
    let mut reports = link.watch().await?;
    let session = Arc::new(Session::new(&description, host_type, link, origin.join_token_id.clone()));
    let first = next_report(app, origin, &session, &mut reports).await?;
    reconcile(app, &session, &expected, &first).await?;
    session.take_report(&first);
    app.registry.add(session.clone());
    tracing::info!(
        buildlet.id = session.buildlet_id, host.type = %session.host_type, provider = origin.provider,
        sandbox = description.sandbox, instances = first.instances.len(), "buildlet in contact"
    );
    app.actions.met(&session);
    app.wake_allocator.notify_one();
    app.wake_reaper.notify_one();
    resume_starting(app, &session, &expected);
    app.changed();
    let ended = loop {
        match next_report(app, origin, &session, &mut reports).await {
            Ok(report) => take_report(app, &session, &report).await,
            Err(error) => break error,
        }
    };
    session.ended.cancel();
    if app.registry.remove(&session) {
        app.store.buildlet_lost(&session.buildlet_id).await?;
        app.store.buildlet_seen(&session.buildlet_id, app.now()).await?;
        app.changed();
        if !app.shutdown.is_cancelled() {
            tracing::warn!(buildlet.id = session.buildlet_id, error = %ended, "buildlet out of contact");
        }
    }
    Err(ended)
}

/// Without a sandbox every command has the run of the buildlet's user: its files, and those of other
/// instances. That is for one user, on their own machine.
async fn check_unsandboxed(app: &App, description: &mote::BuildletDescription) -> Result<(), FarmError> {
    let (hostname, reason) = (&description.hostname, &description.sandbox_reason);
    if may_be_unsandboxed(app).await? {
        tracing::warn!(hostname, reason, "a buildlet without a sandbox: commands have the run of its user's files");
        return Ok(());
    }
    Err(FarmError::NotReady(format!(
        "{hostname} has no sandbox ({reason}), and this farm has several users or is reached from other machines; \
         install bubblewrap there (for a buildlet of ours), or set allow_unsandboxed = true"
    )))
}

/// Whether what runs for one may as well be seen by whoever else there is.
async fn may_be_unsandboxed(app: &App) -> Result<bool, FarmError> {
    Ok(app.config.allow_unsandboxed || (app.config.listens_on_loopback() && app.store.users().await?.len() <= 1))
}

async fn next_report(
    app: &App,
    origin: &Origin,
    session: &Session,
    reports: &mut crate::link::LinkStream<mote::BuildletReport>,
) -> Result<mote::BuildletReport, FarmError> {
    tokio::select! {
        report = reports.next() => match report {
            Some(report) => Ok(report?),
            None => Err(FarmError::Unavailable("its stream of reports ended".to_owned())),
        },
        () = app.shutdown.cancelled() => Err(FarmError::Unavailable("the coordinator is stopping".to_owned())),
        () = origin.cut.cancelled() => Err(FarmError::Unavailable("it dialled in again".to_owned())),
        () = session.revoked.cancelled() => Err(FarmError::Unavailable("its join token was revoked".to_owned())),
    }
}

/// Brings the rows and a buildlet's first report together.
async fn reconcile(
    app: &Arc<App>,
    session: &Arc<Session>,
    expected: &[InstanceRow],
    report: &mote::BuildletReport,
) -> Result<(), FarmError> {
    let reported: HashMap<InstanceId, &mote::InstanceReport> =
        report.instances.iter().filter_map(|i| Some((i.instance_id.parse().ok()?, i))).collect();
    for row in expected {
        match row.state {
            InstanceState::Ready | InstanceState::Lost if let Some(instance) = reported.get(&row.id) => {
                app.store.found_again(row.id).await?;
                catch_up(app, session, row, instance).await?;
            }
            InstanceState::Ready | InstanceState::Lost => {
                tracing::warn!(instance.id = %row.id, buildlet.id = session.buildlet_id, "the buildlet no longer has this instance");
                app.store.end_instance(row.id, EndReason::BuildletForgot, app.now()).await?;
            }
            _ => {}
        }
    }
    for (id, instance) in &reported {
        let mine = app.store.instance(*id).await?.is_some_and(|row| {
            row.buildlet_id.as_deref() == Some(&session.buildlet_id) && row.state != InstanceState::Gone
        });
        if !mine {
            tracing::warn!(instance.id = %id, buildlet.id = session.buildlet_id, "the buildlet has an instance that is nobody's; ending it");
            session.link.end_instance(*id).await?;
            continue;
        }
        if instance.ended_execs > 0 {
            collect_outcomes(app, session, *id).await?;
        }
    }
    Ok(())
}

/// Counts the use that was made of an instance out of contact, and tells its buildlet the lease's end.
async fn catch_up(
    app: &Arc<App>,
    session: &Session,
    row: &InstanceRow,
    reported: &mote::InstanceReport,
) -> Result<(), FarmError> {
    let now = app.now();
    let uses = match reported.running_execs.is_empty() {
        true => vec![(row.clone(), Timestamp::from_millis(reported.last_use_ms).min(now))],
        false => renew::uses_by_running(app, vec![row.clone()], now).await?,
    };
    let moved = app.store.note_uses(&uses.iter().map(|(row, used)| (row.id, *used)).collect()).await?;
    let end = moved.first().map(|(_, end)| *end).or(row.lease.map(|lease| lease.expires_at));
    if let Some(end) = end {
        session.link.set_leases(vec![(row.id, end)]).await?;
    }
    Ok(())
}

/// Instances that were being made when the connection or the coordinator died are made again.
fn resume_starting(app: &Arc<App>, session: &Arc<Session>, expected: &[InstanceRow]) {
    for row in expected.iter().filter(|row| row.state == InstanceState::Starting) {
        let (app, session, id) = (app.clone(), session.clone(), row.id);
        app.clone().spawn(async move { allocate::start(&app, &session, id).await });
    }
}

async fn take_report(app: &Arc<App>, session: &Arc<Session>, report: &mote::BuildletReport) {
    for id in session.take_report(report) {
        // The end of an execution is a use: idle time counts from here.
        if let Ok(Some(row)) = app.store.instance(id).await
            && let Err(error) = renew::note_uses(app, &[(row, app.now())]).await
        {
            tracing::debug!(instance.id = %id, %error, "not renewed at an execution's end");
        }
        if let Err(error) = collect_outcomes(app, session, id).await {
            tracing::warn!(instance.id = %id, %error, "outcomes could not be collected; the next report tries again");
        }
    }
}

/// Records the outcomes of an instance's executions that we think still run and nobody reads: of one
/// that is read, the outcome comes with its output.
pub(super) async fn collect_outcomes(app: &Arc<App>, session: &Session, id: InstanceId) -> Result<(), FarmError> {
    let running = app.store.running_executions(&[id]).await?;
    let unread: Vec<ExecId> = {
        let readers = app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        running.iter().map(|exec| exec.id).filter(|id| !readers.contains_key(id)).take(MOST_EXECS_ASKED).collect()
    };
    if unread.is_empty() {
        return Ok(());
    }
    let execs = match session.link.list_execs(id, &unread).await {
        // Ended meanwhile.
        Err(LinkError::Refused(status)) if status.code() == tonic::Code::NotFound => return Ok(()),
        other => other?,
    };
    for exec in execs {
        if let (Ok(exec_id), Some(outcome)) = (exec.exec_id.parse(), exec.outcome) {
            app.store.record_outcome(exec_id, &outcome.encode_to_vec()).await?;
        }
    }
    Ok(())
}
