//! One `ExecReq`'s walk: its content in, its inputs found, its action cached or run, its outputs out.

use super::action::{self, ActionRules, Outline, Prepared};
use super::decode::Received;
use super::refusal::{MissingInput, Refusal};
use super::response::{self, OutputFile};
use super::running::Running;
use super::toolchain::ToolKind;
use crate::access::Who;
use crate::admission::{Held, Pool};
use crate::backend::execute::{NotRun, Origin, Ran};
use crate::backend::{Fault, Stage};
use crate::content::Content;
use crate::file_blob::{self, HashKey};
use crate::hash_map::Entry;
use crate::local_inputs::{self, LocalInputs, Wanted};
use crate::records::Trace;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::goma::exec_req::CachePolicy;
use motefarm_proto::goma::exec_resp::CacheSource;
use motefarm_proto::goma::{ExecReq, ExecResp, ExecResult, ExecutionStats, Moment};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// Times an action is sent again because the server says that content is gone.
const MAX_RUNS: u32 = 3;

/// What an operator decides of compiles.
#[derive(Debug, Clone)]
pub struct CompileRules {
    /// How an action is made.
    pub action: ActionRules,
    /// Content in one answer.
    pub response_bytes: u64,
    /// Longest time for an answer; clients wait 610 s.
    pub deadline: Duration,
    /// Whether a compile goes on when its client left.
    pub detach: bool,
    /// Whether the bridge's own user's inputs are read where they lie.
    pub read_local: bool,
}

/// See the module.
pub struct Compiler {
    rules: CompileRules,
    content: Content,
    running: Running,
    local: LocalInputs,
    /// Bounds the contents of answers.
    answers: Pool,
}

/// A request after its own content is stored.
struct Job<'a> {
    request: &'a ExecReq,
    outline: Outline,
    prepared: Prepared,
    /// The digest of each shipped input.
    contents: Vec<Digest>,
    origin: Origin,
    /// Whether we see the files that the client sees.
    is_local: bool,
}

impl Compiler {
    /// By these rules.
    pub fn new(rules: CompileRules, content: Content, answers: Pool) -> Self {
        Self { rules, content, running: Running::default(), local: LocalInputs::default(), answers }
    }

    /// Where the content is.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Actions that run.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Answers a request. `held`: what it holds of the memory for requests, given back once its content is
    /// stored. Dropping the future stops the work, but for an action that is detached.
    pub async fn compile(&self, received: Received<ExecReq>, held: Held, who: &Who, trace: &mut Trace) -> ExecResp {
        let id = received.request.requester_info.as_ref().map(|info| info.compiler_proxy_id().to_owned());
        let is_local = self.rules.read_local && *who == Who::OwnUser;
        let walk = self.walk(received, held, is_local, trace);
        let walked = tokio::time::timeout(self.rules.deadline, walk).await.unwrap_or_else(|_| {
            let message =
                format!("not done within {} s; ask again, it may go on meanwhile", self.rules.deadline.as_secs());
            Err(Fault::new(Stage::Execute, Code::DeadlineExceeded, message).into())
        });
        let answer = walked.unwrap_or_else(|refusal| refused(refusal, trace));
        ExecResp { requester_compiler_proxy_id: id, ..answer }
    }

    async fn walk(
        &self,
        received: Received<ExecReq>,
        held: Held,
        is_local: bool,
        trace: &mut Trace,
    ) -> Result<ExecResp, Refusal> {
        let Received { mut request, raw } = received;
        // Content first, whatever becomes of the rest: the client has five attempts in all.
        let refused = trace.stage(Stage::Ingest, self.ingest(&mut request, raw)).await;
        drop(held);
        let refused = refused?;
        let outline = Outline::of(&request, &self.rules.action)?;
        trace.output(outline.outputs.first().map_or("", |output| output.filename.as_str()));
        let found = self.contents(&request, &outline, &refused, is_local);
        let (contents, read) = trace.stage(Stage::Inputs, found).await?;
        trace.read_local(read);
        let dialect = trace.stage(Stage::Capabilities, self.content.backend().abilities()).await?.dialect;
        let prepared = action::prepare(&request, &outline, &contents, &self.rules.action, dialect)?;
        let info = request.requester_info.as_ref();
        let origin = Origin::new(
            info.map(|info| info.compiler_proxy_id()).unwrap_or_default(),
            info.map(|info| info.build_id()).unwrap_or_default(),
        );
        trace.action(prepared.action, &outline.layout);
        self.serve(&Job { request: &request, outline, prepared, contents, origin, is_local }, trace).await
    }

    async fn serve(&self, job: &Job<'_>, trace: &mut Trace) -> Result<ExecResp, Refusal> {
        let policy = job.request.cache_policy();
        let mut skip_cache = policy == CachePolicy::StoreOnly;
        if !skip_cache {
            let cached = self.content.backend().cached_result(job.prepared.action, &job.origin);
            if let Some(result) = trace.stage(Stage::Lookup, cached).await {
                match self.answer(job, &Ran { result, cached: true }, CacheSource::MemCache, trace).await {
                    Ok(answer) => return Ok(answer),
                    // A result whose content is gone is no result.
                    Err(Refusal::Trouble(fault)) if matches!(fault.code, Code::NotFound | Code::DataLoss) => {
                        tracing::warn!(%fault, "the cached result is of no use; the action is run");
                        skip_cache = true;
                    }
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        let ran = self.run(job, policy, skip_cache, trace).await?;
        let source = if ran.cached { CacheSource::StorageCache } else { CacheSource::NoCache };
        let answer = self.answer(job, &ran, source, trace).await?;
        if policy == CachePolicy::LookupAndStoreSuccess && ran.result.exit_code == 0 {
            self.keep(job, &ran).await;
        }
        Ok(answer)
    }

    /// Stores what came with the request. For each input whose content is no use: why. An error: the server
    /// did not take it, and sending it again would not help.
    async fn ingest(&self, request: &mut ExecReq, raw: Vec<Option<Bytes>>) -> Result<HashMap<usize, String>, Fault> {
        let mut refused = HashMap::new();
        let (mut indices, mut blobs) = (Vec::new(), Vec::new());
        for (index, (input, raw)) in request.input.iter_mut().zip(raw).enumerate() {
            let Some(content) = input.content.take() else { continue };
            match file_blob::verify(content, raw.as_deref(), Some(&input.hash_key)) {
                Ok(blob) => {
                    indices.push(index);
                    blobs.push(blob);
                }
                Err(error) => {
                    tracing::warn!(input = input.filename(), %error, "content is not taken");
                    refused.insert(index, error.to_string());
                }
            }
        }
        let stored = self.content.store(Stage::Ingest, blobs).await;
        for (index, stored) in indices.into_iter().zip(stored) {
            match stored {
                Ok(()) => {}
                // A list of chunks some of which are not here.
                Err(fault) if fault.code == Code::NotFound => {
                    refused.insert(index, fault.message);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(refused)
    }

    /// The digest of each shipped input, and how many were read here; or all that are missing.
    async fn contents(
        &self,
        request: &ExecReq,
        outline: &Outline,
        refused: &HashMap<usize, String>,
        is_local: bool,
    ) -> Result<(Vec<Digest>, usize), Refusal> {
        let mut keys = Vec::with_capacity(outline.layout.inputs.len());
        for input in &outline.layout.inputs {
            let input = &request.input[input.index];
            keys.push(
                HashKey::parse(&input.hash_key).ok_or_else(|| {
                    Refusal::never(format!("input {:?} has a hash key that is none", input.filename()))
                })?,
            );
        }
        let mut read = 0;
        let mut known = self.content.entries(Stage::Inputs, keys.clone()).await?;
        if is_local && known.contains(&None) {
            let unknown = outline.layout.inputs.iter().zip(&keys).zip(&known).filter(|(_, entry)| entry.is_none());
            let unknown = unknown.map(|((input, key), _)| (input.index, *key));
            read = self.read_local(Stage::Inputs, request, unknown).await?.len();
            if read > 0 {
                known = self.content.entries(Stage::Inputs, keys).await?;
            }
        }
        let (mut contents, mut missing) = (Vec::with_capacity(known.len()), Vec::new());
        for (input, entry) in outline.layout.inputs.iter().zip(known) {
            let filename = request.input[input.index].filename();
            match entry {
                Some(Entry::File(digest) | Entry::Meta { whole: digest, .. }) => contents.push(digest),
                Some(Entry::Chunk { .. }) => {
                    return Err(Refusal::never(format!("input {filename:?} has the hash key of a chunk")));
                }
                None => {
                    let reason = refused.get(&input.index).cloned().unwrap_or_else(|| "not known here".to_owned());
                    missing.push(MissingInput { filename: filename.to_owned(), reason });
                }
            }
        }
        if missing.is_empty() { Ok((contents, read)) } else { Err(Refusal::Missing(missing)) }
    }

    /// Stores those of these inputs that lie here as the client had them; answers which.
    async fn read_local(
        &self,
        stage: Stage,
        request: &ExecReq,
        inputs: impl Iterator<Item = (usize, HashKey)>,
    ) -> Result<HashSet<HashKey>, Fault> {
        let mut seen = HashSet::new();
        let wanted = inputs.filter(|(_, key)| seen.insert(*key)).filter_map(|(index, key)| {
            let path = local_inputs::place(request, request.input[index].filename())?;
            Some(Wanted { key, path })
        });
        self.local.store(&self.content, stage, wanted.collect()).await
    }

    /// Uploads what the action needs and runs it. Unless `skip_cache`, the server looks once more whether it has
    /// the result: a run of somebody else may have ended since we did.
    async fn run(
        &self,
        job: &Job<'_>,
        policy: CachePolicy,
        skip_cache: bool,
        trace: &mut Trace,
    ) -> Result<Arc<Ran>, Refusal> {
        let keep = matches!(policy, CachePolicy::LookupAndStore | CachePolicy::StoreOnly);
        let action = if keep { job.prepared.action } else { job.prepared.uncached };
        let mut runs = 1;
        loop {
            let read = trace.stage(Stage::Upload, self.upload(job)).await?;
            trace.read_local(read);
            let (backend, origin) = (self.content.backend().clone(), job.origin.clone());
            let run = async move { backend.execute(action, skip_cache, &origin).await.map(Arc::new) };
            let run = self.running.join(action, skip_cache, self.rules.detach, run);
            match trace.stage(Stage::Execute, run).await {
                Ok(ran) => return Ok(ran),
                Err(NotRun::Incomplete(fault)) if runs < MAX_RUNS => {
                    tracing::info!(%fault, runs, "the server lost content meanwhile, or has no worker; looking again");
                    runs += 1;
                }
                Err(NotRun::Incomplete(fault)) => return Err(with_platform(fault, job).into()),
                Err(NotRun::Failed(fault)) => return Err(fault.into()),
                Err(NotRun::TimedOut(fault)) => {
                    let seconds = self.rules.action.timeout.as_secs();
                    return Err(Refusal::Never(format!(
                        "the compile did not end within {seconds} s on the worker \
                        ([action] timeout in the bridge's configuration): {}",
                        fault.message
                    )));
                }
            }
        }
    }

    /// Puts the action's messages into the CAS; inputs that are gone from it are read here, which is answered how
    /// often, or are the client's to send again.
    async fn upload(&self, job: &Job<'_>) -> Result<usize, Refusal> {
        let tools = job.outline.layout.tools.iter().filter_map(|tool| match &tool.kind {
            ToolKind::File { digest, .. } => Some((*digest, tool)),
            ToolKind::Link(_) => None,
        });
        let tools: Vec<_> = tools.collect();
        let inputs = job.contents.iter().copied().chain(tools.iter().map(|(digest, _)| *digest));
        let inputs: Vec<Digest> = inputs.collect();
        let gone = self.content.backend().missing(Stage::Upload, &inputs).await?;
        let gone_inputs =
            job.outline.layout.inputs.iter().zip(&job.contents).filter(|(_, digest)| gone.contains(digest));
        let gone_inputs = gone_inputs.filter_map(|(input, _)| {
            let key = HashKey::parse(&job.request.input[input.index].hash_key)?;
            Some((input.index, key))
        });
        let gone_inputs: Vec<(usize, HashKey)> = gone_inputs.collect();
        let brought = if job.is_local && !gone_inputs.is_empty() {
            self.read_local(Stage::Upload, job.request, gone_inputs.iter().copied()).await?
        } else {
            HashSet::new()
        };
        let missing =
            gone_inputs.into_iter().filter(|(_, key)| !brought.contains(key)).map(|(index, _)| MissingInput {
                filename: job.request.input[index].filename().to_owned(),
                reason: "known, but gone from the server's store".to_owned(),
            });
        let missing: Vec<MissingInput> = missing.collect();
        let sent: HashSet<Digest> = job.contents.iter().copied().collect();
        if let Some((digest, tool)) = tools.iter().find(|(digest, _)| gone.contains(digest) && !sent.contains(digest)) {
            return Err(Refusal::never(format!(
                "the toolchain file {} ({digest}) is not in the server's store, and the request does not bring it \
                 as an input",
                tool.spelled
            )));
        }
        if !missing.is_empty() {
            return Err(Refusal::Missing(missing));
        }
        self.content.backend().put(Stage::Upload, &job.prepared.messages).await?;
        Ok(brought.len())
    }

    async fn answer(
        &self,
        job: &Job<'_>,
        ran: &Ran,
        source: CacheSource,
        trace: &mut Trace,
    ) -> Result<ExecResp, Refusal> {
        let (result, stats) = trace
            .stage(Stage::Outputs, async {
                let files: Vec<OutputFile> = response::files(self.content.backend(), &job.outline, &ran.result).await?;
                let bytes = response::inline_bytes(&files, self.rules.response_bytes);
                let _held = self.answers.hold(bytes).await;
                let result = response::build(&self.content, &ran.result, files, self.rules.response_bytes).await?;
                Ok::<_, Refusal>((result, stats(ran)))
            })
            .await?;
        trace.finished(result.exit_status, source);
        Ok(ExecResp {
            result: Some(result),
            cache_key: Some(response::cache_key(job.prepared.action)),
            cache_hit: Some(source.into()),
            execution_stats: stats,
            ..ExecResp::default()
        })
    }

    /// Under the key by which it will be looked up. Not every server lets us.
    async fn keep(&self, job: &Job<'_>, ran: &Ran) {
        let backend = self.content.backend();
        if !backend.abilities().await.is_ok_and(|abilities| abilities.takes_results) {
            return;
        }
        if let Err(fault) = backend.store_result(job.prepared.action, &ran.result, &job.origin).await {
            tracing::warn!(%fault, "a result could not be put into the action cache");
        }
    }
}

fn with_platform(fault: Fault, job: &Job<'_>) -> Fault {
    let asked = super::platform::describe(&job.outline.platform);
    Fault { message: format!("{} (the action asks for a worker with {asked})", fault.message), ..fault }
}

fn stats(ran: &Ran) -> Option<ExecutionStats> {
    let metadata = ran.result.execution_metadata.as_ref()?;
    let moment = |at: Option<&bazel_remote_apis::google::protobuf::Timestamp>| {
        at.map(|at| Moment { seconds: Some(at.seconds), nanos: Some(at.nanos) })
    };
    Some(ExecutionStats {
        execution_start_timestamp: moment(metadata.execution_start_timestamp.as_ref()),
        execution_completed_timestamp: moment(metadata.execution_completed_timestamp.as_ref()),
    })
}

/// In the client's words. Never an error of HTTP: one of those makes others fail that have nothing to do with it.
fn refused(refusal: Refusal, trace: &mut Trace) -> ExecResp {
    trace.refused(&refusal);
    let failed = ExecResult { exit_status: -1, ..ExecResult::default() };
    let answer = ExecResp { result: Some(failed), ..ExecResp::default() };
    match refusal {
        Refusal::Missing(missing) => {
            let (missing_input, missing_reason) =
                missing.into_iter().map(|input| (input.filename, input.reason)).unzip();
            ExecResp { missing_input, missing_reason, ..answer }
        }
        Refusal::Never(why) => ExecResp {
            error: Some(motefarm_proto::goma::exec_resp::ExecError::BadRequest.into()),
            error_message: vec![trace.sign(&why)],
            ..answer
        },
        Refusal::Trouble(fault) => ExecResp { error_message: vec![trace.sign(&fault.to_string())], ..answer },
    }
}
