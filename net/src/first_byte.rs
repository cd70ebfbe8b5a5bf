//! TLS and cleartext on one port: the first byte tells them apart.

use std::io;
use tokio::net::TcpStream;

/// First byte of a TLS record that begins a handshake (RFC 8446, section 5.1). No request of HTTP begins so.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// The first byte the peer says, which stays to be read. An error if it says none. No deadline of its own.
pub async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_byte_is_seen_and_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        caller.write_all(&[TLS_HANDSHAKE, 3]).await.unwrap();
        assert_eq!(first_byte(&stream).await.unwrap(), TLS_HANDSHAKE);
        assert_eq!(stream.read_u16().await.unwrap(), 0x1603);
        drop(caller);
        assert!(first_byte(&stream).await.is_err());
    }
}
