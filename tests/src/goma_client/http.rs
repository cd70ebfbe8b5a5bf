//! HTTP/1.1 as the real client speaks it, with its habits and its blind spots.

use super::answer::Answer;
use super::health::Health;
use super::packing::{self, Packing};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Attempts to connect.
const CONNECTS: usize = 5;
/// For the first byte of an answer. (The real client waits 610 s for a compile, which no test does.)
const FIRST_BYTE: Duration = Duration::from_secs(100);
/// For the first byte of an answer to a ping.
const PING: Duration = Duration::from_secs(10);

/// What all requests of a `compiler_proxy` share.
struct Shared {
    begun: Instant,
    health: Health,
    packing: Option<Packing>,
    idle: Vec<(TcpStream, Instant)>,
    sent: usize,
    connections: usize,
    dice: u64,
}

/// The server's side of a client.
#[derive(Clone)]
pub struct Connection {
    address: String,
    /// `GOMA_URL_PATH_PREFIX`.
    pub prefix: String,
    /// `Authorization`, verbatim.
    pub authorization: Option<String>,
    /// Whether there is a source of tokens (`LUCI_CONTEXT`): only then does a client wait and go on after trouble.
    pub has_token_source: bool,
    /// `GOMA_HTTP_ACCEPT_ENCODING`.
    pub accept_encoding: &'static str,
    /// How soon an idle connection is used again, at the latest.
    pub idle: Duration,
    /// `GOMA_PING_TIMEOUT_SEC`.
    pub ping_window: Duration,
    shared: Arc<Mutex<Shared>>,
}

/// Why a call has no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// Another status than 200 and 204; what the body's first line said.
    Status(u16, String),
    /// No connection.
    Refused(String),
    /// Broken while sending, or in the middle of an answer.
    Cut(String),
    /// Ended, or silent for too long, before there was an answer.
    Silent(String),
    /// An answer that the client does not understand.
    Garbled(String),
    /// "authorization not available": after trouble a client without a source of tokens gives up, without asking.
    Trapped,
    /// Sent away with this status a while ago; nothing is asked until then.
    Disabled(u16),
}

impl HttpError {
    /// Whether the same request may be made again.
    pub const fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Status(500..=599, _) | Self::Cut(_))
    }
}

impl Connection {
    /// To `host:port`, below the usual path.
    pub fn new(address: &str) -> Self {
        let shared = Shared {
            begun: Instant::now(),
            health: Health::default(),
            packing: Some(Packing::Gzip),
            idle: Vec::new(),
            sent: 0,
            connections: 0,
            dice: 0x9E37_79B9_7F4A_7C15,
        };
        Self {
            address: address.to_owned(),
            prefix: "/cxx-compiler-service".to_owned(),
            authorization: None,
            has_token_source: false,
            accept_encoding: "gzip",
            idle: Duration::from_secs(5),
            ping_window: Duration::from_secs(60),
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// How requests are packed just now; the server's answers decide.
    pub fn packing(&self) -> Option<Packing> {
        self.shared().packing
    }

    /// Packs requests so from now on.
    pub fn pack_as(&self, packing: Option<Packing>) {
        self.shared().packing = packing;
    }

    /// Bytes of bodies sent, packed.
    pub fn sent(&self) -> usize {
        self.shared().sent
    }

    /// Connections made.
    pub fn connections(&self) -> usize {
        self.shared().connections
    }

    /// Whether what failed may be tried again, by the server's latest answers.
    pub fn is_well(&self) -> bool {
        let mut shared = self.shared();
        let now = shared.begun.elapsed();
        shared.health.is_well(now)
    }

    /// The empty `POST /ping`, again and again while there is no answer.
    pub fn ping(&mut self) -> Result<Vec<u8>, HttpError> {
        let begun = Instant::now();
        loop {
            let error = match self.once("/ping", b"", PING) {
                Err(error) => error,
                answer => return answer,
            };
            let again = matches!(error, HttpError::Status(408 | 500..=599, _) | HttpError::Refused(_))
                || matches!(error, HttpError::Silent(_) | HttpError::Cut(_));
            let wait = self.back_off();
            if !again || begun.elapsed() + wait > self.ping_window {
                return Err(error);
            }
            std::thread::sleep(wait);
        }
    }

    /// One call: `POST` of `body`; the answer's body, unpacked.
    pub fn call(&mut self, path: &str, body: &[u8]) -> Result<Vec<u8>, HttpError> {
        let wait = {
            let mut shared = self.shared();
            let (now, chance) = (shared.begun.elapsed(), shared.chance());
            shared.health.admit(now, chance).map_err(HttpError::Disabled)?;
            shared.health.begin(now)
        };
        if wait.is_some() {
            std::thread::sleep(self.back_off());
            if !self.has_token_source {
                return Err(HttpError::Trapped);
            }
        }
        self.once(path, body, FIRST_BYTE)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// 40 to 100 hundredths of what has added up.
    fn back_off(&self) -> Duration {
        let mut shared = self.shared();
        let chance = shared.chance();
        shared.health.back_off().mul_f64(0.4 + 0.6 * chance)
    }

    fn once(&self, path: &str, body: &[u8], first_byte: Duration) -> Result<Vec<u8>, HttpError> {
        let answer = self.connect(path == "/ping").and_then(|mut stream| {
            let (status, body, keep) = self.exchange(&mut stream, path, body, first_byte)?;
            if keep {
                self.shared().idle.push((stream, Instant::now()));
            }
            Ok((status, body))
        });
        let mut shared = self.shared();
        let (now, chance) = (shared.begun.elapsed(), shared.chance());
        match &answer {
            Ok((200, _)) => shared.health.good(now),
            Ok((status, _)) => shared.health.bad(now, Some(*status), chance),
            Err(HttpError::Status(status, _)) => shared.health.bad(now, Some(*status), chance),
            // Counted where it happened.
            Err(HttpError::Refused(_) | HttpError::Trapped) => {}
            Err(_) => shared.health.bad(now, None, chance),
        }
        drop(shared);
        answer.map(|(_, body)| body)
    }

    /// An idle connection that is fresh enough, or another.
    fn connect(&self, once: bool) -> Result<TcpStream, HttpError> {
        let fresh = {
            let mut shared = self.shared();
            shared.idle.retain(|(_, since)| since.elapsed() < self.idle);
            shared.idle.pop()
        };
        if let Some((stream, _)) = fresh {
            return Ok(stream);
        }
        let mut last = String::new();
        for _ in 0..CONNECTS {
            match TcpStream::connect(&self.address) {
                Ok(stream) => {
                    self.shared().connections += 1;
                    return Ok(stream);
                }
                Err(error) => last = error.to_string(),
            }
            let mut shared = self.shared();
            let now = shared.begun.elapsed();
            shared.health.bad(now, None, 0.0);
            drop(shared);
            if once {
                break;
            }
            std::thread::sleep(self.back_off());
            if !self.has_token_source {
                return Err(HttpError::Trapped);
            }
        }
        Err(HttpError::Refused(last))
    }

    /// Request and answer: status (200 or 204), body, and whether the connection may be kept.
    fn exchange(
        &self,
        stream: &mut TcpStream,
        path: &str,
        body: &[u8],
        first_byte: Duration,
    ) -> Result<(u16, Vec<u8>, bool), HttpError> {
        let packing = self.packing();
        let packed = packing.filter(|_| !body.is_empty()).map(|packing| (packing, packing.pack(body)));
        let payload = packed.as_ref().map_or(body, |(_, bytes)| bytes);
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let mut head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: compiler-proxy built by test at 0@0 on 0Z \r\n\
             Content-Type: binary/x-protocol-buffer\r\nContent-Length: {}\r\n",
            self.prefix,
            payload.len()
        );
        if let Some(value) = &self.authorization {
            head += &format!("Authorization: {value}\r\n");
        }
        if packing.is_some() {
            head += &format!("Accept-Encoding: {}\r\n", self.accept_encoding);
        }
        if let Some((packing, _)) = &packed {
            head += &format!("Content-Encoding: {}\r\n", packing.name());
        }
        self.shared().sent += payload.len();
        let cut = |error: std::io::Error| HttpError::Cut(error.to_string());
        stream.set_read_timeout(Some(first_byte)).map_err(cut)?;
        stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(payload)).map_err(cut)?;
        let answer = Answer::read(stream)?;
        match answer.status {
            200 => {
                self.pack_as(Packing::offered(answer.header("accept-encoding").unwrap_or_default()));
                let keep = answer.header("connection") != Some("close");
                let body = packing::unpack(answer.header("content-encoding"), &answer.body);
                Ok((200, body.map_err(|error| HttpError::Garbled(error.to_string()))?, keep))
            }
            // No message, and no good: the connection is given up.
            204 => Ok((204, Vec::new(), false)),
            status => {
                if matches!(status, 400 | 415) {
                    self.pack_as(None);
                }
                let said = String::from_utf8_lossy(&answer.body).lines().next().unwrap_or_default().to_owned();
                Err(HttpError::Status(status, said))
            }
        }
    }
}

impl Shared {
    /// From 0 to 1.
    fn chance(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as f64 / (1u64 << 53) as f64
    }
}
