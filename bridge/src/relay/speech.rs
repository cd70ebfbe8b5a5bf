//! Whether a server speaks what it is spoken to in, and in exact words what it does instead.

use super::upstream::{Endpoint, Scheme};
use crate::config::DEFAULT_PREFIX;
use motefarm_net::dial::{BoxStream, CONNECT_TIMEOUT, Target};
use motefarm_net::tls::PeerProblem;
use rustls::ClientConfig;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// First byte of a TLS record that is an alert (RFC 8446, section 5.1).
const TLS_ALERT: u8 = 0x15;
/// Looked at of an answer.
const LOOKED_AT_BYTES: u64 = 2 << 10;

/// What is wrong with a way to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody is there.
    Unreachable(String),
    /// A TLS handshake was answered by plain HTTP.
    SpeaksHttp,
    /// Plain HTTP was answered by TLS.
    SpeaksTls,
    /// Its certificate is not believed.
    Certificate(PeerProblem),
    /// Something else.
    Other(String),
}

impl Trouble {
    /// In words, with what to do about it.
    pub(super) fn words(&self, endpoint: &Endpoint) -> String {
        let address = endpoint.address();
        let certificate = |what: &str| {
            format!("{endpoint} shows a certificate that {what}; --ca-file FILE names another authority to believe")
        };
        match self {
            Self::Unreachable(why) => format!("{endpoint}: {why}; is a server running there?"),
            Self::SpeaksHttp => format!(
                "{address} answered a TLS handshake with plain HTTP: it does not speak TLS. \
                 Say http://{address} (MOTE_BRIDGE_UPSTREAM, or -server-host)"
            ),
            Self::SpeaksTls => format!(
                "{address} answered plain HTTP with TLS: it wants TLS. \
                 Say https://{address} (MOTE_BRIDGE_UPSTREAM, or -server-host)"
            ),
            Self::Certificate(PeerProblem::OtherName(names)) if names.is_empty() => {
                certificate(&format!("is not for the name {}", endpoint.host))
            }
            Self::Certificate(PeerProblem::OtherName(names)) => {
                certificate(&format!("is for {} and not for {}", names.join(", "), endpoint.host))
            }
            Self::Certificate(PeerProblem::Expired) => certificate("has expired"),
            Self::Certificate(PeerProblem::NotYet) => certificate("is not valid yet (is a clock wrong?)"),
            Self::Certificate(PeerProblem::UnknownIssuer) => certificate("nobody who is trusted vouches for"),
            Self::Certificate(PeerProblem::Other(why)) => certificate(&format!("is no use ({why})")),
            Self::Other(why) => format!("{endpoint}: {why}"),
        }
    }
}

/// Speaks to a server as it would be spoken to, and says nothing that matters.
pub(super) async fn check(endpoint: &Endpoint, tls: &Arc<ClientConfig>) -> Result<(), Trouble> {
    connect(endpoint).await?;
    match endpoint.scheme {
        Scheme::Https => match shake_hands(endpoint, tls).await {
            Ok(()) => Ok(()),
            Err(Trouble::Other(why)) => match ask_in_the_clear(endpoint).await {
                Ok(Heard::Http | Heard::BadRequest) => Err(Trouble::SpeaksHttp),
                _ => Err(Trouble::Other(why)),
            },
            Err(trouble) => Err(trouble),
        },
        Scheme::Http => match ask_in_the_clear(endpoint).await {
            Ok(Heard::Http) => Ok(()),
            Ok(Heard::TlsAlert) => Err(Trouble::SpeaksTls),
            // Servers of TLS close, or say in plain HTTP that they want no plain HTTP.
            Ok(Heard::BadRequest) => match shake_hands(endpoint, tls).await {
                Ok(()) | Err(Trouble::Certificate(_)) => Err(Trouble::SpeaksTls),
                Err(_) => Ok(()),
            },
            Err(Trouble::Other(why)) => match shake_hands(endpoint, tls).await {
                Ok(()) | Err(Trouble::Certificate(_)) => Err(Trouble::SpeaksTls),
                Err(_) => Err(Trouble::Other(why)),
            },
            Err(trouble) => Err(trouble),
        },
    }
}

enum Heard {
    Http,
    /// Status 400.
    BadRequest,
    TlsAlert,
}

async fn shake_hands(endpoint: &Endpoint, tls: &Arc<ClientConfig>) -> Result<(), Trouble> {
    let target = Target::Tls { address: endpoint.address(), tls: tls.clone() };
    match target.connect(&[b"h2", b"http/1.1"]).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match PeerProblem::of(&error.cause) {
            Some(problem) => Trouble::Certificate(problem),
            None => Trouble::Other(error.cause.to_string()),
        }),
    }
}

async fn connect(endpoint: &Endpoint) -> Result<BoxStream, Trouble> {
    let connected = Target::Clear(endpoint.address()).connect(&[]).await;
    connected.map_err(|error| Trouble::Unreachable(error.cause.to_string()))
}

/// A ping as the client's.
async fn ask_in_the_clear(endpoint: &Endpoint) -> Result<Heard, Trouble> {
    let mut stream = connect(endpoint).await?;
    let heard = tokio::time::timeout(CONNECT_TIMEOUT, ping(&mut stream, &endpoint.host)).await;
    let silent = |_| Trouble::Other(format!("no answer to plain HTTP within {} s", CONNECT_TIMEOUT.as_secs()));
    let heard = heard.map_err(silent)?.map_err(|error| Trouble::Other(error.to_string()))?;
    match heard.as_slice() {
        [TLS_ALERT, 3, ..] => Ok(Heard::TlsAlert),
        [] => Err(Trouble::Other("it closes the connection when it is spoken to in plain HTTP".to_owned())),
        answer if answer.starts_with(b"HTTP/1.1 400") || answer.starts_with(b"HTTP/1.0 400") => Ok(Heard::BadRequest),
        answer if answer.starts_with(b"HTTP/1.") => Ok(Heard::Http),
        other => {
            let start = String::from_utf8_lossy(&other[..other.len().min(40)]).escape_debug().to_string();
            Err(Trouble::Other(format!("it speaks neither HTTP nor TLS; it said \"{start}\"")))
        }
    }
}

async fn ping(stream: &mut BoxStream, host: &str) -> io::Result<Vec<u8>> {
    let request = format!(
        "POST {DEFAULT_PREFIX}/ping HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mote-bridge relay\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut heard = Vec::new();
    match stream.take(LOOKED_AT_BYTES).read_to_end(&mut heard).await {
        Err(error) if heard.is_empty() => Err(error),
        _ => Ok(heard),
    }
}
