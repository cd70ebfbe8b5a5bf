//! Forwarded connections, made and accepted in the sandbox: a forward reaches what any command of the
//! instance reaches, and nothing that only the buildlet or the coordinator may.

use super::forwarding;
use crate::wire;
use motefarm_proto::mote::SessionAccept;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// For one address of a host to answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long an accepted connection waits to be picked up.
const PICK_UP_PATIENCE: Duration = Duration::from_secs(20);
/// How long whoever picks one up may take to say which.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Accepted connections that wait; older ones are let go.
const MOST_WAITING: usize = 256;
/// One read and write.
const COPY_BYTES: usize = 128 * 1024;
/// What stdout begins with once a connection stands.
const CONNECTED: &[u8] = b"k";

pub(super) fn run(arguments: impl Iterator<Item = String>) -> io::Result<()> {
    // Another command of the instance is the same user; it need not read what passes here.
    nix::sys::prctl::set_dumpable(false)?;
    let words: Vec<String> = arguments.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [forwarding::CONNECT, host, port] => pass(Connection::Tcp(connect(host, number(port)?)?)),
        [forwarding::CONNECT_UNIX, path] => pass(Connection::Unix(UnixStream::connect(path)?)),
        [forwarding::LISTEN, host, port] => listen(host, number(port)?),
        [forwarding::ACCEPT, id] => pass(Connection::Tcp(pick_up(id)?)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such way to forward")),
    }
}

fn number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{port} is no port")))
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// To copy from or to. A file, whatever it is: the kernel knows better.
    fn descriptor(&self) -> io::Result<File> {
        let own = match self {
            Self::Tcp(stream) => stream.as_fd().try_clone_to_owned(),
            Self::Unix(stream) => stream.as_fd().try_clone_to_owned(),
        };
        own.map(File::from)
    }

    /// Says that nothing more is sent.
    fn no_more(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Standard input onto the connection, and what comes from it to standard output, each until its end.
fn pass(connection: Connection) -> io::Result<()> {
    // Their own descriptors, so that each end can be closed by itself.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    output.write_all(CONNECTED)?;
    let nothing = File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&nothing)?;
    nix::unistd::dup2_stderr(&nothing)?;
    let (mut coming, mut going) = (connection.descriptor()?, connection.descriptor()?);
    let upward = std::thread::spawn(move || {
        let _ = copy(&mut input, &mut going);
        connection.no_more();
    });
    let _ = copy(&mut coming, &mut output);
    drop(output);
    let _ = upward.join();
    Ok(())
}

/// To the end of either. Not the standard library's copy, which may splice: see `session/pipes.rs`.
fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Connections accepted and not yet picked up.
#[derive(Default)]
struct Waiting {
    next: u64,
    streams: VecDeque<(u64, TcpStream, Instant)>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A directory of our own, gone when we are.
struct Place(PathBuf);

impl Place {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!(".mote-forward-{}", uuid::Uuid::new_v4().simple()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Listens until standard input ends. Loopback only, as sshd does unless told otherwise: the network
/// is the machine's, and who asks here is not its operator.
fn listen(host: &str, port: u16) -> io::Result<()> {
    let loopback = matches!(host, "" | "localhost" | "*" | "0.0.0.0" | "::" | "127.0.0.1" | "::1");
    if !loopback {
        let problem = format!("{host}: forwards listen on loopback addresses only");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let port = first.local_addr()?.port();
    // Who has no IPv6, or has the port taken there, is still served.
    let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    let place = Place::make()?;
    let pick_ups = motefarm_net::unix::bind(&place.socket())?;
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    say(&format!("port {port}\n"))?;
    for listener in [Some(first), second.ok()].into_iter().flatten() {
        let (waiting, socket) = (waiting.clone(), place.socket());
        std::thread::spawn(move || accept_all(&listener, &waiting, &socket));
    }
    std::thread::spawn(move || hand_over_all(&pick_ups, &waiting));
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

fn accept_all(listener: &TcpListener, waiting: &Mutex<Waiting>, socket: &Path) {
    loop {
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(_) => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let number = {
            let mut waiting = lock(waiting);
            let now = Instant::now();
            waiting.streams.retain(|(_, _, since)| now.duration_since(*since) < PICK_UP_PATIENCE);
            if waiting.streams.len() >= MOST_WAITING {
                waiting.streams.pop_front();
            }
            waiting.next += 1;
            let number = waiting.next;
            waiting.streams.push_back((number, stream, now));
            number
        };
        if say(&format!("accepted {number}@{} {} {}\n", socket.display(), from.ip(), from.port())).is_err() {
            return;
        }
    }
}

fn hand_over_all(pick_ups: &UnixListener, waiting: &Mutex<Waiting>) {
    for stream in pick_ups.incoming().flatten() {
        // One at a time: each is two short messages between processes of one instance.
        let _ = hand_over(stream, waiting);
    }
}

fn hand_over(mut stream: UnixStream, waiting: &Mutex<Waiting>) -> io::Result<()> {
    stream.set_read_timeout(Some(PEER_TIMEOUT))?;
    stream.set_write_timeout(Some(PEER_TIMEOUT))?;
    let (wanted, _) = wire::receive::<SessionAccept>(&mut stream)?;
    let found = {
        let mut waiting = lock(waiting);
        let at = waiting.streams.iter().position(|(number, ..)| number.to_string() == wanted.id);
        at.and_then(|at| waiting.streams.remove(at))
    };
    let (_, accepted, _) = found.ok_or(io::ErrorKind::NotFound)?;
    wire::reply_with(&mut stream, &wanted, accepted.as_fd())
}

/// Takes over the connection that a listener of the same instance has accepted.
fn pick_up(id: &str) -> io::Result<TcpStream> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the connection was closed or waited too long");
    let (number, socket) = id.split_once('@').ok_or_else(gone)?;
    let mut stream = motefarm_net::unix::connect_blocking(Path::new(socket))?;
    stream.set_read_timeout(Some(PEER_TIMEOUT))?;
    wire::reply(&mut stream, &SessionAccept { id: number.to_owned() })?;
    let (_, descriptors) = wire::receive::<SessionAccept>(&mut stream).map_err(|_| gone())?;
    let [accepted] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| gone())?;
    Ok(TcpStream::from(accepted))
}
