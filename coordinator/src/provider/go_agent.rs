//! Go agents that register: one contact each, for as long as their channel lasts.
//!
//! An agent keeps nothing: one that comes back, here or after our own restart, is a new, empty machine under
//! its old id. So what it had ends with its channel, and what was running is lost.

mod registration;

pub use registration::{Registration, RegistrationError};

use crate::app::App;
use crate::farm::FarmError;
use crate::farm::contact::{self, Origin};
use crate::link::go_agent::{Agent, GoAgentLink, Pickups, Sha1Cache, Surroundings};
use motefarm_core::InstanceId;
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_net::dial::BoxStream;
use motefarm_proto::mote::ExecOutcome;
use motefarm_proto::mote::exec_outcome::Ending;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The provider's word in logs and SQL.
const PROVIDER: &str = "go-agent";
/// Agents in contact at once.
const MOST_AGENTS: usize = 4096;

/// Those in contact.
#[derive(Default)]
pub struct GoAgents {
    /// Connections that agents were asked for.
    pub pickups: Arc<Pickups>,
    sha1s: Arc<Sha1Cache>,
    here: Mutex<HashMap<Uuid, Arc<GoAgentLink>>>,
}

impl GoAgents {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<GoAgentLink>>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that an agent that was let in by its token is the only one of its name. The error is for
    /// its log.
    pub async fn make_way(&self, registration: &Registration) -> Result<(), String> {
        let id = registration.buildlet_id();
        let (before, count) = {
            let here = self.lock();
            (here.get(&id).cloned(), here.len())
        };
        if before.is_none() && count >= MOST_AGENTS {
            return Err(format!("{MOST_AGENTS} Go agents are in contact, as many as there may be"));
        }
        let Some(before) = before else { return Ok(()) };
        // Its machine may have died without a word and be back before that was noticed.
        if before.why_ended().is_none() && before.answers().await {
            let name = &registration.name;
            return Err(format!("a Go agent {name:?} of this token is in contact; set GOMOTEID=HOST-TYPE/OTHER-NAME"));
        }
        before.end("its agent registered anew");
        Ok(())
    }

    /// Serves an agent over its control channel, until that ends or the coordinator stops.
    pub async fn serve(&self, app: &Arc<App>, registration: Registration, by_connect: bool, channel: BoxStream) {
        let id = registration.buildlet_id();
        let agent = Agent {
            buildlet_id: id.to_string(),
            hostname: registration.hostname.clone(),
            host_type: registration.host_type.to_string(),
            by_connect,
        };
        let around = Surroundings {
            cas: app.cas.clone(),
            sha1s: self.sha1s.clone(),
            data_dir: app.config.data_dir.clone(),
            clock: app.clock.clone(),
            pickups: self.pickups.clone(),
        };
        let begun = tokio::select! {
            begun = GoAgentLink::begin(channel, agent, around) => begun,
            () = app.shutdown.cancelled() => return,
        };
        let link = match begun {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(buildlet.id = %id, hostname = registration.hostname, %error, "a Go agent registered and did not serve");
                return;
            }
        };
        if let Some(before) = self.lock().insert(id, link.clone()) {
            before.end("its agent registered anew");
        }
        let origin = Origin {
            provider: PROVIDER,
            host_type: Some(registration.host_type),
            buildlet_id: Some(id.to_string()),
            join_token_id: Some(registration.token.id),
            cut: CancellationToken::new(),
        };
        let ended = contact::serve(app, Arc::new(link.clone()), &origin).await;
        // Of a contact that came about its end was told there.
        if let Err(error) = &ended
            && !matches!(error, FarmError::Unavailable(_))
        {
            tracing::warn!(buildlet.id = %id, hostname = registration.hostname, %error, "a Go agent can not be used");
        }
        let why = link.why_ended().unwrap_or_else(|| "the coordinator ended the contact".to_owned());
        let left = link.end(&why);
        {
            let mut here = self.lock();
            if here.get(&id).is_some_and(|now| Arc::ptr_eq(now, &link)) {
                here.remove(&id);
            }
        }
        // When we stop, the next start does it.
        if let Some(instance) = left
            && !app.shutdown.is_cancelled()
            && let Err(error) = forget(app, instance, &format!("its Go agent was lost: {why}")).await
        {
            tracing::error!(instance.id = %instance, %error, "the instance of a lost Go agent could not be ended");
        }
    }
}

/// Ends what Go agents had when the coordinator went away: their channels ended with it. To be called before
/// the port serves.
pub async fn forget_all(app: &Arc<App>) -> Result<(), FarmError> {
    for buildlet in app.store.buildlets().await?.into_iter().filter(|buildlet| buildlet.provider == PROVIDER) {
        for row in app.store.instances_of_buildlet(&buildlet.id).await? {
            forget(app, row.id, "the coordinator was restarted, and Go agents do not outlast that").await?;
        }
    }
    Ok(())
}

/// Records that an instance is no more, and what ran in it lost. One that was still being made is left to
/// those who make it: it waits again.
async fn forget(app: &Arc<App>, id: InstanceId, why: &str) -> Result<(), FarmError> {
    let row = app.store.instance(id).await?;
    let was_made = |state| matches!(state, InstanceState::Ready | InstanceState::Lost | InstanceState::Ending);
    if !row.is_some_and(|row| was_made(row.state)) {
        return Ok(());
    }
    let now = app.now();
    for execution in app.store.running_executions(&[id]).await? {
        let outcome = ExecOutcome {
            ending: Ending::Lost.into(),
            reason: why.to_owned(),
            started_at_ms: execution.created_at.as_millis(),
            ended_at_ms: now.as_millis(),
            ..ExecOutcome::default()
        };
        app.store.record_outcome(execution.id, &outcome.encode_to_vec()).await?;
    }
    if app.store.end_instance_because(id, EndReason::BuildletForgot, Some(why), now).await? {
        tracing::warn!(instance.id = %id, why, "an instance ended with its Go agent");
    }
    app.store.gone(id).await?;
    app.changed();
    app.wake_allocator.notify_one();
    Ok(())
}
