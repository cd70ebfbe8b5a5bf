//! How runs ended: for people, for programs, and as our exit code.

use super::member::Finish;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::json;
use crate::printer::Printer;
use motefarm_core::exec::Ending;
use serde::Serialize;
use std::path::Path;

/// One run.
#[derive(Serialize)]
struct Run<'a> {
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_id: Option<&'a str>,
    /// Whether it still runs (detached, or left).
    running: bool,
    #[serde(flatten)]
    outcome: Option<json::Outcome>,
    output_file: Option<&'a Path>,
    /// Of `-until`.
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<bool>,
    /// Of `-collect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    collected: Option<&'a Path>,
    /// What `attach` still has to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<bool>,
    /// Of several: why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Runs<'a> {
    runs: Vec<Run<'a>>,
}

impl<'a> Run<'a> {
    fn new(finish: &'a Finish) -> Self {
        Self {
            instance: &finish.instance,
            exec_id: Some(&finish.exec_id),
            running: finish.outcome.is_none(),
            outcome: finish.outcome.as_ref().map(json::Outcome::from),
            output_file: Some(&finish.output),
            matched: finish.matched,
            collected: finish.collected.as_deref(),
            open: finish.open.then_some(true),
            problem: None,
        }
    }

    fn detached(instance: &'a str, exec_id: Option<&'a str>, problem: Option<String>) -> Self {
        Self {
            instance,
            exec_id,
            running: exec_id.is_some(),
            outcome: None,
            output_file: None,
            matched: None,
            collected: None,
            open: None,
            problem,
        }
    }
}

/// Tells how the one run ended, and turns it into our exit code.
pub(crate) fn conclude(printer: Printer, finish: &Finish) -> Result<ExitStatus, Error> {
    tell_left(printer, finish);
    if printer.is_json() {
        printer.json(&Run::new(finish))?;
    }
    Ok(match &finish.outcome {
        None => ExitStatus::Farm,
        Some(outcome) => ExitStatus::Command(outcome.shell_code()),
    })
}

fn tell_left(printer: Printer, finish: &Finish) {
    if finish.outcome.is_none() {
        printer.warning(format_args!("still running; mote attach {}", finish.exec_id));
    }
}

/// The same of several: 0 if all ended with 0, 255 if one is ours, else 1.
pub(super) fn conclude_all(printer: Printer, results: &[(String, Result<Finish, Error>)]) -> Result<ExitStatus, Error> {
    let mut status = ExitStatus::Success;
    let mut runs = Vec::with_capacity(results.len());
    for (instance, result) in results {
        match result {
            Ok(finish) => {
                tell_left(printer, finish);
                let ours =
                    finish.outcome.as_ref().is_none_or(|o| matches!(o.ending, Ending::Lost | Ending::OutputLimit));
                let failed = finish.outcome.as_ref().is_some_and(|o| o.shell_code() != 0);
                if ours {
                    status = ExitStatus::Farm;
                } else if failed && status == ExitStatus::Success {
                    status = ExitStatus::Command(1);
                }
                runs.push(Run::new(finish));
            }
            Err(error) => {
                printer.warning(format_args!("{instance}: {error}"));
                status = ExitStatus::Farm;
                runs.push(Run::detached(instance, None, Some(error.to_string())));
            }
        }
    }
    if printer.is_json() {
        printer.json(&Runs { runs })?;
    }
    Ok(status)
}

/// Prints what was started and left running: the id, or a line with name and id of each of several.
pub(super) fn detached(printer: Printer, started: &[(String, Result<String, Error>)]) -> Result<ExitStatus, Error> {
    let several = started.len() > 1;
    let mut status = ExitStatus::Success;
    for (instance, result) in started {
        match result {
            Ok(_) if printer.is_json() => {}
            Ok(exec_id) if several => printer.line(format_args!("{instance}\t{exec_id}"))?,
            Ok(exec_id) => printer.line(exec_id)?,
            Err(error) => {
                printer.warning(format_args!("{instance}: {error}"));
                status = ExitStatus::Farm;
            }
        }
    }
    if printer.is_json() {
        let run =
            |(instance, result): &'_ (String, Result<String, Error>)| -> (String, Option<String>, Option<String>) {
                (instance.clone(), result.as_ref().ok().cloned(), result.as_ref().err().map(ToString::to_string))
            };
        let all: Vec<_> = started.iter().map(run).collect();
        let mut runs: Vec<Run<'_>> =
            all.iter().map(|(instance, id, problem)| Run::detached(instance, id.as_deref(), problem.clone())).collect();
        match (several, runs.pop()) {
            (false, Some(only)) => printer.json(&only)?,
            (_, last) => {
                runs.extend(last);
                printer.json(&Runs { runs })?;
            }
        }
    }
    Ok(status)
}
