//! `mote run`: a command on an instance, its output here, its exit code ours.

mod spec;

use crate::cli;
use crate::commands::Context;
use crate::connection::{Farm, Place};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::follow::{self, Begin, Broken, End, Show, Stdin, Watch};
use crate::json;
use crate::output_file::OutputFile;
use crate::printer::{Passthrough, Printer};
use crate::run_record::{RunRecord, Runs};
use crate::signals::Signals;
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::mote;
use serde::Serialize;
use std::path::PathBuf;
use tonic::Status;
use uuid::Uuid;

/// One run in so many looks for old records: reading the folder costs more than the rest of the
/// program's own work.
const PRUNE_ONE_IN: u32 = 32;

#[derive(Serialize)]
pub(super) struct Body {
    pub(super) exec_id: String,
    /// Whether it still runs (detached, or left).
    pub(super) running: bool,
    #[serde(flatten)]
    pub(super) outcome: Option<json::Outcome>,
    pub(super) output_file: Option<PathBuf>,
}

pub(crate) async fn act(context: &Context, run: cli::Run) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let terminal = if printer.is_json() || run.detach { None } else { Some(Passthrough::open()?) };
    // Where the two end up in one file or terminal anyway, one pipe keeps their order exactly.
    let merge_output = terminal.as_ref().is_none_or(Passthrough::is_one_place);
    let (instance, spec) = spec::from_flags(&run, merge_output)?;
    let exec_id = Uuid::now_v7().to_string();
    let runs = context.runs();
    let output = match &run.output {
        Some(path) => std::path::absolute(path).map_err(|e| Error::file("find", path, e))?,
        None => runs.default_output(&exec_id),
    };
    let Place::Farm { address, .. } = &context.settings.place;
    let record = RunRecord {
        exec_id: exec_id.clone(),
        instance: instance.clone(),
        server: address.clone(),
        command: std::iter::once(&spec.program).chain(&spec.args).cloned().collect(),
        output: output.clone(),
    };
    // The files are made while the farm answers our hello.
    let (farm, file) = tokio::join!(context.connect(), async {
        runs.remember(&record)?;
        if run.detach { Ok(None) } else { OutputFile::create(&output).map(Some) }
    });
    let unwind = |error: Error| {
        runs.forget(&exec_id);
        if run.output.is_none() {
            let _ = std::fs::remove_file(&output);
        }
        error
    };
    let (farm, file) = match (farm, file) {
        (Ok(farm), Ok(file)) => (farm, file),
        (Err(error), _) | (_, Err(error)) => return Err(unwind(error)),
    };
    let Some(file) = file else {
        start_detached(&farm, &instance, &exec_id, spec)
            .await
            .map_err(|e| if may_have_begun(&e) { e } else { unwind(e) })?;
        let body = Body { exec_id: exec_id.clone(), running: true, outcome: None, output_file: None };
        printer.data(&body, || exec_id.clone())?;
        return Ok(ExitStatus::Success);
    };
    printer.message(format_args!("output in {}", output.display()));
    let mut signals = Signals::listen()?;
    let stdin = run.stdin.then(Stdin::open).transpose()?;
    let begin = Begin::Start { instance, spec: Box::new(spec) };
    let show = terminal.map_or(Show::Nowhere, Show::Raw);
    let watch = Watch { exec_id: exec_id.clone(), begin, file: Some(file), show, stdin, owns: true };
    let end = match follow::watch(&farm, printer, &mut signals, watch).await {
        Ok(end) => end,
        Err(Broken { error, started: false }) if !may_have_begun(&error) => return Err(unwind(error)),
        Err(Broken { error, .. }) => {
            if !error.is_not_found() {
                printer.warning(format_args!("it may still run; `mote attach {exec_id}` goes on with it"));
            }
            return Err(error);
        }
    };
    let status = conclude(printer, &runs, &exec_id, Some(output), end)?;
    if rand::random::<u32>().is_multiple_of(PRUNE_ONE_IN) {
        runs.prune(SystemClock.now());
    }
    Ok(status)
}

/// Whether the command may have begun in spite of the error: a refusal of the request itself says no.
fn may_have_begun(error: &Error) -> bool {
    use tonic::Code;
    let refused_at_once = [
        Code::NotFound,
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::AlreadyExists,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Unimplemented,
    ];
    !matches!(error, Error::Refused { code, .. } if refused_at_once.contains(code))
}

/// Says how it ended, remembers it, and turns it into our exit code.
pub(super) fn conclude(
    printer: Printer,
    runs: &Runs,
    exec_id: &str,
    output_file: Option<PathBuf>,
    end: End,
) -> Result<ExitStatus, Error> {
    let exec_id = exec_id.to_owned();
    let End::Outcome(outcome) = end else {
        printer.warning(format_args!("still running; mote attach {exec_id}"));
        if printer.is_json() {
            printer.json(&Body { exec_id, running: true, outcome: None, output_file })?;
        }
        return Ok(ExitStatus::Farm);
    };
    follow::explain(printer, &outcome);
    let code = outcome.shell_code();
    runs.note_end(&exec_id, code);
    if printer.is_json() {
        let outcome = Some(json::Outcome::from(&outcome));
        printer.json(&Body { exec_id, running: false, outcome, output_file })?;
    }
    Ok(ExitStatus::Command(code))
}

/// Returns once the farm has the command for good.
async fn start_detached(farm: &Farm, instance: &str, exec_id: &str, spec: mote::ExecSpec) -> Result<(), Error> {
    let request = mote::ExecuteRequest {
        instance: instance.to_owned(),
        exec_id: exec_id.to_owned(),
        spec: Some(spec),
        offset: 0,
    };
    farm.call(&format!("run the command on {instance}"), async |mut c| {
        let mut events = c.execute(request.clone()).await?.into_inner();
        match events.message().await? {
            Some(_) => Ok(tonic::Response::new(())),
            None => Err(Status::unavailable("")),
        }
    })
    .await
}
