//! Calls to a bridge that runs, by this program's other commands.

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use motefarm_net::dial::Stream;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What Goma's messages are called.
const PROTOBUF: &str = "binary/x-protocol-buffer";
/// Time for one call, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer.
const MAX_BYTES: usize = 16 << 20;

/// A connection to a bridge: in the clear, as these commands run beside it, or as whoever calls made it.
pub struct Caller {
    bridge: String,
    authorization: Option<String>,
    patience: Duration,
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Caller {
    /// To the bridge at `host:port`; `authorization` is shown on every call.
    pub async fn connect(bridge: &str, authorization: Option<String>) -> anyhow::Result<Self> {
        let connecting = async {
            let stream = TcpStream::connect(motefarm_net::dial::split_address(bridge)?).await?;
            Self::over(stream, bridge, authorization).await
        };
        let connected = tokio::time::timeout(motefarm_net::dial::CONNECT_TIMEOUT, connecting).await;
        connected
            .context("no answer in time")
            .and_then(|connected| connected)
            .with_context(|| format!("can not reach the bridge at {bridge}"))
    }

    /// Over a connection that is there; `host` is what calls it by.
    pub async fn over(stream: impl Stream, host: &str, authorization: Option<String>) -> anyhow::Result<Self> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            // How it ended is told by the calls.
            let _ = connection.await;
        });
        Ok(Self { bridge: host.to_owned(), authorization, patience: TIMEOUT, sender, connection })
    }

    /// The same, waiting so long for each answer.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// One call; the body of a good answer.
    pub async fn call(&mut self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
        let mut request = Request::builder().method(&method).uri(path).header("host", &self.bridge);
        if method == Method::POST {
            request = request.header("content-type", PROTOBUF);
        }
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let calling = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body).trim());
            Ok::<Bytes, anyhow::Error>(body)
        };
        let answered = tokio::time::timeout(self.patience, calling).await.context("no answer in time");
        answered.and_then(|answer| answer).with_context(|| format!("the server at {} did not do it", self.bridge))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
