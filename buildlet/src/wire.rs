//! One request and one reply a connection, each a 4-byte little-endian length and a message;
//! descriptors travel with the request's first byte. The blocking half is the keeper's and the
//! supervisor's, the async half the buildlet's.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, recvmsg, sendmsg};
use prost::Message;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};

/// Largest message: an action's arguments and environment (`motefarm_core::exec::MAX_ARG_BYTES`) and what
/// a message adds to each. Of keepers before 0.2 it was 512 KiB, which is enough for all they are asked.
pub(crate) const MOST_MESSAGE_BYTES: usize = 2 * 1024 * 1024;
/// How long a keeper or supervisor waits for the rest of a request, or to get rid of a reply.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most descriptors with one message.
const MOST_DESCRIPTORS: usize = 3;

/// Accepts a connection that is waiting; `None` if there is none after all.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    match nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
        Ok(raw) => {
            #[expect(unsafe_code, reason = "accept4 of nix answers a raw descriptor")]
            // SAFETY: accept4 just made this descriptor and nobody else owns it.
            let stream = unsafe { UnixStream::from_raw_fd(raw) };
            stream.set_read_timeout(Some(PEER_TIMEOUT))?;
            stream.set_write_timeout(Some(PEER_TIMEOUT))?;
            Ok(Some(stream))
        }
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR | nix::errno::Errno::ECONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a request and its descriptors.
pub(crate) fn receive<M: Message + Default>(stream: &mut UnixStream) -> io::Result<(M, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let (got, descriptors) = receive_start(stream.as_raw_fd(), &mut length)?;
    stream.read_exact(&mut length[got..])?;
    let mut body = vec![0; checked_length(length)?];
    stream.read_exact(&mut body)?;
    let message = M::decode(body.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((message, descriptors))
}

/// Reads the first bytes of a message, and the descriptors that travel with them.
fn receive_start(stream: RawFd, start: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let mut space = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(start)];
    let message = recvmsg::<()>(stream, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            #[expect(unsafe_code, reason = "received descriptors come as numbers")]
            // SAFETY: the kernel just made these descriptors for us; nobody else owns them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.bytes == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((message.bytes, descriptors)) }
}

/// Writes a reply.
pub(crate) fn reply(stream: &mut UnixStream, message: &impl Message) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Writes a reply with a descriptor.
pub(crate) fn reply_with(
    stream: &mut UnixStream,
    message: &impl Message,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let bytes = encode(message)?;
    let raw = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(&bytes[sent..])
}

/// Sends a request with descriptors and awaits the reply. The caller bounds the wait. Not
/// cancellation safe: the request may have been carried out.
pub(crate) async fn ask<Q: Message, R: Message + Default>(
    stream: &mut tokio::net::UnixStream,
    request: &Q,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<R> {
    send(stream, request, descriptors).await?;
    let (reply, _) = await_message(stream).await?;
    Ok(reply)
}

/// Sends a message with descriptors.
pub(crate) async fn send(
    stream: &mut tokio::net::UnixStream,
    request: &impl Message,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(request)?;
    let sent = if descriptors.is_empty() {
        0
    } else {
        let raw: Vec<_> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        stream
            .async_io(Interest::WRITABLE, || {
                let rights = [ControlMessage::ScmRights(&raw)];
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, flags, None)?)
            })
            .await?
    };
    stream.write_all(&bytes[sent..]).await
}

/// Awaits a message and its descriptors. Not cancellation safe: half of it may have been read.
pub(crate) async fn await_message<R: Message + Default>(
    stream: &tokio::net::UnixStream,
) -> io::Result<(R, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let raw = stream.as_raw_fd();
    let (got, descriptors) = stream.async_io(Interest::READABLE, || receive_start(raw, &mut length)).await?;
    read_exact(stream, &mut length[got..]).await?;
    let mut body = vec![0; checked_length(length)?];
    read_exact(stream, &mut body).await?;
    let message = R::decode(body.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((message, descriptors))
}

/// As of `AsyncReadExt`, for a stream that somebody else writes to.
async fn read_exact(stream: &tokio::net::UnixStream, mut left: &mut [u8]) -> io::Result<()> {
    while !left.is_empty() {
        stream.readable().await?;
        match stream.try_read(left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => left = &mut left[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn encode(message: &impl Message) -> io::Result<Vec<u8>> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).ok().filter(|_| length <= MOST_MESSAGE_BYTES).ok_or_else(too_long)?;
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&prefix.to_le_bytes());
    message.encode(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn checked_length(bytes: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_le_bytes(bytes)).ok().filter(|n| *n <= MOST_MESSAGE_BYTES).ok_or_else(too_long)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message is longer than {MOST_MESSAGE_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::mote::{KeeperPing, KeeperReply, KeeperRequest, keeper_request::Request};
    use std::os::fd::AsFd as _;

    #[tokio::test]
    async fn a_request_brings_its_descriptors_and_gets_its_reply() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut near = tokio::net::UnixStream::from_std(near).unwrap();
        let answer = std::thread::spawn(move || {
            let (request, descriptors) = receive::<KeeperRequest>(&mut far).unwrap();
            reply(&mut far, &KeeperReply { version: request.version, ..Default::default() }).unwrap();
            descriptors.len()
        });
        let file = tempfile::tempfile().unwrap();
        let request = KeeperRequest { version: 9, request: Some(Request::Ping(KeeperPing {})) };
        let reply: KeeperReply = ask(&mut near, &request, &[file.as_fd(), file.as_fd()]).await.unwrap();
        assert_eq!((reply.version, answer.join().unwrap()), (9, 2));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\x03\0\0\0abc", b"\x05\0\0\0a", b"\x01", b""] {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            near.write_all(bytes).unwrap();
            drop(near);
            assert!(receive::<KeeperRequest>(&mut far).is_err(), "{bytes:?}");
        }
    }
}
