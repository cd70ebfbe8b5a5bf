//! The channel over which a Go agent is told to dial us, and by which we know that it is there.
//!
//! Lines of JSON (golang/build `revdial/v2`). We write `conn-ready` with a path, and `keep-alive` at the
//! beginning and whenever nothing was written for a while; the agent writes only `pickup-failed`. Its
//! reader gives up on lines over 4096 bytes, ours takes longer ones.

use super::dialer::Pickups;
use motefarm_net::dial::BoxStream;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

/// Silence after which `keep-alive` is written.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Time for the agent's machine to take a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line we read: room for an error page that somebody on the way made.
const MAX_LINE: u64 = 64 * 1024;

/// One line.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Frame {
    #[serde(default)]
    command: String,
    #[serde(rename = "connPath", default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    err: String,
}

impl Frame {
    fn keep_alive() -> Self {
        Self { command: "keep-alive".to_owned(), ..Self::default() }
    }

    fn conn_ready(path: String) -> Self {
        Self { command: "conn-ready".to_owned(), path, ..Self::default() }
    }

    fn line(&self) -> Vec<u8> {
        // What consists of three strings can be written.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Keeps the channel until it ends; answers why. Paths that come in `paths` are announced; what the agent
/// says of those it could not dial goes to `pickups`.
pub(super) async fn run(stream: BoxStream, mut paths: mpsc::Receiver<String>, pickups: Arc<Pickups>) -> String {
    let (reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let mut next = Frame::keep_alive();
        loop {
            if let Err(why) = send(&mut writer, &next).await {
                return why;
            }
            next = match tokio::time::timeout(KEEP_ALIVE, paths.recv()).await {
                Ok(Some(path)) => Frame::conn_ready(path),
                Ok(None) => return "it was let go".to_owned(),
                Err(_) => Frame::keep_alive(),
            };
        }
    };
    let read = async {
        let mut reader = BufReader::new(reader);
        loop {
            match receive(&mut reader).await {
                Ok(frame) if frame.command == "pickup-failed" => pickups.failed(&frame.path, &frame.err),
                Ok(frame) => tracing::debug!(command = frame.command, "a Go agent says what it need not"),
                Err(why) => return why,
            }
        }
    };
    tokio::select! {
        why = write => why,
        why = read => why,
    }
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), String> {
    let write = async {
        writer.write_all(&frame.line()).await?;
        writer.flush().await
    };
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the agent's channel broke: {error}")),
        Err(_) => Err(format!("the agent's channel took nothing for {} s", WRITE_TIMEOUT.as_secs())),
    }
}

async fn receive(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Frame, String> {
    let mut line = Vec::new();
    match reader.take(MAX_LINE).read_until(b'\n', &mut line).await {
        Ok(0) => Err("the agent's channel ended".to_owned()),
        Ok(_) if !line.ends_with(b"\n") => {
            Err("the agent's channel ended within a line, or a line has no end".to_owned())
        }
        Ok(_) => serde_json::from_slice(&line).map_err(|error| format!("it wrote what is no frame: {error}")),
        // Agents that end do not say good-bye to TLS.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err("the agent's channel ended".to_owned()),
        Err(error) => Err(format!("the agent's channel broke: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_gos() {
        assert_eq!(Frame::keep_alive().line(), b"{\"command\":\"keep-alive\"}\n");
        let ready = Frame::conn_ready("/revdial?revdial.dialer=ab".to_owned());
        assert_eq!(ready.line(), b"{\"command\":\"conn-ready\",\"connPath\":\"/revdial?revdial.dialer=ab\"}\n");
        // As the Go agent wrote it.
        let mut failed = &b"{\"command\":\"pickup-failed\",\"err\":\"switch failed: want HTTP status 101 or 307; got 400 Bad Request:\\n\\tnope\\n\"}\n"[..];
        let frame = receive(&mut failed).await.unwrap();
        assert_eq!((frame.command.as_str(), frame.path.as_str()), ("pickup-failed", ""));
        assert!(frame.err.ends_with("got 400 Bad Request:\n\tnope\n"));
    }

    #[tokio::test]
    async fn coalesced_lines_are_taken_apart_and_garbage_ends_the_channel() {
        let mut lines = &b"{\"command\":\"a\",\"more\":1}\n{\"err\":\"b\\u0026\"}\nnonsense\n{\"comm"[..];
        assert_eq!(receive(&mut lines).await.unwrap().command, "a");
        assert_eq!(receive(&mut lines).await.unwrap().err, "b&");
        assert!(receive(&mut lines).await.unwrap_err().contains("no frame"));
        assert!(receive(&mut lines).await.unwrap_err().contains("within a line"));
        assert!(receive(&mut lines).await.unwrap_err().contains("ended"));
        let endless = vec![b'x'; 100_000];
        assert!(receive(&mut &endless[..]).await.unwrap_err().contains("no end"));
    }
}
