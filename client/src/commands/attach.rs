//! `mote attach`: go on watching an execution, exactly where its output file ends.

use crate::cli;
use crate::commands::run::conclude;
use crate::commands::{Context, execs};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::follow::{self, Begin, Show, Watch};
use crate::output_file::OutputFile;
use crate::printer::Passthrough;
use crate::run_record::RunRecord;
use crate::signals::Signals;

pub(crate) async fn act(context: &Context, attach: cli::Attach) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let runs = context.runs();
    let farm = context.connect().await?;
    let meant = match &attach.target {
        Some(word) => execs::resolve(&farm, &runs, word).await?,
        None => match runs.newest(farm.address(), false) {
            Some(found) => execs::Meant { exec_id: found.record.exec_id.clone(), found: Some(found) },
            None => {
                return Err(Error::usage(
                    "no run from this machine was interrupted",
                    "name an execution or an instance: mote attach INSTANCE",
                ));
            }
        },
    };
    let exec_id = meant.exec_id;
    let output = match (&attach.output, &meant.found) {
        (Some(path), _) => std::path::absolute(path).map_err(|e| Error::file("find", path, e))?,
        (None, Some(found)) => found.record.output.clone(),
        (None, None) => runs.default_output(&exec_id),
    };
    if meant.found.as_ref().is_none_or(|found| found.record.output != output) {
        // From now on it is this machine's too.
        runs.remember(&RunRecord {
            exec_id: exec_id.clone(),
            instance: meant.found.as_ref().map(|found| found.record.instance.clone()).unwrap_or_default(),
            server: farm.address().to_owned(),
            command: meant.found.map(|found| found.record.command).unwrap_or_default(),
            output: output.clone(),
        })?;
    }
    let file = if attach.output.is_some() { OutputFile::create(&output)? } else { OutputFile::resume(&output)? };
    let show = if printer.is_json() { Show::Nowhere } else { Show::Raw(Passthrough::open()?) };
    let already = if file.len() > 0 { format!(", from byte {}", file.len()) } else { String::new() };
    printer.message(format_args!("attached to {exec_id}{already}; output in {}", output.display()));
    let mut signals = Signals::listen()?;
    let begin = Begin::Attach { follow: true };
    let watch = Watch { exec_id: exec_id.clone(), begin, file: Some(file), show, stdin: None, owns: true };
    let end = follow::watch(&farm, printer, &mut signals, watch).await.map_err(|broken| {
        if broken.error.is_not_found() {
            // It is gone with its instance: nobody need try again.
            runs.note_end(&exec_id, ExitStatus::Farm.code());
        }
        broken.error
    })?;
    conclude(printer, &runs, &exec_id, Some(output), end)
}
