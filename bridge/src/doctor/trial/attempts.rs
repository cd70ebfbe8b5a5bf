//! A compile as the client drives it: five attempts, with more content each time.

use super::super::connection;
use super::super::server::Server;
use super::OBJECT;
use super::compile::{Compile, Input};
use crate::caller::Caller;
use crate::file_blob::Blob;
use anyhow::Context as _;
use http::Method;
use motefarm_proto::goma::exec_resp::ExecError;
use motefarm_proto::goma::{ExecResp, FileBlob, LookupFileReq, LookupFileResp, StoreFileReq, StoreFileResp};
use std::collections::HashSet;
use std::time::Duration;

/// Attempts in all.
const ATTEMPTS: i32 = 5;
/// Content of one request, before the last file.
const EMBED_BYTES: usize = 1 << 20;
/// Chunks of one store, and keys of one lookup.
const TOGETHER: usize = 5;

/// What became of it.
#[derive(Debug)]
pub(super) enum Tried {
    /// The compiler ran.
    Ran(Ran),
    /// Not to be asked again.
    Refused(String),
    /// Not done, though asked again and again.
    Failed(String),
    /// Names of inputs that the server still lacks.
    Lacking(Vec<String>),
    /// The call itself failed.
    NoAnswer(String),
}

/// A compiler that ran.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its exit code.
    pub exit_status: i32,
    /// Its words.
    pub stderr: String,
    /// What it left.
    pub object: Option<Vec<u8>>,
    /// How many requests it took.
    pub attempts: i32,
}

/// Compiles.
pub(super) async fn compile(server: &Server, compile: &Compile, patience: Duration) -> Tried {
    let walked = async {
        let stream = connection::open(server).await.map_err(|finding| anyhow::anyhow!(finding.problem))?;
        let caller = Caller::over(stream, &server.host, server.authorization.clone()).await?.patient(patience);
        Client { server, caller }.walk(compile).await
    };
    walked.await.unwrap_or_else(|error| Tried::NoAnswer(format!("{error:#}")))
}

struct Client<'a> {
    server: &'a Server,
    caller: Caller,
}

impl Client<'_> {
    async fn walk(&mut self, compile: &Compile) -> anyhow::Result<Tried> {
        let mut missing: HashSet<String> = HashSet::new();
        let mut last = Tried::Failed("it was never asked".to_owned());
        for attempt in 0..ATTEMPTS {
            let embedded = self.choose(&compile.inputs, &missing).await?;
            let answer: ExecResp = self.call("/e", &compile.attempt(attempt, &embedded)).await?;
            let words = answer.error_message.join("; ");
            if !answer.missing_input.is_empty() {
                last = Tried::Lacking(answer.missing_input.clone());
                missing = answer.missing_input.into_iter().collect();
            } else if answer.error() == ExecError::BadRequest {
                return Ok(Tried::Refused(words));
            } else if !answer.error_message.is_empty() {
                last = Tried::Failed(words);
            } else {
                return self.ran(answer, attempt + 1).await;
            }
        }
        Ok(last)
    }

    /// Which contents go along: all the first time, as the trial's files are new; then what was missing, the
    /// small ones first, until it is enough. Chunks go by themselves before.
    async fn choose(&mut self, inputs: &[Input], missing: &HashSet<String>) -> anyhow::Result<Vec<bool>> {
        let mut embedded = vec![false; inputs.len()];
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|n| inputs[*n].blobs.last().map_or(0, content_bytes));
        let mut bytes = 0;
        for n in order {
            let input = &inputs[n];
            let is_long = input.blobs.len() > 1;
            let is_missing = missing.contains(&input.name);
            if bytes > EMBED_BYTES || !(is_missing || missing.is_empty() && !is_long) {
                continue;
            }
            if is_long {
                self.store(&input.blobs[..input.blobs.len() - 1]).await?;
            }
            bytes += input.blobs.last().map_or(0, content_bytes);
            embedded[n] = true;
        }
        Ok(embedded)
    }

    async fn store(&mut self, chunks: &[Blob]) -> anyhow::Result<()> {
        for some in chunks.chunks(TOGETHER) {
            let blob = some.iter().cloned().map(Blob::into_message).collect();
            let answer: StoreFileResp = self.call("/s", &StoreFileReq { blob, requester_info: None }).await?;
            let taken = answer.hash_key.iter().filter(|key| !key.is_empty()).count();
            anyhow::ensure!(taken == some.len(), "the server took {taken} of {} pieces of a file", some.len());
        }
        Ok(())
    }

    async fn ran(&mut self, answer: ExecResp, attempts: i32) -> anyhow::Result<Tried> {
        let result = answer.result.context("the answer holds neither a result nor an error")?;
        let output = result.output.iter().find(|output| output.filename() == OBJECT);
        let object = match output.and_then(|output| output.blob.clone()) {
            Some(blob) => Some(self.content(blob).await?),
            None => None,
        };
        let stderr = String::from_utf8_lossy(result.stderr_buffer()).trim().to_owned();
        Ok(Tried::Ran(Ran { exit_status: result.exit_status, stderr, object, attempts }))
    }

    /// Of an output: its own, or what its keys lead to, in order.
    async fn content(&mut self, blob: FileBlob) -> anyhow::Result<Vec<u8>> {
        let keys = match Blob::try_from(blob)? {
            Blob::File(content) | Blob::Chunk { content, .. } => return Ok(content.to_vec()),
            Blob::Meta { chunks, .. } => chunks,
            Blob::Reference { file, .. } => vec![file],
        };
        let mut whole = Vec::new();
        for some in keys.chunks(TOGETHER) {
            let hash_key = some.iter().map(ToString::to_string).collect();
            let answer: LookupFileResp = self.call("/l", &LookupFileReq { hash_key, requester_info: None }).await?;
            for blob in answer.blob {
                match Blob::try_from(blob)? {
                    Blob::File(content) | Blob::Chunk { content, .. } => whole.extend_from_slice(&content),
                    Blob::Meta { .. } | Blob::Reference { .. } => anyhow::bail!("a list was looked up and is a list"),
                }
            }
        }
        Ok(whole)
    }

    async fn call<Answer: prost::Message + Default>(
        &mut self,
        call: &str,
        request: &impl prost::Message,
    ) -> anyhow::Result<Answer> {
        let answer = self.caller.call(Method::POST, &self.server.target(call), request.encode_to_vec()).await?;
        Answer::decode(answer)
            .with_context(|| format!("{} does not answer with Goma's messages", self.server.url(call)))
    }
}

fn content_bytes(blob: &Blob) -> usize {
    match blob {
        Blob::File(content) | Blob::Chunk { content, .. } => content.len(),
        Blob::Meta { .. } | Blob::Reference { .. } => 0,
    }
}
