//! The port: accepts, and runs the ssh protocol on each connection.

use super::authority::SshAuthority;
use super::backlog::Backlog;
use super::connection::Connection;
use super::half_open::{HalfOpen, PATIENCE};
use super::transport::Transport;
use crate::app::App;
use crate::config::Ssh;
use anyhow::Context as _;
use russh::server::{self, Config};
use russh::{MethodKind, MethodSet, SshId};
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How often a silent client is asked whether it is there, and how often in vain.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVES_MISSED: usize = 4;
/// Keys a client may offer: an agent has some.
const MOST_ATTEMPTS: usize = 20;
/// Largest content of a packet, as OpenSSH has it.
const PACKET_BYTES: u32 = 32 * 1024;
/// Messages from channels that wait to be written.
const EVENTS: usize = 32;
/// Time for connections to end when the coordinator stops.
const DRAIN: Duration = Duration::from_secs(3);

/// The gateway as the rest of the farm sees it.
pub struct Gateway {
    /// What signs, and what the gateway is known by.
    pub authority: SshAuthority,
    /// Where clients find it; no host: where they find the farm.
    pub host: Option<String>,
    /// See above.
    pub port: u16,
    half_open: HalfOpen,
    pub(super) signed_in: Arc<Semaphore>,
}

/// Binds the port, unless there is to be none. A port in use that nobody chose is no reason not to start.
pub async fn listen(config: &Ssh) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = &config.listen else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.by_default && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!("{address} is in use: there is no ssh gateway; set ssh.listen");
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("can not listen on {address} for ssh")),
    }
}

impl Gateway {
    /// Puts it together for a port that is bound to `address`.
    pub fn new(authority: SshAuthority, config: &Ssh, address: SocketAddr) -> Self {
        let (host, port) = match &config.advertise {
            Some((host, port)) => (Some(host.clone()), *port),
            None => (None, address.port()),
        };
        let signed_in = Arc::new(Semaphore::new(config.connections));
        Self { authority, host, port, half_open: HalfOpen::default(), signed_in }
    }

    /// Serves until the farm stops.
    pub async fn serve(self: Arc<Self>, app: Arc<App>, listener: TcpListener) {
        let config = Arc::new(self.config());
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = app.shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, from)) => {
                    let (gateway, app, config) = (self.clone(), app.clone(), config.clone());
                    connections.spawn(async move { gateway.connection(app, config, stream, from).await });
                }
                Err(error) => {
                    // Out of descriptors, or a connection gone before it was taken: neither lasts.
                    tracing::warn!(%error, "an ssh connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "ssh connections did not end in time");
        }
    }

    fn config(&self) -> Config {
        let (key, certificate) = self.authority.host();
        Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Motefarm_", env!("CARGO_PKG_VERSION")))),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            // A signature tells nothing by how long it took to be refused.
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![key],
            certificates: vec![certificate],
            maximum_packet_size: PACKET_BYTES,
            // Bounded in bytes, by the backlog: a count would stop the whole connection for one channel.
            channel_buffer_size: Semaphore::MAX_PERMITS,
            event_buffer_size: EVENTS,
            max_auth_attempts: MOST_ATTEMPTS,
            inactivity_timeout: None,
            keepalive_interval: Some(KEEP_ALIVE),
            keepalive_max: KEEP_ALIVES_MISSED,
            nodelay: true,
            ..Config::default()
        }
    }

    async fn connection(self: Arc<Self>, app: Arc<App>, config: Arc<Config>, stream: TcpStream, from: SocketAddr) {
        let (backlog, cut) = (Arc::new(Backlog::default()), CancellationToken::new());
        let place = self.half_open.enter(cut.clone());
        let connection = Connection::new(self.clone(), app.clone(), from, backlog.clone(), cut.clone(), place);
        let signed_in = connection.signed_in();
        let served = async {
            stream.set_nodelay(true)?;
            let transport = Transport::new(stream, backlog, &cut);
            server::run_stream(config, transport, connection).await?.await
        };
        let late = async {
            tokio::time::sleep(PATIENCE).await;
            if signed_in.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            () = late => {
                cut.cancel();
                tracing::info!(peer = %from, "an ssh connection was cut: nobody signed in within {} s", PATIENCE.as_secs());
                return;
            }
        };
        match ended {
            Ok(()) => tracing::debug!(peer = %from, "an ssh connection has ended"),
            Err(error) if !signed_in.is_cancelled() => {
                tracing::info!(peer = %from, %error, "an ssh connection ended before anybody signed in");
            }
            Err(error) => tracing::debug!(peer = %from, %error, "an ssh connection broke off"),
        }
    }
}
