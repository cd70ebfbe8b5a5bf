//! Dialling a server of the farm.

use crate::serve::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
};
use http::uri::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};

/// Time for connecting, TLS included: with it, a caller learns within 5 s that nobody answers.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}
/// Any stream.
pub type BoxStream = Box<dyn Stream>;

/// Where a server is.
#[derive(Clone)]
pub enum Target {
    /// TLS over TCP to `host:port` (`[::1]:port` for IPv6), trusting what `tls` trusts.
    Tls {
        /// `host:port`.
        address: String,
        /// From [`crate::tls::client_config`] or its pinned sibling.
        tls: Arc<ClientConfig>,
    },
    /// TCP in the clear to `host:port`: a server of somebody else's, on loopback or a network that is trusted.
    Clear(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { address, .. } | Self::Clear(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Why a server was not reached.
#[derive(Debug, thiserror::Error)]
#[error("can not reach {target}: {cause}")]
pub struct DialError {
    /// Where.
    pub target: String,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// Splits `host:port`; the host may be an IPv6 address in brackets.
pub fn split_address(address: &str) -> Result<(&str, u16), io::Error> {
    let bad =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not host:port (IPv6: [address]:port)"));
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) => inner,
        None if host.contains(':') || host.is_empty() => return Err(bad()),
        None => host,
    };
    Ok((host, port))
}

impl Target {
    /// Connects within [`CONNECT_TIMEOUT`]. With TLS the ALPN protocols are `alpn`.
    pub async fn connect(&self, alpn: &[&[u8]]) -> Result<BoxStream, DialError> {
        Ok(self.connect_agreeing(alpn).await?.0)
    }

    /// The same, with the protocol that the server chose, if it chose one.
    pub async fn connect_agreeing(&self, alpn: &[&[u8]]) -> Result<(BoxStream, Option<Vec<u8>>), DialError> {
        let connecting = self.connect_untimed(alpn);
        let result = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, problem))
        });
        result.map_err(|cause| DialError { target: self.to_string(), cause })
    }

    async fn connect_untimed(&self, alpn: &[&[u8]]) -> io::Result<(BoxStream, Option<Vec<u8>>)> {
        match self {
            Self::Tls { address, tls } => {
                let (host, port) = split_address(address)?;
                let tcp = TcpStream::connect((host, port)).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?}: {e}")))?;
                let mut config = ClientConfig::clone(tls);
                config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
                let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
                let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                Ok((Box::new(stream), agreed))
            }
            Self::Clear(address) => {
                let tcp = TcpStream::connect(split_address(address)?).await?;
                tcp.set_nodelay(true)?;
                Ok((Box::new(tcp), None))
            }
            #[cfg(unix)]
            Self::Unix(path) => Ok((Box::new(crate::unix::connect(path).await?), None)),
            #[cfg(not(unix))]
            Self::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no Unix sockets on this system")),
        }
    }
}

/// A gRPC channel to `target`, connected now, so that a failure has a name. When the connection
/// is lost the next call dials again.
pub async fn channel(target: Target) -> Result<Channel, DialError> {
    let first = target.connect(&[b"h2"]).await?;
    let dial_again = target.clone();
    channel_over(Some(first), move || {
        let target = dial_again.clone();
        Box::pin(async move { target.connect(&[b"h2"]).await.map_err(io::Error::other) })
    })
    .await
    .map_err(|cause| DialError { target: target.to_string(), cause })
}

/// A gRPC channel over one stream that is there already (a buildlet that dialled in). It does not
/// come back when the stream ends.
pub async fn channel_on(stream: BoxStream) -> io::Result<Channel> {
    channel_over(Some(stream), || {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::NotConnected, "the buildlet's connection ended")) })
    })
    .await
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send>>;

async fn channel_over(
    first: Option<BoxStream>,
    dial: impl Fn() -> Dialling + Send + Sync + 'static,
) -> io::Result<Channel> {
    let first = Mutex::new(first);
    let connector = tower::service_fn(move |_: Uri| {
        let ready = first.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let dialling = ready.is_none().then(&dial);
        async move {
            match (ready, dialling) {
                (Some(stream), _) => Ok(TokioIo::new(stream)),
                (None, Some(dialling)) => dialling.await.map(TokioIo::new),
                (None, None) => Err(io::Error::other("no stream")),
            }
        }
    });
    // The name is never resolved: the connector ignores it.
    settings(Endpoint::from_static("http://server.motefarm.internal"))
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)
}

/// A gRPC channel to `target` that dials when it is first used, and again when it was lost. It calls the
/// server by its address, as those behind other people's proxies want.
pub fn lazy_channel(target: Target) -> Result<Channel, DialError> {
    let origin = match &target {
        Target::Tls { address, .. } | Target::Clear(address) => format!("http://{address}"),
        Target::Unix(_) => "http://localhost".to_owned(),
    };
    let endpoint = Endpoint::from_shared(origin)
        .map_err(|cause| DialError { target: target.to_string(), cause: io::Error::other(cause) })?;
    let connector = tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move { target.connect(&[b"h2"]).await.map(TokioIo::new) }
    });
    Ok(settings(endpoint).connect_with_connector_lazy(connector))
}

fn settings(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Puts `authorization: Bearer <token>` on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// With this token.
    pub fn new(token: &str) -> Result<Self, InvalidMetadataValue> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }

    /// With no token, for a socket whose permissions say who the caller is.
    pub const fn none() -> Self {
        Self(None)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_with_brackets_for_ipv6() {
        assert_eq!(split_address("localhost:81").unwrap(), ("localhost", 81));
        assert_eq!(split_address("[::1]:5936").unwrap(), ("::1", 5936));
        for bad in ["localhost", "::1:80", ":80", "a:b", "a:70000"] {
            assert!(split_address(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_names_address_and_cause() {
        let dir = tempfile::tempdir().unwrap();
        let authority = crate::tls::Authority::load_or_create(dir.path()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let tls = Arc::new(crate::tls::client_config(authority.ca_pem()).unwrap());
        let error = channel(Target::Tls { address: address.clone(), tls }).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address) && text.contains("refused"), "{text}");
    }
}
