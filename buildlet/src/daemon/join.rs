//! Reached over connections that this buildlet dials: one for control, one for bulk, so that an
//! execution never queues behind a blob. On each it serves HTTP/2, the roles turned round.

use super::front::Front;
use super::{Started, tell_ready};
use crate::agent::Agent;
use anyhow::Context as _;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use motefarm_net::backoff::Backoff;
use motefarm_net::dial::Target;
use motefarm_net::tls;
use motefarm_net::token::JoinToken;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Where a coordinator takes buildlets in.
const PATH: &str = "/v1/buildlet/join";
/// The protocol asked for there.
const PROTOCOL: &str = "mote-buildlet";
const LANES: [&str; 2] = ["control", "bulk"];
const FIRST_WAIT: Duration = Duration::from_millis(200);
const MOST_WAIT: Duration = Duration::from_secs(10);
/// For the coordinator's answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A connection that held this long was a good one: the next failure starts small again.
const GOOD: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    started: &Started,
    coordinator: &str,
    token_file: &Path,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let token: JoinToken = std::fs::read_to_string(token_file)
        .with_context(|| format!("can not read the join token in {}", token_file.display()))?
        .parse()
        .with_context(|| format!("{} holds no usable join token", token_file.display()))?;
    motefarm_net::dial::split_address(coordinator).context("--coordinator")?;
    let tls = tls::client_config_pinned(&token.ca_hash).context("the join token's CA hash is unusable")?;
    let target = Target::Tls { address: coordinator.to_owned(), tls: Arc::new(tls) };
    let front = Front::new(started.service.clone(), None);
    tracing::info!(coordinator, buildlet.id = %started.agent.identity.id, "joining");
    tell_ready();
    for name in LANES {
        let lane = Lane {
            name,
            target: target.clone(),
            token: token.clone(),
            agent: started.agent.clone(),
            front: front.clone(),
            stop: stop.clone(),
        };
        front.connections.spawn(lane.keep());
    }
    stop.cancelled().await;
    front.drain().await;
    Ok(())
}

/// One of the connections, again and again.
struct Lane {
    name: &'static str,
    target: Target,
    token: JoinToken,
    agent: Arc<Agent>,
    front: Front,
    stop: CancellationToken,
}

impl Lane {
    /// Keeps the lane connected until the buildlet stops. What runs here goes on meanwhile.
    async fn keep(self) {
        let mut backoff = Backoff::new(FIRST_WAIT, MOST_WAIT);
        let mut failed_before = false;
        loop {
            let joining = tokio::select! {
                joined = self.join() => joined,
                () = self.stop.cancelled() => return,
            };
            match joining {
                Ok(upgraded) => {
                    tracing::info!(lane = self.name, coordinator = %self.target, "joined");
                    let since = Instant::now();
                    self.front.serve(TokioIo::new(upgraded), self.stop.clone()).await;
                    if self.stop.is_cancelled() {
                        return;
                    }
                    tracing::warn!(lane = self.name, coordinator = %self.target, "the connection was lost");
                    if since.elapsed() >= GOOD {
                        backoff.reset();
                    }
                    failed_before = false;
                }
                // Said once, not every ten seconds for a night.
                Err(error) if failed_before => tracing::debug!(lane = self.name, %error, "still not joined"),
                Err(error) => {
                    tracing::warn!(lane = self.name, %error, "not joined; trying again and again");
                    failed_before = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn join(&self) -> io::Result<hyper::upgrade::Upgraded> {
        let stream = self.target.connect(&[b"http/1.1"]).await.map_err(io::Error::other)?;
        let asking = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let connection = tokio::spawn(connection.with_upgrades());
            let answer = sender.send_request(self.request()?).await.map_err(io::Error::other)?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                connection.abort();
                return Err(io::Error::other(refusal(answer.status())));
            }
            hyper::upgrade::on(answer).await.map_err(io::Error::other)
        };
        tokio::time::timeout(ANSWER, asking).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the coordinator took the connection but did not answer"))
        })
    }

    fn request(&self) -> io::Result<Request<Empty<bytes::Bytes>>> {
        let mut bearer =
            http::HeaderValue::try_from(format!("Bearer {}", self.token.reveal())).map_err(io::Error::other)?;
        bearer.set_sensitive(true);
        let host = match &self.target {
            Target::Tls { address, .. } | Target::Clear(address) => address.clone(),
            Target::Unix(_) => "localhost".to_owned(),
        };
        let described = self.agent.describe();
        Request::get(PATH)
            .header(header::HOST, host)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, PROTOCOL)
            .header(header::AUTHORIZATION, bearer)
            .header("Mote-Buildlet-Id", described.buildlet_id)
            .header("Mote-Host-Type", described.host_type)
            .header("Mote-Lane", self.name)
            .header("Mote-Slots", described.lease_slots)
            .header("Mote-Version", described.version)
            .header("Mote-Hostname", described.hostname)
            .body(Empty::new())
            .map_err(io::Error::other)
    }
}

fn refusal(status: StatusCode) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("the coordinator refuses the join token ({status}): ask its admin for a new one")
        }
        StatusCode::NOT_FOUND => "there is no coordinator of a farm at that address (404)".to_owned(),
        status => format!("the coordinator answered {status}"),
    }
}
