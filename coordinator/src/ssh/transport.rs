//! A client's connection under the ssh protocol: read only while there is room for what it brings, and
//! cut when it must go.

use super::backlog::Backlog;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// See the module.
pub(super) struct Transport {
    stream: TcpStream,
    backlog: Arc<Backlog>,
    /// One for each direction: each is polled by its own waker.
    cut: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
}

impl Transport {
    pub(super) fn new(stream: TcpStream, backlog: Arc<Backlog>, cut: &CancellationToken) -> Self {
        let waiting = || Box::pin(cut.clone().cancelled_owned());
        Self { stream, backlog, cut: [waiting(), waiting()] }
    }

    fn check(&mut self, direction: usize, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut[direction].as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off by the gateway")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(0, context)?;
        ready!(self.backlog.poll_reads(context));
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(1, context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
