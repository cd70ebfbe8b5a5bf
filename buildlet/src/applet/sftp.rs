//! A server of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02, with the
//! changes and extensions of OpenSSH's PROTOCOL file), on standard input and output.
//!
//! Requests are answered in order. Names are bytes, as the system has them. Sandboxed like any command:
//! nothing here confines paths, because the sandbox does.

mod attributes;
mod fields;
mod listing;
mod requests;

use fields::{Fields, Reply};
use requests::Server;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

/// Largest request and largest answer, as OpenSSH has it.
const MOST_PACKET_BYTES: usize = 256 * 1024;
/// Largest content of one read or write: a packet less what surrounds it.
const MOST_CONTENT_BYTES: usize = MOST_PACKET_BYTES - 1024;
/// Answers are written out at the latest when there are this many bytes of them.
const FLUSH_BYTES: usize = MOST_PACKET_BYTES;

/// Serves until the input ends.
pub(super) fn serve() -> io::Result<()> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut server = Server::default();
    let mut buffer = vec![0; 2 * (MOST_PACKET_BYTES + 4)];
    let mut filled = 0;
    let mut answers = Vec::new();
    loop {
        let read = input.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Some(packet) = next_packet(&buffer[at..filled])? {
            at += 4 + packet.len();
            server.answer(Fields::new(packet), &mut Reply::new(&mut answers));
            if answers.len() >= FLUSH_BYTES {
                output.write_all(&answers)?;
                answers.clear();
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        output.write_all(&answers)?;
        answers.clear();
    }
}

/// The first packet of what was read, without its length; `None` if it is not whole yet.
fn next_packet(bytes: &[u8]) -> io::Result<Option<&[u8]>> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length == 0 || length > MOST_PACKET_BYTES {
        let problem = format!("a packet of {length} bytes; at most {MOST_PACKET_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(rest.get(..length))
}

#[cfg(test)]
mod tests;
