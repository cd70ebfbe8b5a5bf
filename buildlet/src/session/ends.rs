//! The buildlet's ends of a session's process: its terminal, its pipes or, if it is this program, its
//! sockets; and the way to its keeper.

use super::pipes::{Life, PipeReader, PipeWriter, Threads};
use crate::keeper_client::Connection;
use crate::wire;
use bytes::{Bytes, BytesMut};
use motefarm_proto::mote::{KeeperSession, KeeperSessionAsk, KeeperSessionEnd, SessionExit, SessionResize};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

/// See the module.
pub(crate) struct Ends {
    pub(super) input: Input,
    pub(super) stdout: Output,
    /// With a terminal there is none.
    pub(super) stderr: Option<Output>,
    pub(super) keeper: UnixStream,
}

/// Where what the caller sends goes.
pub(super) enum Input {
    Pipe(PipeWriter),
    Socket(UnixStream),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// Where the process's output comes from.
pub(super) enum Output {
    Pipe(PipeReader),
    Socket(UnixStream),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// What stands between us and the process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Between {
    /// What commands expect.
    Pipes,
    /// Faster, and not for commands: they could not open `/dev/stdout`.
    Sockets,
}

impl Ends {
    /// Has the keeper start the process, and keeps our ends.
    pub(super) async fn open(
        keeper: Connection,
        asked: KeeperSession,
        between: Between,
        threads: &Threads,
    ) -> io::Result<Self> {
        if asked.terminal.is_some() {
            let (keeper, mut descriptors) = keeper.open_session(asked, &[]).await?;
            let terminal = descriptors.pop().ok_or_else(|| io::Error::other("the keeper sent no terminal"))?;
            rustix::io::ioctl_fionbio(&terminal, true)?;
            let terminal = Arc::new(register(terminal)?);
            let stdout = Output::Terminal(terminal.clone());
            return Ok(Self { input: Input::Terminal(terminal), stdout, stderr: None, keeper });
        }
        let ((input, stdin), (stdout, stdout_end), (stderr, stderr_end)) = match between {
            Between::Pipes => {
                let life = Life::new()?;
                let (input, stdin) = PipeWriter::new(threads, &life)?;
                let output = || PipeReader::new(threads, &life).map(|(reader, end)| (Output::Pipe(reader), end));
                ((Input::Pipe(input), stdin), output()?, output()?)
            }
            Between::Sockets => {
                let (input, stdin) = socket()?;
                let output = || socket().map(|(ours, end)| (Output::Socket(ours), end));
                ((Input::Socket(input), stdin), output()?, output()?)
            }
        };
        let theirs = [stdin.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
        let (keeper, _) = keeper.open_session(asked, &theirs).await?;
        Ok(Self { input, stdout, stderr: Some(stderr), keeper })
    }
}

fn socket() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "the safe way to register a descriptor is deprecated")]
    // SAFETY: an OwnedFd has the same descriptor, open, for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::WRITABLE) };
    Ok(registered?)
}

impl Output {
    /// Reads at most `most` bytes; none: the end. Cancellation safe.
    pub(super) async fn read(&mut self, most: usize) -> io::Result<BytesMut> {
        match self {
            Self::Pipe(pipe) => Ok(pipe.read(most).await),
            Self::Socket(socket) => {
                let mut buffer = BytesMut::zeroed(most);
                let read = socket.read(&mut buffer).await?;
                buffer.truncate(read);
                Ok(buffer)
            }
            Self::Terminal(terminal) => loop {
                let mut ready = terminal.readable().await?;
                let mut buffer = BytesMut::zeroed(most);
                match ready.try_io(|fd| Ok(nix::unistd::read(fd, &mut buffer)?)) {
                    Ok(Ok(read)) => {
                        buffer.truncate(read);
                        return Ok(buffer);
                    }
                    // What Linux says once no program has the terminal open.
                    Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(BytesMut::new()),
                    Ok(Err(error)) => return Err(error),
                    Err(_would_block) => {}
                }
            },
        }
    }

    /// Whether its end may never come although its leader has ended: others may keep a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }
}

impl Input {
    /// Writes all of it. An error says that nobody reads any more.
    pub(super) async fn write_all(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Socket(socket) => socket.write_all(&bytes).await,
            Self::Terminal(terminal) => {
                let mut left = &bytes[..];
                while !left.is_empty() {
                    let mut ready = terminal.writable().await?;
                    match ready.try_io(|fd| Ok(nix::unistd::write(fd, left)?)) {
                        Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(Ok(written)) => left = &left[written..],
                        Ok(Err(error)) => return Err(error),
                        Err(_would_block) => {}
                    }
                }
                Ok(())
            }
        }
    }
}

/// Gives a terminal another size; programs on it hear SIGWINCH.
pub(super) fn resize(terminal: &AsyncFd<OwnedFd>, size: SessionResize) -> io::Result<()> {
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let size = rustix::termios::Winsize {
        ws_row: short(size.rows),
        ws_col: short(size.columns),
        ws_xpixel: short(size.width_pixels),
        ws_ypixel: short(size.height_pixels),
    };
    Ok(rustix::termios::tcsetwinsize(terminal.get_ref(), size)?)
}

/// Sends a signal to the leader's group.
pub(super) async fn signal(keeper: &UnixStream, signal: i32) -> io::Result<()> {
    let message = wire::encode(&KeeperSessionAsk { signal })?;
    keeper.ready(Interest::WRITABLE).await?;
    // A few bytes on a socket that carries nothing else: all of them or none.
    match keeper.try_write(&message) {
        Ok(written) if written == message.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) => Err(error),
    }
}

/// Awaits the leader's end. An error: the keeper has gone, and with it the instance.
pub(super) async fn leader_end(keeper: &UnixStream) -> io::Result<SessionExit> {
    let (end, _) = wire::await_message::<KeeperSessionEnd>(keeper).await?;
    Ok(end.exit.unwrap_or_default())
}
