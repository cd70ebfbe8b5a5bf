//! Bytes between a client's channel and a process, each way as fast as its reader takes them.

use super::backlog::Backlog;
use super::channel::{STDERR, resize};
use super::inbound::Inbound;
use super::signals;
use crate::farm::FarmError;
use crate::farm::session::{OpenSession, message};
use crate::link::LinkStream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use motefarm_net::window::Window;
use motefarm_proto::mote::session_input::Input;
use motefarm_proto::mote::session_output::Output;
use motefarm_proto::mote::{SessionEof, SessionExit, SessionInput, SessionOutput};
use russh::server::Msg;
use russh::{ChannelMsg, ChannelWriteHalf};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;

/// For a connection to take what its client sent before it closed.
const LINGER: Duration = Duration::from_secs(30);
/// Largest piece given to the ssh library at once: its packets are no larger.
const PIECE_BYTES: usize = 32 * 1024;

/// What is at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A process, of whose end the client must hear before its output's: it closes the channel then.
    Process,
    /// A connection. Each way ends by itself, and what was sent before the channel was closed arrives.
    Connection,
}

/// How a relay ended.
pub(super) enum Ended {
    /// The process has ended and all it said was passed on.
    Whole,
    /// The client closed the channel, or left.
    ClientLeft,
    /// The way to the process broke, or the process was taken away.
    Broken(FarmError),
}

/// Runs to the end of either side. `tell_exit` passes on how a process ended.
pub(super) async fn run<F: Future<Output = ()>>(
    inbound: &mut Inbound,
    out: &ChannelWriteHalf<Msg>,
    opened: OpenSession,
    backlog: &Backlog,
    kind: Kind,
    tell_exit: impl Fn(SessionExit) -> F,
) -> Ended {
    let OpenSession { input, output, window } = opened;
    let room = Window::new(window);
    let mut outward = std::pin::pin!(outward(output, out, &room, &input, backlog, kind, tell_exit));
    tokio::select! {
        ended = &mut outward => return ended,
        () = inward(inbound, &room, &input, kind == Kind::Connection) => {}
    }
    match kind {
        Kind::Process => Ended::ClientLeft,
        Kind::Connection => tokio::time::timeout(LINGER, outward).await.unwrap_or(Ended::ClientLeft),
    }
}

/// What the client sends; ends when it closes the channel, having passed on what came before if `whole`.
async fn inward(inbound: &mut Inbound, room: &Window, input: &mpsc::Sender<SessionInput>, whole: bool) {
    // Counted in the backlog until there is room for it at the other end.
    let mut waiting: VecDeque<Bytes> = VecDeque::new();
    let (mut eof, mut closed) = (false, false);
    loop {
        if closed && waiting.is_empty() {
            return;
        }
        let wanted = waiting.front().map_or(0, Bytes::len);
        let say = tokio::select! {
            heard = inbound.next(), if !closed => match heard {
                Some(ChannelMsg::Data { data }) if !eof => {
                    waiting.push_back(data);
                    continue;
                }
                Some(ChannelMsg::Data { data }) => {
                    inbound.taken(data.len());
                    continue;
                }
                Some(ChannelMsg::Close) if whole && !closed => {
                    closed = true;
                    if std::mem::replace(&mut eof, true) || !waiting.is_empty() {
                        continue;
                    }
                    Input::Eof(SessionEof {})
                }
                Some(ChannelMsg::Eof) => {
                    eof = true;
                    if waiting.is_empty() { Input::Eof(SessionEof {}) } else { continue }
                }
                Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                    Input::Resize(resize(col_width, row_height, pix_width, pix_height))
                }
                Some(ChannelMsg::Signal { signal }) => match signals::number(&signal) {
                    Some(number) => Input::Signal(number),
                    None => continue,
                },
                Some(ChannelMsg::Close) | None => return,
                Some(_) => continue,
            },
            some = room.take(wanted), if wanted > 0 => {
                let Some(first) = waiting.front_mut() else { continue };
                let piece = first.split_to(some.min(first.len()));
                let (left, passed) = (first.len(), piece.len());
                if left == 0 {
                    waiting.pop_front();
                    inbound.taken(passed);
                } else {
                    // Its cost as a message goes with its last piece.
                    inbound.taken_in_part(passed);
                }
                Input::Data(piece)
            }
        };
        let last = eof && waiting.is_empty() && matches!(say, Input::Data(_));
        // A process that is gone is told of by its output's end.
        let _ = input.send(message(say)).await;
        if last {
            let _ = input.send(message(Input::Eof(SessionEof {}))).await;
        }
    }
}

/// What the process says.
async fn outward<F: Future<Output = ()>>(
    mut output: LinkStream<SessionOutput>,
    out: &ChannelWriteHalf<Msg>,
    room: &Window,
    input: &mpsc::Sender<SessionInput>,
    backlog: &Backlog,
    kind: Kind,
    tell_exit: impl Fn(SessionExit) -> F,
) -> Ended {
    let (mut may_end, mut ended) = (kind == Kind::Connection, false);
    loop {
        if may_end && std::mem::take(&mut ended) {
            let _ = out.eof().await;
        }
        let said = match output.next().await {
            Some(Ok(said)) => said.output,
            Some(Err(error)) => return Ended::Broken(error.into()),
            None => return Ended::Whole,
        };
        let (ext, bytes) = match said {
            Some(Output::Stdout(bytes)) => (None, bytes),
            Some(Output::Stderr(bytes)) => (Some(STDERR), bytes),
            Some(Output::Window(more)) => {
                room.open(more);
                continue;
            }
            Some(Output::Exit(exit)) => {
                tell_exit(exit).await;
                may_end = true;
                continue;
            }
            Some(Output::Eof(_)) => {
                ended = true;
                continue;
            }
            Some(Output::Started(_)) | None => continue,
        };
        let length = u64::try_from(bytes.len()).unwrap_or(0);
        if write(out, ext, bytes, backlog).await.is_err() {
            return Ended::ClientLeft;
        }
        let _ = input.send(message(Input::Window(length))).await;
    }
}

/// Writes all of it when the client takes it.
pub(super) async fn write(
    out: &ChannelWriteHalf<Msg>,
    ext: Option<u32>,
    mut bytes: Bytes,
    backlog: &Backlog,
) -> Result<(), russh::Error> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        let starved = (out.writable_packet_size().await < piece.len()).then(|| backlog.starve());
        match ext {
            None => out.data_bytes(piece).await?,
            Some(ext) => out.extended_data_bytes(ext, piece).await?,
        }
        drop(starved);
    }
    Ok(())
}
