//! `CONNECT` in the clear: a Go agent's way to our TLS when we do not listen on 443.
//!
//! Go's agent puts `host:port` into its handshake's server name unless the port is 443, and no TLS of
//! ours takes that. Told of a proxy it asks that for `NAME:443` instead. We are no proxy: whatever the
//! name, what follows is a fresh connection to this very port, and must be TLS.

use motefarm_net::serve::ConnectionError;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes of the request.
const MAX_HEAD: usize = 4096;
const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    this is no proxy; it lets Go agents reach this farm as NAME:443\n";

/// Whether these bytes begin such a request.
pub(super) fn is_begun_by(bytes: &[u8]) -> bool {
    bytes.starts_with(b"CONNECT ")
}

/// Answers the request. An error: it was refused, and said so.
pub(super) async fn answer(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), ConnectionError> {
    let head = read_head(io).await?;
    let wanted = wanted(&head);
    io.write_all(if wanted.is_ok() { ACCEPTED } else { REFUSED }).await?;
    io.flush().await?;
    wanted.map_err(Into::into)
}

/// Byte by byte: not one of what follows may be taken.
async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a CONNECT request that is too long"));
        }
        head.push(io.read_u8().await?);
    }
    Ok(head)
}

/// Whether the request is for port 443 of something.
fn wanted(head: &[u8]) -> Result<(), String> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| "a CONNECT request that is no text".to_owned())?;
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("CONNECT"), Some(to), Some("HTTP/1.1" | "HTTP/1.0"), None) if to.ends_with(":443") => Ok(()),
        _ => Err(format!("refused {line:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(request: &[u8]) -> (Result<(), String>, String) {
        let (mut near, mut far) = tokio::io::duplex(8192);
        near.write_all(request).await.unwrap();
        let result = answer(&mut far).await.map_err(|error| error.to_string());
        drop(far);
        let mut said = String::new();
        near.read_to_string(&mut said).await.unwrap();
        (result, said)
    }

    #[tokio::test]
    async fn any_name_at_443_is_us_and_nothing_else_is_anybody() {
        let (result, said) = asked(b"CONNECT farm.mote:443 HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n").await;
        assert_eq!((result, said.as_str()), (Ok(()), "HTTP/1.1 200 OK\r\n\r\n"));
        for bad in ["example.com:80 HTTP/1.1", "example.com:443", "a b:443 HTTP/1.1", ":443 HTTP/2.0"] {
            let (result, said) = asked(format!("CONNECT {bad}\r\n\r\n").as_bytes()).await;
            assert!(result.is_err() && said.starts_with("HTTP/1.1 403 "), "{bad}: {said}");
        }
    }

    #[tokio::test]
    async fn what_follows_stays_and_what_does_not_end_is_given_up() {
        let (mut near, mut far) = tokio::io::duplex(8192);
        near.write_all(b"CONNECT a:443 HTTP/1.1\r\n\r\n\x16\x03\x01").await.unwrap();
        answer(&mut far).await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 0x16);
        let (result, said) = asked(&[b"CONNECT a:443 HTTP/1.1\r\n".as_slice(), &[b'x'; 5000]].concat()).await;
        assert!(result.is_err() && said.is_empty());
    }
}
