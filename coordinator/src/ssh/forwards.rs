//! Forwarded connections: -L and -D ask for one at a time, -R for a place to listen. All are made by
//! processes of the instance, never from here.

use super::client::Client;
use super::inbound::Inbound;
use super::relay::{self, Kind};
use crate::farm::FarmError;
use crate::farm::session::{self, OpenSession, Setting, message};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use motefarm_proto::mote::session_input::Input;
use motefarm_proto::mote::session_output::Output;
use motefarm_proto::mote::session_start::What;
use motefarm_proto::mote::{SessionAccept, SessionConnect, SessionListen};
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Places one connection may listen at.
const MOST_PLACES: usize = 32;
/// For a listener to say where it listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(15);
/// For a client to take or refuse a connection that came.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
/// Most of what a process says of its failure.
const MOST_PROBLEM_BYTES: usize = 1000;
/// Longest line of a listener.
const MOST_LINE_BYTES: usize = 1000;

async fn open(client: &Client, what: What) -> Result<OpenSession, FarmError> {
    let usage = client.usage().await?;
    session::open(&usage, what, Setting::default()).await
}

/// Waits until a connection stands; answers what has come on it already.
async fn connected(opened: &mut OpenSession) -> Result<Bytes, String> {
    let mut problem = Vec::new();
    while let Some(said) = opened.output.next().await {
        match said.map_err(|error| error.to_string())?.output {
            Some(Output::Stdout(mut bytes)) if bytes.starts_with(b"k") => return Ok(bytes.split_off(1)),
            Some(Output::Stderr(bytes)) => {
                let room = MOST_PROBLEM_BYTES.saturating_sub(problem.len());
                problem.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Some(Output::Window(more)) => opened.window += more,
            Some(Output::Stdout(_)) => return Err("something else answers in the instance".to_owned()),
            _ => {}
        }
    }
    Err(String::from_utf8_lossy(&problem).trim().to_owned())
}

/// Passes bytes between a channel and a connection that stands, from those that have come already.
async fn pass(client: &Client, mut inbound: Inbound, out: ChannelWriteHalf<Msg>, opened: OpenSession, first: Bytes) {
    // The byte that said that it stands, and what came with it.
    let taken = u64::try_from(first.len() + 1).unwrap_or(1);
    let passing = async {
        if relay::write(&out, None, first, &client.backlog).await.is_ok() {
            let _ = opened.input.send(message(Input::Window(taken))).await;
            relay::run(&mut inbound, &out, opened, &client.backlog, Kind::Connection, |_| std::future::ready(())).await;
        }
    };
    tokio::select! {
        () = passing => {}
        _ = client.ended() => {}
    }
    let _ = out.eof().await;
    let _ = out.close().await;
}

/// Opens a connection in the instance for a channel that asks for one.
pub(super) async fn connect(
    client: Arc<Client>,
    inbound: Inbound,
    out: ChannelWriteHalf<Msg>,
    reply: ChannelOpenHandle,
    to: SessionConnect,
) {
    let _counted = client.count();
    let opening = async {
        let mut opened = open(&client, What::Connect(to)).await.map_err(|error| error.to_string())?;
        let first = connected(&mut opened).await?;
        Ok::<_, String>((opened, first))
    };
    let opened = tokio::select! {
        opened = opening => opened,
        why = client.ended() => Err(why),
    };
    match opened {
        Ok((opened, first)) => {
            reply.accept().await;
            pass(&client, inbound, out, opened, first).await;
        }
        Err(problem) => {
            tracing::debug!(instance.name = client.instance.name, problem, "nothing is forwarded to there");
            // Code 2 is "connect failed" (RFC 4254, section 5.1); the reason is shown to people.
            reply.reject(ChannelOpenFailure::Other { code: 2, reason: problem }).await;
        }
    }
}

/// Where a connection's client has the instance listen.
#[derive(Default)]
pub(super) struct Forwards(HashMap<(String, u32), DropGuard>);

impl Forwards {
    /// Listens in the instance; answers the port. What comes is offered to the client.
    pub(super) async fn listen(
        &mut self,
        client: &Arc<Client>,
        host: &str,
        port: u32,
        handle: Handle,
    ) -> Result<u32, String> {
        if self.0.len() >= MOST_PLACES {
            return Err(format!("it listens at {MOST_PLACES} places already"));
        }
        let on = SessionListen { host: host.to_owned(), port };
        let mut opened = open(client, What::Listen(on)).await.map_err(|error| error.to_string())?;
        let mut lines = Lines::default();
        let bound = tokio::time::timeout(LISTEN_PATIENCE, lines.next(&mut opened)).await;
        let bound = bound.map_err(|_| "it does not say where it listens".to_owned())??;
        let bound = bound.strip_prefix("port ").and_then(|port| port.parse().ok()).ok_or("it says something else")?;
        let stop = CancellationToken::new();
        // A client that lets the port be picked names the one it was told when it stops.
        self.0.insert((host.to_owned(), bound), stop.clone().drop_guard());
        let (client, host) = (client.clone(), host.to_owned());
        client.audit("ssh", &format!("listens at {host}:{bound}"));
        tokio::spawn(async move {
            tokio::select! {
                problem = offer_all(&client, opened, lines, &handle, &host, bound) => {
                    tracing::info!(instance.name = client.instance.name, host, port = bound, problem, "a forward has ended");
                }
                () = stop.cancelled() => {}
                _ = client.ended() => {}
            }
        });
        Ok(bound)
    }

    /// Stops listening; `false`: nobody listened there.
    pub(super) fn stop(&mut self, host: &str, port: u32) -> bool {
        self.0.remove(&(host.to_owned(), port)).is_some()
    }
}

async fn offer_all(
    client: &Arc<Client>,
    mut opened: OpenSession,
    mut lines: Lines,
    handle: &Handle,
    host: &str,
    port: u32,
) -> String {
    let _counted = client.count();
    loop {
        let line = match lines.next(&mut opened).await {
            Ok(line) => line,
            Err(problem) => return problem,
        };
        let words: Vec<&str> = line.split(' ').collect();
        let ["accepted", id, from, from_port] = words[..] else { continue };
        let from = (from.to_owned(), from_port.parse().unwrap_or(0));
        let (client, handle, id, host) = (client.clone(), handle.clone(), id.to_owned(), host.to_owned());
        tokio::spawn(async move {
            if let Err(problem) = offer(&client, &handle, id, (host, port), from).await {
                tracing::debug!(instance.name = client.instance.name, problem, "a connection was not forwarded");
            }
        });
    }
}

/// Offers an accepted connection to the client, and passes it on.
async fn offer(
    client: &Arc<Client>,
    handle: &Handle,
    id: String,
    at: (String, u32),
    from: (String, u32),
) -> Result<(), String> {
    let _counted = client.count();
    let mut opened = open(client, What::Accept(SessionAccept { id })).await.map_err(|error| error.to_string())?;
    let first = connected(&mut opened).await?;
    let channel = handle.channel_open_forwarded_tcpip(at.0, at.1, from.0, from.1);
    let channel = tokio::time::timeout(OPEN_PATIENCE, channel).await.map_err(|_| "the client does not answer")?;
    let channel = channel.map_err(|error| error.to_string())?;
    let (number, (read, write)) = (channel.id(), channel.split());
    let inbound = Inbound::new(number, read, client.backlog.clone());
    pass(client, inbound, write, opened, first).await;
    Ok(())
}

/// Lines of a process's output.
#[derive(Default)]
struct Lines {
    read: BytesMut,
}

impl Lines {
    async fn next(&mut self, opened: &mut OpenSession) -> Result<String, String> {
        let mut problem = Vec::new();
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line = self.read.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.read.len() > MOST_LINE_BYTES {
                return Err("it says more than a line".to_owned());
            }
            let Some(said) = opened.output.next().await else {
                return Err(String::from_utf8_lossy(&problem).trim().to_owned());
            };
            match said.map_err(|error| error.to_string())?.output {
                Some(Output::Stdout(bytes)) => {
                    self.read.extend_from_slice(&bytes);
                    let taken = u64::try_from(bytes.len()).unwrap_or(0);
                    let _ = opened.input.send(message(Input::Window(taken))).await;
                }
                Some(Output::Stderr(bytes)) => {
                    let room = MOST_PROBLEM_BYTES.saturating_sub(problem.len());
                    problem.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                _ => {}
            }
        }
    }
}
