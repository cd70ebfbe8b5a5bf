//! Our stdin, fed to the command at offsets, so that a repeat after a cut does no harm.

use crate::connection::Farm;
use crate::error::Error;
use bytes::Bytes;
use motefarm_proto::mote;
use std::io::{self, Read as _};
use std::time::Duration;
use tokio::sync::mpsc;

/// As much as one `WriteStdin` takes.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces read ahead.
const AHEAD: usize = 4;

/// A reader of stdin on a thread of its own: a read of a terminal can not be taken back.
pub(crate) struct Stdin {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Stdin {
    /// Starts reading.
    pub(crate) fn open() -> Result<Self, Error> {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let read = move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let piece = match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => Ok(Bytes::copy_from_slice(&buffer[..n])),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => Err(e),
                };
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    break;
                }
            }
        };
        let named = std::thread::Builder::new().name("stdin".to_owned());
        named.spawn(read).map_err(|e| Error::local("start a thread for stdin", e))?;
        Ok(Self { pieces })
    }

    /// Feeds all of it, then says that nothing follows. Ends early when the command wants no more.
    pub(super) async fn feed(mut self, farm: &Farm, exec_id: &str) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let piece = match self.pieces.recv().await.transpose() {
                Ok(piece) => piece,
                Err(cause) => {
                    // The command must not wait for what never comes.
                    write(farm, exec_id, offset, Bytes::new(), true).await?;
                    return Err(Error::local("read stdin", cause));
                }
            };
            let eof = piece.is_none();
            let Some(end) = write(farm, exec_id, offset, piece.unwrap_or_default(), eof).await? else {
                return Ok(());
            };
            if eof {
                return Ok(());
            }
            offset = end;
        }
    }
}

/// Writes one piece wholly; `None` when the command takes no more.
async fn write(farm: &Farm, exec_id: &str, from: u64, data: Bytes, eof: bool) -> Result<Option<u64>, Error> {
    const DOING: &str = "feed stdin to the command";
    let end = from + data.len() as u64;
    let mut offset = from;
    let mut wait = Duration::from_millis(2);
    loop {
        let skip = usize::try_from(offset - from).unwrap_or(usize::MAX).min(data.len());
        let request = mote::WriteStdinRequest { exec_id: exec_id.to_owned(), offset, data: data.slice(skip..), eof };
        let answer = farm.call(DOING, async |mut c| c.write_stdin(request.clone()).await).await?;
        if answer.closed {
            return Ok(None);
        }
        if answer.accepted >= end {
            return Ok(Some(end));
        }
        if answer.accepted < offset {
            let problem = format!("it took {} bytes before and {} now", offset, answer.accepted);
            return Err(Error::protocol(DOING, problem));
        }
        if answer.accepted > offset {
            offset = answer.accepted;
            wait = Duration::from_millis(2);
        }
        // The pipe is full: the command sets the pace.
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(100));
    }
}
