//! Connections to the relay's server, for the pool: TLS by the URL's scheme, HTTP/2 where the server chooses it.

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use motefarm_net::dial::{BoxStream, DialError, Target};
use rustls::ClientConfig;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service;

/// See the module.
#[derive(Clone)]
pub(super) struct Dialler {
    tls: Arc<ClientConfig>,
}

impl Dialler {
    pub(super) const fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Wire>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // The URL is an endpoint's, which says its port always.
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        let target = match uri.scheme_str() {
            Some("https") => Target::Tls { address, tls: self.tls.clone() },
            _ => Target::Clear(address),
        };
        Box::pin(async move {
            let (stream, agreed) = target.connect_agreeing(&[b"h2", b"http/1.1"]).await?;
            Ok(TokioIo::new(Wire { stream, is_h2: agreed.as_deref() == Some(b"h2") }))
        })
    }
}

/// A connection, and what is spoken on it.
pub(super) struct Wire {
    stream: BoxStream,
    is_h2: bool,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        if self.is_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
