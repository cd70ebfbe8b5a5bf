//! Accepting connections: a bounded number at once, until it is time to stop, and then their end.

use crate::serve::ConnectionError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After an error of accepting: out of descriptors, or a connection gone before it was taken. Neither lasts.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that go on after the last was accepted.
pub struct Open {
    connections: TaskTracker,
    cut: CancellationToken,
}

/// Runs `connection` on each that comes, at most `most` at once (others wait to be accepted), until
/// `shutdown`. Then the port is closed, and those that go on are answered.
pub async fn accept<F>(
    listener: TcpListener,
    most: usize,
    shutdown: &CancellationToken,
    connection: impl Fn(TcpStream, SocketAddr) -> F,
) -> Open
where
    F: Future<Output = Result<(), ConnectionError>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let open = Open { connections: TaskTracker::new(), cut: CancellationToken::new() };
    let next = async || {
        let permit = permits.clone().acquire_owned().await.ok()?;
        Some((permit, listener.accept().await))
    };
    loop {
        let accepted = tokio::select! {
            accepted = next() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (permit, stream, from) = match accepted {
            Some((permit, Ok((stream, from)))) => (permit, stream, from),
            Some((_, Err(error))) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            // Nobody closes the semaphore.
            None => break,
        };
        let (served, cut) = (connection(stream, from), open.cut.clone());
        open.connections.spawn(async move {
            let _permit = permit;
            tokio::select! {
                ended = served => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %from, %error, "a connection ended early");
                    }
                }
                () = cut.cancelled() => {}
            }
        });
    }
    open.connections.close();
    open
}

impl Open {
    /// Waits for them to end, at most this long. Answers whether they have. Cancel-safe.
    pub async fn end_within(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.connections.wait()).await.is_ok()
    }

    /// The same, and then cuts off what is left.
    pub async fn drain(self, patience: Duration) {
        if !self.end_within(patience).await {
            tracing::warn!(connections = self.connections.len(), "calls did not end in time; cutting them off");
            self.cut.cancel();
            self.connections.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::sync::mpsc;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn no_more_than_the_bound_are_served_and_what_stays_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (began, mut begun) = mpsc::unbounded_channel();
        let accepting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                accept(listener, 2, &shutdown, move |mut stream, from| {
                    let began = began.clone();
                    async move {
                        began.send(from)?;
                        stream.read_u8().await?;
                        Ok(())
                    }
                })
                .await
            }
        });
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let served = [begun.recv().await.unwrap(), begun.recv().await.unwrap()];
        assert!(begun.try_recv().is_err(), "a third one is served");
        // One leaves, and makes way.
        let leaving = clients.iter().position(|client| client.local_addr().unwrap() == served[0]).unwrap();
        drop(clients.swap_remove(leaving));
        tokio::time::timeout(LONG, begun.recv()).await.unwrap().unwrap();

        shutdown.cancel();
        let open = tokio::time::timeout(LONG, accepting).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
        assert!(!open.end_within(Duration::from_millis(1)).await, "two clients stay");
        tokio::time::timeout(LONG, open.drain(Duration::from_millis(1))).await.unwrap();
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "it is cut off");
        }
    }
}
