//! From what was typed to an action: input root, Command and Action, canonical, with their digests.

use crate::cli;
use crate::commands::Context;
use crate::error::Error;
use motefarm_cas::snapshot::{Snapshot, SnapshotOptions, StatCache, snapshot};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{Action, Command, Platform, command, platform};
use std::io;

const SHAPE: &str = "mote reapi exec [OPTIONS] COMMAND [ARGS]...";

/// An action and all that it needs.
pub(super) struct Asked {
    pub(super) inputs: Snapshot,
    pub(super) command: (Digest, Vec<u8>),
    pub(super) action: (Digest, Vec<u8>),
}

pub(super) fn prepare(context: &Context, flags: &cli::ReapiExec) -> Result<Asked, Error> {
    let inputs = input_root(context, flags)?;
    let command = encode(&command(flags)?);
    let mut action = Action {
        command_digest: Some(to_reapi_digest(command.0)),
        input_root_digest: Some(to_reapi_digest(inputs.root)),
        do_not_cache: flags.no_cache,
        platform: platform(flags)?,
        ..Action::default()
    };
    if let Some(timeout) = flags.timeout {
        let to = action.timeout.get_or_insert_default();
        to.seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        to.nanos = i32::try_from(timeout.subsec_nanos()).unwrap_or(0);
    }
    Ok(Asked { inputs, command, action: encode(&action) })
}

fn encode(message: &impl prost::Message) -> (Digest, Vec<u8>) {
    let bytes = message.encode_to_vec();
    (Digest::of(&bytes), bytes)
}

/// Everything below the directory, ignored or not: an action sees what it is given.
fn input_root(context: &Context, flags: &cli::ReapiExec) -> Result<Snapshot, Error> {
    let Some(root) = &flags.input else {
        let (root, nothing) = (Digest::EMPTY, Vec::new);
        return Ok(Snapshot {
            root,
            directories: Vec::new(),
            files: Vec::new(),
            made_up: Vec::new(),
            ignore_files: Vec::new(),
            keep: nothing(),
            warnings: nothing(),
            total_files: 0,
            total_bytes: 0,
            hashed_files: 0,
        });
    };
    let failed = |cause: io::Error| Error::file("read the input root", root, cause);
    let root = root.canonicalize().map_err(failed)?;
    let cache_file = context.settings.dirs.tree_cache(&root);
    let mut cache = StatCache::load(&cache_file);
    let options = SnapshotOptions { use_gitignore: false, ..SnapshotOptions::default() };
    let walked = snapshot(&root, &options, &mut cache).map_err(|e| failed(io::Error::other(e)))?;
    // Only a cache: without it the next call reads every file.
    let _ = cache.save(&cache_file);
    crate::push::tell_warnings(context.printer, &walked);
    Ok(walked)
}

/// In canonical order, which the digest depends on.
#[expect(deprecated, reason = "servers of 2.1 look for the platform in the command")]
fn command(flags: &cli::ReapiExec) -> Result<Command, Error> {
    let text = |word: &std::ffi::OsString| {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::usage(format!("{word:?} is not UTF-8 text"), "actions have text alone as arguments"))
    };
    let mut environment_variables = Vec::new();
    for (name, value) in pairs("-e", &flags.env)? {
        environment_variables.push(command::EnvironmentVariable { name, value });
    }
    environment_variables.sort_by(|a, b| a.name.cmp(&b.name));
    let mut output_paths = flags.output.clone();
    output_paths.sort_unstable();
    output_paths.dedup();
    Ok(Command {
        arguments: flags.words.iter().map(text).collect::<Result<_, _>>()?,
        environment_variables,
        output_paths,
        platform: platform(flags)?,
        working_directory: flags.dir.clone().unwrap_or_default(),
        ..Command::default()
    })
}

fn platform(flags: &cli::ReapiExec) -> Result<Option<Platform>, Error> {
    let mut pairs = pairs("-platform", &flags.platform)?;
    pairs.sort_unstable();
    let properties: Vec<_> = pairs.into_iter().map(|(name, value)| platform::Property { name, value }).collect();
    Ok((!properties.is_empty()).then_some(Platform { properties }))
}

fn pairs(flag: &str, given: &[String]) -> Result<Vec<(String, String)>, Error> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("{flag} {text}: not a NAME=VALUE"), SHAPE)),
    };
    given.iter().map(pair).collect()
}
