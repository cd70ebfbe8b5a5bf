//! The machine behind a Go agent: what it is, and whether it is still there.

use super::client::{Client, SHORT};
use super::end::End;
use super::refused;
use crate::link::LinkError;
use motefarm_proto::mote;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// The oldest agent that Go's own coordinator takes.
const LEAST_VERSION: u32 = 23;
/// Between looks whether the agent still answers, and how often it may fail to in a row: its machine may
/// have vanished without a word, which its channel would not tell.
const HEARTBEAT: Duration = Duration::from_secs(30);
const MOST_MISSED: u32 = 3;

/// What the agent that registered is.
pub struct Agent {
    /// The id of its rows.
    pub buildlet_id: String,
    /// Its machine.
    pub hostname: String,
    /// What it serves.
    pub host_type: String,
    /// It reached us through our own CONNECT, so its `HTTPS_PROXY` is us.
    pub by_connect: bool,
}

/// Asks what it is; and whether files have modes there.
pub(super) async fn describe(client: &Client, agent: &Agent) -> Result<(mote::BuildletDescription, bool), LinkError> {
    let version = version(client).await?;
    if version < LEAST_VERSION {
        let text = format!("a Go agent of version {version}; at least {LEAST_VERSION} is needed");
        return Err(refused(Status::failed_precondition(text)));
    }
    let greeting = client.get("/", SHORT).await?.text().await?;
    let system = greeting.trim().strip_prefix("buildlet running on ").unwrap_or_default().to_owned();
    let has_modes = !system.starts_with("windows-") && !system.starts_with("plan9-");
    let description = mote::BuildletDescription {
        buildlet_id: agent.buildlet_id.clone(),
        hostname: agent.hostname.clone(),
        host_type: agent.host_type.clone(),
        version: format!("go {version}"),
        protocol_version: 1,
        lease_slots: 1,
        sandbox: "none".to_owned(),
        sandbox_reason: "Go agents have none".to_owned(),
        // Trees are compared and sent by us.
        reads_farm_store: true,
        labels: [("go-system".to_owned(), system)].into(),
        ..mote::BuildletDescription::default()
    };
    Ok((description, has_modes))
}

/// The agent's version; asking for it is how one sees that it answers.
pub(super) async fn version(client: &Client) -> Result<u32, LinkError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct AgentStatus {
        version: u32,
    }
    let text = client.get("/status", SHORT).await?.text().await?;
    let status: Result<AgentStatus, _> = serde_json::from_str(&text);
    status.map(|status| status.version).map_err(|error| LinkError::Lost(format!("its status can not be read: {error}")))
}

/// Ends the contact when the agent has not answered for a while.
pub(super) async fn watch(client: Arc<Client>, end: Arc<End>) {
    let mut missed = 0;
    while missed < MOST_MISSED {
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = end.wait() => return,
        }
        missed = match version(&client).await {
            Ok(_) => 0,
            Err(_) => missed + 1,
        };
    }
    end.because("it does not answer any more");
}
