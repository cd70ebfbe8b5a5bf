//! `mote reapi exec`: one action on the farm, its input root a directory of ours.
//!
//! What the farm lacks is uploaded; if it still misses something when it comes to run it (evicted meanwhile),
//! that is uploaded again. A connection that breaks is made again, and the same action asked for: the farm joins
//! us to it if it runs, or answers from its cache if it has run.

mod action;
mod follow;
mod outputs;

use crate::cli;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::progress::Bar;
use crate::push::upload::{self, UploadError};
use crate::resume::LONG_PATIENCE;
use action::Asked;
use follow::Ended;
use motefarm_core::Digest;
use motefarm_proto::reapi::{self, ActionResult};
use serde::Serialize;
use std::io::Write as _;

const DOING: &str = "execute the action";
/// Times that inputs are uploaded anew because the farm lost them meanwhile.
const MAX_UPLOADS: u32 = 4;

#[derive(Serialize)]
struct Executed {
    exit_code: i32,
    cached: bool,
    action: String,
    worker: String,
    /// Paths of outputs that are here now.
    outputs: Vec<String>,
    stdout: String,
    stderr: String,
}

pub(super) async fn act(context: &Context, flags: cli::ReapiExec) -> Result<ExitStatus, Error> {
    let asked = action::prepare(context, &flags)?;
    let farm = context.connect().await?;
    let ended = run(context, &farm, &flags, &asked).await?;
    let result = ended.response.result.unwrap_or_default();
    let outputs = outputs::fetch(&farm, &result, &flags.into).await?;
    let stdout = text(&farm, &result.stdout_raw, result.stdout_digest.as_ref()).await?;
    let stderr = text(&farm, &result.stderr_raw, result.stderr_digest.as_ref()).await?;
    let printer = context.printer;
    if printer.is_json() {
        printer.json(&Executed {
            exit_code: result.exit_code,
            cached: ended.response.cached_result,
            action: asked.action.0.to_string(),
            worker: worker(&result),
            outputs,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })?;
    } else {
        printer.bytes(&stdout)?;
        // As the command wrote it: not a message of ours.
        let _ = std::io::stderr().write_all(&stderr);
        if ended.response.cached_result {
            printer.message("from the cache");
        }
    }
    // The wire has more than a process can end with; the farm's workers do not.
    Ok(ExitStatus::Command(u8::try_from(result.exit_code).unwrap_or(255)))
}

fn worker(result: &ActionResult) -> String {
    result.execution_metadata.as_ref().map(|metadata| metadata.worker.clone()).unwrap_or_default()
}

/// Uploads and executes until there is a result.
async fn run(context: &Context, farm: &Farm, flags: &cli::ReapiExec, asked: &Asked) -> Result<Ended, Error> {
    let mut retry = farm.retry(DOING, LONG_PATIENCE);
    let mut uploads = 0;
    loop {
        bring(context, farm, asked).await?;
        uploads += 1;
        let ended = loop {
            match follow::execute(farm, context.printer, asked, flags).await {
                Ok(ended) => break ended,
                Err(status) => retry.wait(&status).await?,
            }
        };
        retry.contact();
        match ended.failure() {
            None => return Ok(ended),
            // Evicted between upload and run.
            Some(_) if !ended.missing().is_empty() && uploads < MAX_UPLOADS => {}
            Some(status) => return Err(Error::refused(DOING, &status)),
        }
    }
}

/// Has the farm hold all that the action needs.
async fn bring(context: &Context, farm: &Farm, asked: &Asked) -> Result<(), Error> {
    let own = [asked.action.0, asked.command.0];
    let mut wanted = upload::find_missing(farm, asked.inputs.digests().chain(own)).await?;
    let messages = [&asked.action, &asked.command].into_iter().filter(|(digest, _)| wanted.remove(digest));
    let messages: Vec<_> = messages.map(|(digest, bytes)| (*digest, bytes.clone())).collect();
    put(farm, messages).await?;
    if wanted.is_empty() {
        return Ok(());
    }
    let bytes = wanted.iter().map(Digest::size_bytes).sum();
    let bar = Bar::bytes(context.printer, "upload", Some(bytes));
    let uploaded = upload::upload(farm, &asked.inputs, wanted, &bar).await;
    bar.done();
    uploaded.map(|_| ()).map_err(|error| match error {
        UploadError::Changed(path) => Error::Local {
            doing: format!("upload {}", path.display()),
            cause: std::io::Error::other("it changed while it was read"),
            next: Some("execute again when nothing writes the input root".to_owned()),
        },
        UploadError::Failed(error) => error,
    })
}

async fn put(farm: &Farm, messages: Vec<(Digest, Vec<u8>)>) -> Result<(), Error> {
    const DOING: &str = "upload the action";
    let entry = |(digest, data)| reapi::batch_update_blobs_request::Request {
        digest: Some(motefarm_proto::convert::to_reapi_digest(digest)),
        data,
        ..Default::default()
    };
    let requests = messages.into_iter().map(entry).collect();
    let request = reapi::BatchUpdateBlobsRequest { requests, ..Default::default() };
    let answer = farm.call(DOING, async |_| farm.storage().batch_update_blobs(request.clone()).await).await?;
    let bad = answer.responses.into_iter().filter_map(|entry| entry.status).find(|status| status.code != 0);
    bad.map_or(Ok(()), |status| Err(Error::refused(DOING, &tonic::Status::new(status.code.into(), status.message))))
}

/// What the command wrote, wherever the result has it.
async fn text(farm: &Farm, raw: &[u8], digest: Option<&reapi::Digest>) -> Result<Vec<u8>, Error> {
    match digest {
        Some(digest) if raw.is_empty() && digest.size_bytes > 0 => outputs::read(farm, digest).await,
        _ => Ok(raw.to_vec()),
    }
}
