//! `mote gettar`: a directory of an instance, as an archive.
//!
//! An archive can not be resumed in its middle: after a cut it is fetched anew, into a temporary
//! file that gets its name when it is whole. To stdout there is only one try.

use crate::cli;
use crate::commands::Context;
use crate::connection::{Farm, opened};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::printer::stdout_file;
use crate::resume::LONG_PATIENCE;
use crate::signals::Signals;
use crate::vectored;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use motefarm_core::WorkPath;
use motefarm_proto::mote::{self, TarCompression};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tonic::{Status, Streaming};

/// Gather what has arrived up to this much into one write.
const BATCH_BYTES: usize = 1024 * 1024;

#[derive(Serialize)]
struct Body<'a> {
    instance: &'a str,
    file: &'a Path,
    bytes: u64,
}

pub(crate) async fn act(context: &Context, gettar: cli::Gettar) -> Result<ExitStatus, Error> {
    let dir = gettar.dir.as_deref().unwrap_or_default();
    let dir =
        WorkPath::parse(dir).map_err(|e| Error::usage(format!("-dir: {e}"), "name a directory such as go/bin"))?;
    let (compression, suffix) = match (gettar.zstd, gettar.plain) {
        (true, _) => (TarCompression::Zstd, "tar.zst"),
        (_, true) => (TarCompression::None, "tar"),
        _ => (TarCompression::Gzip, "tar.gz"),
    };
    let request = mote::GetTarRequest {
        instance: gettar.instance.clone(),
        dir: dir.as_str().to_owned(),
        compression: compression.into(),
    };
    let target = gettar.output.unwrap_or_else(|| PathBuf::from(format!("{}.{suffix}", file_name(&gettar.instance))));
    let farm = context.connect().await?;
    if target == Path::new("-") {
        return to_stdout(&farm, request).await;
    }
    let printer = context.printer;
    printer.message(format_args!("fetching {} of {} to {}", dir, gettar.instance, target.display()));
    let begin = Instant::now();
    let mut signals = Signals::listen()?;
    let bytes = tokio::select! {
        bytes = to_file(&farm, request, &target) => bytes?,
        // The temporary file goes too.
        _ = signals.next() => return Err(Error::Interrupted),
    };
    let took = human::took(begin.elapsed());
    printer.message(format_args!("wrote {} ({}, {took})", target.display(), human::bytes(bytes)));
    printer.data(&Body { instance: &gettar.instance, file: &target, bytes }, String::new)?;
    Ok(ExitStatus::Success)
}

/// An instance's name or id can be a file's name; anything else the farm will refuse anyway.
fn file_name(instance: &str) -> String {
    instance.chars().map(|c| if c.is_alphanumeric() || "-_.@".contains(c) { c } else { '_' }).collect()
}

async fn to_stdout(farm: &Farm, request: mote::GetTarRequest) -> Result<ExitStatus, Error> {
    let doing = doing(&request);
    let mut stdout = stdout_file().map_err(|e| Error::local("get hold of stdout", e))?;
    let mut client = farm.client();
    let chunks = opened(client.get_tar(request)).await.map_err(|status| Error::refused(&doing, &status))?;
    match copy(chunks, &mut stdout).await {
        Ok(_) => Ok(ExitStatus::Success),
        Err(Failure::Farm(status)) => Err(Error::refused(&doing, &status)),
        Err(Failure::Local(cause)) => Err(Error::stdout(cause)),
    }
}

async fn to_file(farm: &Farm, request: mote::GetTarRequest, target: &Path) -> Result<u64, Error> {
    let mut temporary = Temporary::beside(target)?;
    let mut retry = farm.retry(doing(&request), LONG_PATIENCE);
    loop {
        let mut client = farm.client();
        let failure = match opened(client.get_tar(request.clone())).await {
            Err(status) => status,
            Ok(chunks) => {
                retry.contact();
                match copy(chunks, &mut temporary.file).await {
                    Ok(bytes) => {
                        temporary.publish()?;
                        return Ok(bytes);
                    }
                    Err(Failure::Farm(status)) => status,
                    Err(Failure::Local(cause)) => return Err(Error::file("write", &temporary.path, cause)),
                }
            }
        };
        retry.wait(&failure).await?;
        temporary.restart()?;
    }
}

fn doing(request: &mote::GetTarRequest) -> String {
    format!("fetch the archive of {}", request.instance)
}

enum Failure {
    Farm(Status),
    Local(io::Error),
}

async fn copy(mut chunks: Streaming<mote::TarChunk>, to: &mut File) -> Result<u64, Failure> {
    let mut total = 0;
    while let Some(first) = chunks.message().await.map_err(Failure::Farm)? {
        let mut size = first.data.len();
        let mut batch: Vec<Bytes> = vec![first.data];
        let mut end = None;
        while size < BATCH_BYTES && end.is_none() {
            match chunks.next().now_or_never() {
                None => break,
                Some(Some(Ok(chunk))) => {
                    size += chunk.data.len();
                    batch.push(chunk.data);
                }
                Some(Some(Err(status))) => end = Some(Err(Failure::Farm(status))),
                Some(None) => end = Some(Ok(())),
            }
        }
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|data| IoSlice::new(data)).collect();
        vectored::write_all(to, &mut slices, |_| Err(io::ErrorKind::WouldBlock.into())).map_err(Failure::Local)?;
        total += size as u64;
        match end {
            None => {}
            Some(Ok(())) => break,
            Some(Err(failure)) => return Err(failure),
        }
    }
    Ok(total)
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

    fn publish(&mut self) -> Result<(), Error> {
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
        whole.publish().unwrap();
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
