//! Streams of the farm on their way into a local file: into a temporary one beside it, which gets
//! the name when it is whole.
//!
//! Such a stream can not be resumed in its middle: after a cut it is fetched anew.

use crate::connection::{Authorized, Farm, opened};
use crate::error::Error;
use crate::progress::Bar;
use crate::resume::LONG_PATIENCE;
use crate::vectored;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use motefarm_proto::mote::{self, farm_client::FarmClient};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tonic::{Response, Status, Streaming};

/// Gather what has arrived up to this much into one write.
const BATCH_BYTES: usize = 1024 * 1024;

/// A message that carries content.
pub(crate) trait Carries {
    /// The content.
    fn content(self) -> Bytes;
    /// Permission bits, in a file's first message.
    fn mode(&self) -> u32 {
        0
    }
}

impl Carries for mote::TarChunk {
    fn content(self) -> Bytes {
        self.data
    }
}

impl Carries for mote::FileChunk {
    fn content(self) -> Bytes {
        self.data
    }
    fn mode(&self) -> u32 {
        self.mode
    }
}

/// Why content did not come whole.
pub(crate) enum Failure {
    /// The farm refused it, or was lost.
    Farm(Status),
    /// It could not be written here.
    Local(io::Error),
}

/// What came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Came {
    pub(crate) bytes: u64,
    /// Permission bits, if the stream told.
    pub(crate) mode: u32,
}

/// Fetches into `target`, as often as it takes.
pub(crate) async fn to_file<M: Carries>(
    farm: &Farm,
    doing: String,
    target: &Path,
    bar: &Bar,
    ask: impl AsyncFn(FarmClient<Authorized>) -> Result<Response<Streaming<M>>, Status>,
) -> Result<Came, Error> {
    let mut temporary = Temporary::beside(target)?;
    let mut retry = farm.retry(doing, LONG_PATIENCE);
    loop {
        let failure = match opened(ask(farm.client())).await {
            Err(status) => status,
            Ok(messages) => {
                retry.contact();
                match copy(messages, &mut temporary.file, bar).await {
                    Ok(came) => {
                        temporary.publish(came.mode)?;
                        return Ok(came);
                    }
                    Err(Failure::Farm(status)) => status,
                    Err(Failure::Local(cause)) => return Err(Error::file("write", &temporary.path, cause)),
                }
            }
        };
        retry.wait(&failure).await?;
        temporary.restart()?;
        bar.restart();
    }
}

/// Fetches once into something open, such as stdout.
pub(crate) async fn once<M: Carries>(
    farm: &Farm,
    doing: &str,
    to: &mut File,
    ask: impl AsyncFn(FarmClient<Authorized>) -> Result<Response<Streaming<M>>, Status>,
) -> Result<Came, Error> {
    let messages = opened(ask(farm.client())).await.map_err(|status| Error::refused(doing, &status))?;
    copy(messages, to, &Bar::none()).await.map_err(|failure| match failure {
        Failure::Farm(status) => Error::refused(doing, &status),
        Failure::Local(cause) => Error::stdout(cause),
    })
}

async fn copy<M: Carries>(
    messages: impl Stream<Item = Result<M, Status>>,
    to: &mut File,
    bar: &Bar,
) -> Result<Came, Failure> {
    let mut messages: Pin<Box<_>> = Box::pin(messages);
    let mut came = Came::default();
    while let Some(first) = messages.next().await {
        let first = first.map_err(Failure::Farm)?;
        came.mode |= first.mode();
        let mut batch = vec![first.content()];
        let mut size = batch[0].len();
        let mut end = None;
        while size < BATCH_BYTES && end.is_none() {
            match messages.next().now_or_never() {
                None => break,
                Some(Some(Ok(message))) => {
                    let content = message.content();
                    size += content.len();
                    batch.push(content);
                }
                Some(Some(Err(status))) => end = Some(Err(Failure::Farm(status))),
                Some(None) => end = Some(Ok(())),
            }
        }
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|data| IoSlice::new(data)).collect();
        vectored::write_all(to, &mut slices, |_| Err(io::ErrorKind::WouldBlock.into())).map_err(Failure::Local)?;
        came.bytes += size as u64;
        bar.add(size as u64);
        match end {
            None => {}
            Some(Ok(())) => break,
            Some(Err(failure)) => return Err(failure),
        }
    }
    Ok(came)
}

/// An instance's name or id can be a file's name; anything else the farm will refuse anyway.
pub(crate) fn file_name(instance: &str) -> String {
    instance.chars().map(|c| if c.is_alphanumeric() || "-_.@".contains(c) { c } else { '_' }).collect()
}

/// A file that has its name only when it is whole, and is gone if that never comes.
struct Temporary {
    path: PathBuf,
    target: PathBuf,
    file: File,
    published: bool,
}

impl Temporary {
    fn beside(target: &Path) -> Result<Self, Error> {
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{:08x}.part", rand::random::<u32>()));
        let path = PathBuf::from(path);
        let file = File::create_new(&path).map_err(|e| Error::file("create", &path, e))?;
        Ok(Self { path, target: target.to_owned(), file, published: false })
    }

    fn restart(&mut self) -> Result<(), Error> {
        use std::io::Seek as _;
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|e| Error::file("empty", &self.path, e))
    }

    fn publish(&mut self, mode: u32) -> Result<(), Error> {
        platform::add_executable(&self.file, mode).map_err(|e| Error::file("set the mode of", &self.path, e))?;
        fs::rename(&self.path, &self.target).map_err(|e| Error::file("put in place", &self.target, e))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
mod platform {
    use super::{File, io};
    use std::os::unix::fs::PermissionsExt as _;

    /// Whoever may read it may run it, if its owner could there; the rest is our umask's.
    pub(super) fn add_executable(file: &File, mode: u32) -> io::Result<()> {
        if mode & 0o100 == 0 {
            return Ok(());
        }
        let mut permissions = file.metadata()?.permissions();
        let readable = permissions.mode() & 0o444;
        permissions.set_mode(permissions.mode() | (readable >> 2));
        file.set_permissions(permissions)
    }
}

#[cfg(not(unix))]
mod platform {
    use super::{File, io};

    pub(super) fn add_executable(_: &File, _: u32) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_that_is_never_whole_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("i.tar.gz");
        let mut given_up = Temporary::beside(&target).unwrap();
        given_up.file.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut whole = Temporary::beside(&target).unwrap();
        whole.file.write_all(b"half").unwrap();
        whole.restart().unwrap();
        whole.file.write_all(b"all").unwrap();
        whole.publish(0).unwrap();
        drop(whole);
        assert_eq!(fs::read(&target).unwrap(), b"all");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_could_mislead_a_path_is_made_plain() {
        assert_eq!(file_name("alice-linux-amd64-0"), "alice-linux-amd64-0");
        assert_eq!(file_name("../x/y"), ".._x_y");
    }
}
