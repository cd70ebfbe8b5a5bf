//! What is written down before a command is asked for, so that another process can go on with it.

use super::member::First;
use crate::cli;
use crate::commands::Context;
use crate::error::Error;
use crate::fetch::file_name;
use crate::follow::Begin;
use crate::output_file::OutputFile;
use crate::run_record::{Plan, RunRecord, Runs};
use motefarm_proto::mote;
use prost::Message as _;
use std::path::{Path, PathBuf};

/// Where the output of the one instance goes.
pub(super) fn output_of_one(run: &cli::Run, instance: &str, runs: &Runs, exec_id: &str) -> Result<PathBuf, Error> {
    match &run.output {
        Some(path) => absolute(path),
        None if run.collect => absolute(Path::new(&format!("{}.stdout", file_name(instance)))),
        None => Ok(runs.default_output(exec_id)),
    }
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|e| Error::file("find", path, e))
}

/// The record of a command about to be started.
pub(super) fn record(
    context: &Context,
    run: &cli::Run,
    instance: &str,
    exec_id: &str,
    spec: &mote::ExecSpec,
    output: PathBuf,
) -> Result<RunRecord, Error> {
    let collect = match run.collect {
        true => Some(absolute(Path::new(&format!("{}.tar.gz", file_name(instance))))?),
        false => None,
    };
    let plan = (run.until.is_some() || collect.is_some()).then(|| Plan {
        until: run.until.clone(),
        collect,
        spec: hex::encode(spec.encode_to_vec()),
        after: None,
    });
    Ok(RunRecord {
        exec_id: exec_id.to_owned(),
        instance: instance.to_owned(),
        server: context.settings.place.name().to_owned(),
        command: std::iter::once(&spec.program).chain(&spec.args).cloned().collect(),
        fresh: is_filled(&output),
        output,
        batch: None,
        plan,
    })
}

/// Whether a file holds something that a new run's output must replace.
pub(super) fn is_filled(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
}

/// What is said of the place.
pub(super) fn place(run: &cli::Run, record: &RunRecord) -> String {
    let shown = match (run.collect, record.output.file_name()) {
        (true, Some(name)) => Path::new(name),
        _ => &record.output,
    };
    match run.collect {
        true => format!("Writing output to {}...", shown.display()),
        false => format!("output in {}", shown.display()),
    }
}

/// A run that never began leaves nothing: no record, and no file but one the user named.
pub(super) fn unwind(runs: &Runs, record: &RunRecord, error: Error) -> Error {
    runs.forget(&record.exec_id);
    if record.output == runs.default_output(&record.exec_id) || record.batch.is_some() {
        let _ = std::fs::remove_file(&record.output);
    }
    error
}

/// How to go on with a run from its record.
pub(crate) fn first_of(runs: &Runs, record: &RunRecord) -> Result<First, Error> {
    let begin = match &record.plan {
        // Its request may never have left: asking for it again starts nothing twice.
        Some(plan) => Begin::Start { instance: record.instance.clone(), spec: Box::new(spec_of(plan, record)?) },
        None => Begin::Attach { follow: true },
    };
    if let Some(before) = record.plan.as_ref().and_then(|plan| plan.after.as_deref()) {
        runs.forget(before);
    }
    let file = if record.fresh {
        let file = OutputFile::create(&record.output)?;
        runs.note_begun(&record.exec_id);
        file
    } else {
        OutputFile::resume(&record.output)?
    };
    Ok(First { begin, file, stdin: None })
}

/// What a plan runs.
pub(super) fn spec_of(plan: &Plan, record: &RunRecord) -> Result<mote::ExecSpec, Error> {
    let decoded = hex::decode(&plan.spec).ok().and_then(|bytes| mote::ExecSpec::decode(bytes.as_slice()).ok());
    decoded.ok_or_else(|| Error::Local {
        doing: format!("go on with {}", record.exec_id),
        cause: std::io::Error::other("its record is damaged"),
        next: Some(format!("mote logs {} shows what it wrote", record.exec_id)),
    })
}
