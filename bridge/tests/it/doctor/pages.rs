//! A server of a few pages, as a test wants them: in the place of a client's own, of an old server, of a proxy.

use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// From a request's head and body to what is sent back.
type Answering = dyn Fn(&str, &[u8]) -> Vec<u8> + Send + Sync;

/// See the module; ends with this.
pub(crate) struct Pages {
    pub(crate) port: u16,
    serving: JoinHandle<()>,
}

impl Pages {
    pub(crate) async fn start(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer: Arc<Answering> = Arc::new(answer);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Self { port, serving }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request after another, until the other end has no more, or was told something that is no HTTP.
async fn serve(mut stream: TcpStream, answer: Arc<Answering>) {
    while let Some((head, body)) = request(&mut stream).await {
        let said = answer(&head, &body);
        let is_last = head.to_ascii_lowercase().contains("connection: close") || !said.starts_with(b"HTTP/1.");
        if stream.write_all(&said).await.is_err() || is_last {
            return;
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 65536]);
    loop {
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
            _ => return None,
        }
        if !bytes[0].is_ascii_uppercase() {
            // Whoever speaks something else sends no end of a head.
            return Some((String::from_utf8_lossy(&bytes).into_owned(), Vec::new()));
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if bytes.len() >= end + length {
            return Some((head, bytes[end..].to_vec()));
        }
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}
