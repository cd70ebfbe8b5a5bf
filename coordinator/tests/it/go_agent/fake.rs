//! A Go agent in process, by its protocol: a control channel, connections on being asked, HTTP by hand.

use motefarm_coordinator::link::go_agent::Pickups;
use motefarm_net::dial::BoxStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A request that the test answers itself.
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) body: String,
    /// Where the answer goes; dropping it cuts the connection.
    pub(crate) stream: DuplexStream,
}

impl Asked {
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Whether the coordinator has dropped the connection; waits for it.
    pub(crate) async fn is_dropped(&mut self) -> bool {
        matches!(
            tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut [0; 64])).await,
            Ok(Ok(0) | Err(_))
        )
    }
}

/// See the module.
pub(crate) struct FakeAgent {
    /// What it does not answer by itself.
    pub(crate) asked: mpsc::Receiver<Asked>,
    /// Whether it does anything with the connections that it dials.
    pub(crate) answers: Arc<AtomicBool>,
    /// Everything else that was asked, in order.
    pub(crate) log: mpsc::UnboundedReceiver<String>,
    writer: WriteHalf<DuplexStream>,
    control: JoinHandle<()>,
}

impl FakeAgent {
    /// Registers: the stream is what the port would hand over.
    pub(crate) fn register(pickups: Arc<Pickups>) -> (Self, BoxStream) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(near);
        let (sender, asked) = mpsc::channel(16);
        let (logger, log) = mpsc::unbounded_channel();
        let answers = Arc::new(AtomicBool::new(true));
        let control = tokio::spawn(control(reader, pickups, answers.clone(), sender, logger));
        (Self { asked, answers, log, writer, control }, Box::new(far))
    }

    /// The next request that the test has to answer.
    pub(crate) async fn next(&mut self, target: &str) -> Asked {
        let asked = tokio::time::timeout(Duration::from_secs(10), self.asked.recv()).await;
        let asked = asked.expect("the agent was not asked").expect("the agent runs");
        assert!(asked.target.starts_with(target), "asked for {}", asked.target);
        asked
    }

    /// Says something on its channel.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    /// As when its process is killed.
    pub(crate) fn die(self) {
        self.control.abort();
    }
}

async fn control(
    reader: ReadHalf<DuplexStream>,
    pickups: Arc<Pickups>,
    answers: Arc<AtomicBool>,
    asked: mpsc::Sender<Asked>,
    log: mpsc::UnboundedSender<String>,
) {
    let mut lines = BufReader::new(reader).lines();
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(Some(line)) = lines.next_line().await {
        assert!(line.len() < 4096, "Go's agent reads no longer lines");
        let frame: serde_json::Value = serde_json::from_str(&line).unwrap();
        if frame["command"] != "conn-ready" {
            continue;
        }
        let path = frame["connPath"].as_str().unwrap();
        let id = path.strip_prefix("/revdial?revdial.dialer=").unwrap();
        assert!(pickups.expects(id), "asked to dial what nobody expects");
        let (near, far) = tokio::io::duplex(64 * 1024);
        pickups.deliver(id, Box::new(far));
        if !answers.load(Ordering::Relaxed) {
            // Cut at once.
            continue;
        }
        connections.spawn(serve(near, asked.clone(), log.clone()));
    }
}

async fn serve(stream: DuplexStream, asked: mpsc::Sender<Asked>, log: mpsc::UnboundedSender<String>) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap().to_owned());
    let body = if method == "GET" { String::new() } else { content(&mut stream).await };
    let answer = match target.as_str() {
        "/status" => "{\"Version\":29}\n",
        "/" => "buildlet running on linux-amd64",
        "/workdir" => "/work",
        // The latter without a directory is how one that was removed is made again.
        "/removeall" | "/halt" | "/ls?dir=" => "",
        _ => {
            let _ = asked.send(Asked { target, body, stream: stream.into_inner() }).await;
            return;
        }
    };
    let _ = log.send(format!("{method} {target} {body}"));
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len());
    let _ = stream.write_all(text.as_bytes()).await;
}

/// A body, which always comes in chunks.
async fn content(stream: &mut BufReader<DuplexStream>) -> String {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).await.unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.unwrap();
        if size == 0 {
            return String::from_utf8_lossy(&body).into_owned();
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
