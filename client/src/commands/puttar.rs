//! `mote puttar`: an archive unpacked on instances, from a file, stdin, an address or a Go commit.
//!
//! Unpacking the same archive again writes the same files, so a try cut off is made again, unless
//! it came from stdin.

use crate::broadcast;
use crate::cli;
use crate::commands::Context;
use crate::commands::put::{once_only, unread};
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::progress::Bar;
use crate::resume::SHORT_PATIENCE;
use crate::source::{Broken, Source};
use bytes::Bytes;
use motefarm_core::WorkPath;
use motefarm_proto::mote;
use serde::Serialize;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

const SHAPE: &str = "mote puttar [-dir DIR] [INSTANCE] [SOURCE]";
/// For the farm to fetch and unpack an archive.
const FETCH_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Where an archive comes from.
#[derive(Debug, Clone)]
enum Archive {
    Here(Source),
    /// The farm fetches it.
    Address(String),
    /// A commit of Go: fetched, and told which it is.
    GoCommit(String),
}

/// `PutTarResponse`.
#[derive(Serialize)]
struct Unpacked {
    files_written: u64,
    bytes_written: u64,
    dirs_made: u64,
    links_made: u64,
}

pub(crate) async fn act(context: &Context, puttar: cli::Puttar) -> Result<ExitStatus, Error> {
    let dir = puttar.dir.as_deref().unwrap_or_default();
    let dir =
        WorkPath::parse(dir).map_err(|e| Error::usage(format!("-dir: {e}"), "name a directory such as gopath/src"))?;
    let farm = context.connect().await?;
    let targets = context.resolver(&farm, SHAPE).first(puttar.words).await?;
    let archive = match targets.rest.as_slice() {
        [] => archive("-")?,
        [one] => archive(one)?,
        _ => return Err(Error::usage("only one archive is put at a time", SHAPE)),
    };
    let (archive, _copy) = match archive {
        Archive::Here(source) if targets.instances.len() > 1 => {
            let (source, copy) = source.repeatable()?;
            (Archive::Here(source), copy)
        }
        archive => (archive, None),
    };
    let put = async |instance: &str| {
        let answer = put(context, &farm, instance, dir.as_str(), &archive).await?;
        let unpacked = Unpacked {
            files_written: answer.files_written,
            bytes_written: answer.bytes_written,
            dirs_made: answer.dirs_made,
            links_made: answer.links_made,
        };
        let files = human::count(unpacked.files_written, "file");
        context.printer.message(format_args!(
            "unpacked {files} ({}) into {dir} of {instance}",
            human::bytes(unpacked.bytes_written)
        ));
        Ok(unpacked)
    };
    broadcast::conclude(context.printer, broadcast::each(&targets.instances, put).await)
}

async fn put(
    context: &Context,
    farm: &Farm,
    instance: &str,
    dir: &str,
    archive: &Archive,
) -> Result<mote::PutTarResponse, Error> {
    let tar = mote::PutTarHeader { dir: dir.to_owned() };
    match archive {
        Archive::Here(source) => send(context, farm, instance, &tar, source).await,
        Archive::Address(url) => fetch(context, farm, instance, &tar, url).await,
        Archive::GoCommit(hash) => {
            let url = format!("https://go.googlesource.com/go/+archive/{hash}.tar.gz");
            let mut answer = fetch(context, farm, instance, &tar, &url).await?;
            let version = Source::Memory(version_archive(hash)?);
            let told = send(context, farm, instance, &tar, &version).await?;
            answer.files_written += told.files_written;
            answer.bytes_written += told.bytes_written;
            Ok(answer)
        }
    }
}

async fn send(
    context: &Context,
    farm: &Farm,
    instance: &str,
    tar: &mote::PutTarHeader,
    source: &Source,
) -> Result<mote::PutTarResponse, Error> {
    let doing = format!("unpack {} on {instance}", source.name());
    let mut retry = farm.retry(doing.clone(), SHORT_PATIENCE);
    let bar = Bar::bytes(context.printer, instance, source.size());
    let target = mote::PutTarTarget { instance: instance.to_owned(), tar: Some(tar.clone()) };
    let first = mote::PutTarRequest { header: Some(target), ..Default::default() };
    let answer = loop {
        let seen = bar.clone();
        let feed = source.open(move |n| seen.add(n))?;
        let message = |data| mote::PutTarRequest { data, ..Default::default() };
        let last = mote::PutTarRequest { end: true, ..Default::default() };
        let mut client = farm.client();
        let call = async |messages| client.put_tar(messages).await;
        match feed.send(first.clone(), message, last, call).await {
            Ok(answer) => break answer,
            Err(Broken::Here(cause)) => return Err(unread(source, cause)),
            Err(Broken::There(status)) if source.is_repeatable() => retry.wait(&status).await?,
            Err(Broken::There(status)) => {
                return Err(once_only(&doing, &status, "some of the archive may be unpacked"));
            }
        }
        bar.restart();
    };
    bar.done();
    Ok(answer)
}

async fn fetch(
    context: &Context,
    farm: &Farm,
    instance: &str,
    tar: &mote::PutTarHeader,
    url: &str,
) -> Result<mote::PutTarResponse, Error> {
    let bar = Bar::waiting(context.printer, instance);
    let request =
        mote::PutTarFromUrlRequest { instance: instance.to_owned(), tar: Some(tar.clone()), url: url.to_owned() };
    let doing = format!("have the farm fetch {url} for {instance}");
    let ask = async |mut c: crate::connection::Client| c.put_tar_from_url(request.clone()).await;
    let answer = farm.call_within(&doing, FETCH_DEADLINE, ask).await;
    bar.done();
    answer
}

/// What a word means: stdin, an address, a file that is there, a commit.
fn archive(word: &str) -> Result<Archive, Error> {
    if word == "-" {
        if io::stdin().is_terminal() {
            return Err(Error::usage("stdin is a terminal, not an archive", "tar -c DIR | mote puttar INSTANCE"));
        }
        return Ok(Archive::Here(Source::Stdin));
    }
    if word.split_once("://").is_some_and(|(scheme, _)| matches!(scheme, "http" | "https")) {
        return Ok(Archive::Address(word.to_owned()));
    }
    let path = PathBuf::from(word);
    if path.is_dir() {
        return Err(Error::usage(
            format!("{word} is a directory, not an archive"),
            format!("mote push -C {word} sends a tree; tar -C {word} -c . | mote puttar INSTANCE an archive of it"),
        ));
    }
    if path.exists() {
        return Ok(Archive::Here(Source::File(path)));
    }
    if is_commit(word) {
        return Ok(Archive::GoCommit(word.to_owned()));
    }
    Err(Error::usage(
        format!("{word} is no file here, no http(s) address and no commit's hash"),
        "-, a file, an address, or 7 to 40 hex digits",
    ))
}

fn is_commit(word: &str) -> bool {
    (7..=40).contains(&word.len()) && word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// An archive of the one file that says which Go it is.
fn version_archive(hash: &str) -> Result<Bytes, Error> {
    let content = format!("devel {hash}");
    let pack = || -> io::Result<Vec<u8>> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "VERSION", content.as_bytes())?;
        builder.into_inner()
    };
    pack().map(Bytes::from).map_err(|e| Error::local("pack the VERSION file", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn words_mean_files_before_commits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.tar");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(archive(file.to_str().unwrap()), Ok(Archive::Here(Source::File(_)))));
        assert!(matches!(archive("https://example.org/x.tgz"), Ok(Archive::Address(_))));
        assert!(matches!(archive("8ca5f638"), Ok(Archive::GoCommit(_))));
        for wrong in ["8ca5f6", "8CA5F638", "ftp://example.org/x", "nothing.tar", dir.path().to_str().unwrap()] {
            assert!(matches!(archive(wrong), Err(Error::Usage { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_commit_is_named_in_a_version_file() {
        let archive = version_archive("8ca5f638").unwrap();
        let mut archive = tar::Archive::new(archive.as_ref());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!((entry.path().unwrap().to_str(), content.as_str()), (Some("VERSION"), "devel 8ca5f638"));
    }
}
