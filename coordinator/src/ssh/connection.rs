//! One connection: who it is, and what it may ask for. The library calls; this answers.

use super::backlog::Backlog;
use super::certificate;
use super::channel;
use super::client::Client;
use super::forwards::{self, Forwards};
use super::gateway::Gateway;
use super::half_open::Place;
use super::inbound::Inbound;
use super::watch;
use crate::app::App;
use crate::farm::ssh::admit;
use motefarm_proto::mote::SessionConnect;
use russh::keys::ssh_key::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Channels of one connection at once.
const MOST_CHANNELS: usize = 128;

/// See the module.
pub(super) struct Connection {
    gateway: Arc<Gateway>,
    app: Arc<App>,
    from: SocketAddr,
    backlog: Arc<Backlog>,
    cut: CancellationToken,
    /// Given back when somebody has signed in.
    place: Option<Place>,
    signed_in: CancellationToken,
    client: Option<Arc<Client>>,
    forwards: Forwards,
}

impl Connection {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        app: Arc<App>,
        from: SocketAddr,
        backlog: Arc<Backlog>,
        cut: CancellationToken,
        place: Place,
    ) -> Self {
        let (signed_in, forwards) = (CancellationToken::new(), Forwards::default());
        Self { gateway, app, from, backlog, cut, place: Some(place), signed_in, client: None, forwards }
    }

    /// Cancelled once somebody has signed in.
    pub(super) fn signed_in(&self) -> CancellationToken {
        self.signed_in.clone()
    }

    async fn check(&self, user: &str, certificate: &Certificate) -> Result<Client, String> {
        let now = self.app.now();
        let grant = certificate::check(certificate, &self.gateway.authority.trusted(now), now)?;
        let (identity, instance) = admit(&self.app, &grant).await.map_err(|error| error.to_string())?;
        if user != instance.name && user != instance.id.to_string() {
            return Err(format!("it is for {}", instance.name));
        }
        let permit = self.gateway.signed_in.clone().try_acquire_owned();
        let permit = permit.map_err(|_| "all connections the farm has for ssh are taken".to_owned())?;
        Ok(Client::new(&self.app, grant, identity, instance, self.backlog.clone(), self.cut.clone(), self.from, permit))
    }

    /// The client and a channel of theirs, if they may have one more.
    fn admit_channel(&self) -> Result<Arc<Client>, ChannelOpenFailure> {
        let client = self.client.clone().ok_or(ChannelOpenFailure::AdministrativelyProhibited)?;
        if client.channels() >= MOST_CHANNELS {
            tracing::info!(peer = %self.from, "an ssh client has {MOST_CHANNELS} channels and gets no more");
            return Err(ChannelOpenFailure::ResourceShortage);
        }
        Ok(client)
    }

    fn request_came(&self, channel: ChannelId) {
        self.backlog.came(channel.into(), 0);
    }

    /// Connects a channel to a place in the instance, in the background.
    fn connect(&self, channel: Channel<Msg>, reply: ChannelOpenHandle, to: SessionConnect) {
        let admitted = self.admit_channel();
        let (id, (read, write)) = (channel.id(), channel.split());
        let inbound = Inbound::new(id, read, self.backlog.clone());
        tokio::spawn(async move {
            match admitted {
                Ok(client) => forwards::connect(client, inbound, write, reply, to).await,
                Err(failure) => reply.reject(failure).await,
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            client.end("the connection has ended".to_owned());
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match self.check(user, certificate).await {
            Ok(client) => {
                self.place = None;
                self.signed_in.cancel();
                let client = Arc::new(client);
                client.audit("ssh", "signed in");
                tokio::spawn(watch::run(client.clone()));
                self.client = Some(client);
                Ok(Auth::Accept)
            }
            Err(problem) => {
                let user: String = user.chars().filter(|c| !c.is_control()).take(64).collect();
                tracing::info!(peer = %self.from, user, problem, "an ssh certificate was refused");
                Ok(Auth::reject())
            }
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.admit_channel() {
            Ok(client) => {
                let (id, (read, write)) = (channel.id(), channel.split());
                let inbound = Inbound::new(id, read, self.backlog.clone());
                reply.accept().await;
                tokio::spawn(channel::serve(client, inbound, write, session.handle()));
            }
            Err(failure) => reply.reject(failure).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = SessionConnect { host: host.to_owned(), port, unix_path: String::new() };
        self.connect(channel, reply, to);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = SessionConnect { unix_path: path.to_owned(), ..Default::default() };
        self.connect(channel, reply, to);
        Ok(())
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, session: &mut Session) -> Result<bool, Self::Error> {
        let Some(client) = self.client.clone() else { return Ok(false) };
        match self.forwards.listen(&client, host, *port, session.handle()).await {
            Ok(bound) => {
                *port = bound;
                Ok(true)
            }
            Err(problem) => {
                tracing::info!(
                    instance.name = client.instance.name,
                    host,
                    port,
                    problem,
                    "nothing is forwarded from there"
                );
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(&mut self, host: &str, port: u32, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.forwards.stop(host, port))
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.backlog.came(channel.into(), data.len());
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.backlog.came(channel.into(), data.len());
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.backlog.window()
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.request_came(channel);
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.request_came(channel);
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.request_came(channel);
        session.channel_success(channel)
    }

    async fn exec_request(&mut self, channel: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.request_came(channel);
        session.channel_success(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.request_came(channel);
        if name == channel::SFTP { session.channel_success(channel) } else { session.channel_failure(channel) }
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.request_came(channel);
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, _: Sig, _: &mut Session) -> Result<(), Self::Error> {
        self.request_came(channel);
        Ok(())
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.request_came(channel);
        session.channel_failure(channel)
    }

    async fn agent_request(&mut self, channel: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        self.request_came(channel);
        Ok(false)
    }
}
