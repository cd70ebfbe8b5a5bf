//! Buildlets that dial in.
//!
//! Each opens two connections to our port, names itself and its lane, proves itself by its join
//! token, and then *serves* HTTP/2 on the upgraded stream. The two lanes make one contact: `control`
//! for what is small, `bulk` for the rest, so that a command never queues behind a blob.

use crate::app::App;
use crate::farm::contact::{self, Origin};
use crate::link::grpc::GrpcLink;
use motefarm_core::HostType;
use motefarm_net::dial::{Bearer, BoxStream, channel_on};
use motefarm_net::token::JoinToken;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The second lane must follow the first within this.
const LANES_WITHIN: Duration = Duration::from_secs(15);
/// Buildlets that may be in contact, wholly or by half.
const MOST_JOINED: usize = 16_384;

/// Which of a buildlet's two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Small messages.
    Control,
    /// Output, trees, archives.
    Bulk,
}

/// What a buildlet says when it dials in.
#[derive(Debug)]
pub struct Hello {
    /// Its own UUID.
    pub buildlet_id: uuid::Uuid,
    /// What it serves; the token must allow it.
    pub host_type: HostType,
    /// Which connection this is.
    pub lane: Lane,
    /// By what right.
    pub token: JoinToken,
}

impl Hello {
    /// Reads the headers of a join request; the error is for the answer's body.
    pub fn from_headers(headers: &http::HeaderMap) -> Result<Self, String> {
        let get = |name: &str| {
            headers.get(name).and_then(|v| v.to_str().ok()).ok_or_else(|| format!("the header {name} is missing"))
        };
        let token = get("authorization")?.strip_prefix("Bearer ").ok_or("authorization is not Bearer")?;
        Ok(Self {
            buildlet_id: get("mote-buildlet-id")?.parse().map_err(|e| format!("mote-buildlet-id: {e}"))?,
            host_type: get("mote-host-type")?.parse().map_err(|e| format!("mote-host-type: {e}"))?,
            lane: match get("mote-lane")? {
                "control" => Lane::Control,
                "bulk" => Lane::Bulk,
                other => return Err(format!("mote-lane: {other:?} is neither control nor bulk")),
            },
            token: token.parse().map_err(|e| format!("authorization: {e}"))?,
        })
    }
}

/// What has dialled in.
#[derive(Default)]
pub struct Joins(Mutex<HashMap<uuid::Uuid, Joined>>);

/// Where one buildlet's connections stand.
enum Joined {
    /// One lane is here; the ticket tells whose entry this is.
    Half { lane: Lane, channel: Channel, ticket: u64 },
    /// Both lanes serve a contact.
    Whole { cut: CancellationToken },
}

impl Joins {
    fn lock(&self) -> MutexGuard<'_, HashMap<uuid::Uuid, Joined>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes in one lane of a buildlet that was let in; when the other is there, serves the contact.
    pub async fn lane(self: Arc<Self>, app: Arc<App>, hello: Hello, stream: BoxStream) {
        let channel = match channel_on(stream).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::info!(buildlet.id = %hello.buildlet_id, %error, "a joining buildlet left at once");
                return;
            }
        };
        let ticket: u64 = rand::random();
        let cut = CancellationToken::new();
        let other = {
            let mut joined = self.lock();
            match joined.remove(&hello.buildlet_id) {
                Some(Joined::Half { lane, channel: other, .. }) if lane != hello.lane => {
                    joined.insert(hello.buildlet_id, Joined::Whole { cut: cut.clone() });
                    Some(other)
                }
                before => {
                    // A lane of a contact was lost and dialled again. The other lane goes with the
                    // contact, dials again too, and the two meet here.
                    if let Some(Joined::Whole { cut }) = before {
                        cut.cancel();
                    } else if joined.len() >= MOST_JOINED {
                        return;
                    }
                    let half = Joined::Half { lane: hello.lane, channel: channel.clone(), ticket };
                    joined.insert(hello.buildlet_id, half);
                    None
                }
            }
        };
        let Some(other) = other else {
            tokio::time::sleep(LANES_WITHIN).await;
            let mut joined = self.lock();
            if matches!(joined.get(&hello.buildlet_id), Some(Joined::Half { ticket: t, .. }) if *t == ticket) {
                joined.remove(&hello.buildlet_id);
            }
            return;
        };
        let (control, bulk) = match hello.lane {
            Lane::Control => (channel, other),
            Lane::Bulk => (other, channel),
        };
        let origin = Origin {
            provider: "join",
            host_type: Some(hello.host_type.clone()),
            buildlet_id: Some(hello.buildlet_id.to_string()),
            join_token_id: Some(hello.token.id.clone()),
            cut: cut.clone(),
        };
        let link = Arc::new(GrpcLink::new(control, bulk, Bearer::none()));
        if let Err(error) = contact::serve(&app, link, &origin).await {
            tracing::info!(buildlet.id = %hello.buildlet_id, %error, "contact with a joined buildlet ended");
        }
        let mut joined = self.lock();
        // Cancelled, under this lock, means that a newer lane has taken the place.
        if !cut.is_cancelled() {
            joined.remove(&hello.buildlet_id);
        }
    }
}
