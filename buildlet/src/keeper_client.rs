//! The buildlet's side of a keeper: starting one, asking it, and seeing it die.

use crate::keeper::{self, Arguments};
use crate::layout::instance;
use crate::sandbox::Sandbox;
use crate::wire;
use motefarm_core::{ExecId, InstanceId};
use motefarm_net::unix;
use motefarm_proto::KEEPER_PROTOCOL_VERSION;
use motefarm_proto::mote::keeper_request::Request;
use motefarm_proto::mote::{
    KeeperDeadline, KeeperEnd, KeeperPing, KeeperReply, KeeperRequest, KeeperSession, KeeperStart,
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::UnixStream;

/// For any answer: a keeper does nothing that takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// For ending an instance before it is done by force.
const END_PATIENCE: Duration = Duration::from_secs(12);
/// For death after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Most of the log told in an error.
const MOST_LOG_BYTES: usize = 2000;

/// Whether an error means that there is no keeper, rather than one in trouble.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Starts the keeper of the instance in `dir` and waits until it listens. The caller has made sure
/// that there is none.
pub(crate) async fn start(
    sandbox: &Sandbox,
    program: &Path,
    dir: &Path,
    id: InstanceId,
    name: &str,
    arguments: &Arguments,
) -> io::Result<()> {
    let socket = bind_only(&dir.join(instance::KEEPER))?;
    let log = File::options().create(true).append(true).open(dir.join(instance::KEEPER_LOG))?;
    let (mut ready, tell) = tokio::net::unix::pipe::pipe().map(|(tell, ready)| (ready, tell))?;
    let mut command = sandbox.keeper_command(dir, name, program);
    command
        .arg(keeper::ROLE)
        .args(arguments.words())
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(tell.into_blocking_fd()?))
        .stderr(Stdio::from(log))
        .process_group(0);
    let mut child = tokio::process::Command::from(command).spawn()?;
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => tracing::debug!(instance.id = %id, %status, "a keeper has ended"),
            Err(error) => tracing::warn!(instance.id = %id, %error, "a keeper's end could not be awaited"),
        }
    });
    let mut byte = [0];
    match tokio::time::timeout(PATIENCE, ready.read_exact(&mut byte)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(io::Error::other(format!("the keeper ended at once: {}", log_tail(dir)))),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("the keeper did not start: {}", log_tail(dir)))),
    }
}

fn log_tail(dir: &Path) -> String {
    let log = std::fs::read(dir.join(instance::KEEPER_LOG)).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(MOST_LOG_BYTES)..];
    let text = String::from_utf8_lossy(tail).trim().to_owned();
    if text.is_empty() { "it said nothing".to_owned() } else { text }
}

/// A bound socket that does not listen yet: whoever calls listen(2) is whom connections name.
pub(crate) fn bind_only(path: &Path) -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = File::open(parent)?;
    // An address holds 107 bytes, less than many a data directory's path.
    let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&short)?)?;
    Ok(socket)
}

/// A connection to a keeper for one request.
pub(crate) struct Connection(UnixStream);

impl Connection {
    /// Connects to the keeper of the instance in `dir`; see [`is_absent`].
    pub(crate) async fn open(dir: &Path) -> io::Result<Self> {
        bounded(PATIENCE, unix::connect(&dir.join(instance::KEEPER))).await.map(Self)
    }

    async fn ask(mut self, request: Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let request = KeeperRequest { version: KEEPER_PROTOCOL_VERSION, request: Some(request) };
        let reply: KeeperReply = bounded(PATIENCE, wire::ask(&mut self.0, &request, descriptors)).await?;
        check(reply)
    }

    /// Starts a session's process, with its ends or a terminal, whose other end is answered. The
    /// connection is the session's from then on.
    pub(crate) async fn open_session(
        mut self,
        asked: KeeperSession,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(UnixStream, Vec<OwnedFd>)> {
        let request = KeeperRequest { version: KEEPER_PROTOCOL_VERSION, request: Some(Request::Session(asked)) };
        let (reply, descriptors) = bounded(PATIENCE, async {
            wire::send(&mut self.0, &request, descriptors).await?;
            wire::await_message::<KeeperReply>(&self.0).await
        })
        .await?;
        check(reply)?;
        Ok((self.0, descriptors))
    }

    /// Requests are served in order: once this is answered, every earlier one was.
    pub(crate) async fn ping(self) -> io::Result<()> {
        self.ask(Request::Ping(KeeperPing {}), &[]).await
    }

    pub(crate) async fn set_deadline(self, deadline: KeeperDeadline) -> io::Result<()> {
        self.ask(Request::Deadline(deadline), &[]).await
    }

    /// Starts the execution in `dir`, unless it was started before.
    pub(crate) async fn start_exec(self, id: ExecId, dir: BorrowedFd<'_>, control: BorrowedFd<'_>) -> io::Result<()> {
        self.ask(Request::Start(KeeperStart { exec_id: id.to_string() }), &[dir, control]).await
    }

    /// Ends the keeper and with it its processes; answers when it is dead.
    pub(crate) async fn end(self) -> io::Result<()> {
        let peer = self.0.peer_cred()?.pid().and_then(rustix::process::Pid::from_raw);
        let process = peer.map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)).transpose()?;
        // An answer after the descriptor was had means that the descriptor is the keeper's, not
        // that of one who got its number.
        let asked = self.ask(Request::End(KeeperEnd {}), &[]).await;
        let Some(process) = process else { return asked };
        #[expect(unsafe_code, reason = "the safe way to register a descriptor is deprecated")]
        // SAFETY: an OwnedFd has the same descriptor, open, for as long as it lives.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
        let died = async {
            let _ready = process.readable().await?;
            Ok::<_, io::Error>(())
        };
        if asked.is_ok() && bounded(END_PATIENCE, died).await.is_ok() {
            return Ok(());
        }
        pidfd_send_signal(process.get_ref(), Signal::KILL)?;
        bounded(KILL_PATIENCE, async {
            let _ready = process.readable().await?;
            Ok(())
        })
        .await
    }
}

/// What a keeper answered, as a result.
fn check(reply: KeeperReply) -> io::Result<()> {
    if reply.unsupported {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the instance's keeper is too old for this"));
    }
    if reply.error.is_empty() { Ok(()) } else { Err(io::Error::other(reply.error)) }
}

/// `work` within `patience`.
pub(crate) async fn bounded<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs())))
    })
}
