//! `mote attach`: go on with runs, exactly where their output files end.

use crate::cli;
use crate::commands::run::{self, Member, Screen};
use crate::commands::{Context, execs};
use crate::error::Error;
use crate::exit_code::ExitStatus;
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
            Some(found) => {
                let together = found.record.batch.as_deref().map(|batch| runs.batch(batch)).unwrap_or_default();
                if together.len() > 1 {
                    return run::go_on_with(context, &farm, &runs, together).await;
                }
                execs::Meant { exec_id: found.record.exec_id.clone(), found: Some(found) }
            }
            None => {
                return Err(Error::usage(
                    "no run from this machine was interrupted",
                    "name an execution or an instance: mote attach INSTANCE",
                ));
            }
        },
    };
    let exec_id = meant.exec_id;
    let output = match &attach.output {
        Some(path) => Some(std::path::absolute(path).map_err(|e| Error::file("find", path, e))?),
        None => None,
    };
    let known = meant.found.map(|found| found.record);
    let record = match (known, output) {
        (Some(record), None) => record,
        (known, output) => {
            // From now on it is this machine's too, or has another place.
            let fresh = output.is_some();
            let output = output.unwrap_or_else(|| runs.default_output(&exec_id));
            let record = match known {
                Some(record) => RunRecord { output, fresh, ..record },
                None => RunRecord {
                    exec_id: exec_id.clone(),
                    instance: attach.target.clone().filter(|word| *word != exec_id).unwrap_or_default(),
                    server: farm.address().to_owned(),
                    command: Vec::new(),
                    output,
                    fresh,
                    batch: None,
                    plan: None,
                },
            };
            runs.remember(&record)?;
            record
        }
    };
    let first = run::first_of(&runs, &record)?;
    let screen = if printer.is_json() { Screen::Nowhere } else { Screen::own(Passthrough::open()?) };
    let already = if first.known() > 0 { format!(", from byte {}", first.known()) } else { String::new() };
    printer.message(format_args!("attached to {exec_id}{already}; output in {}", record.output.display()));
    let mut signals = Signals::listen()?;
    let member = Member { farm: &farm, printer, runs: &runs, record, screen: &screen, several: false };
    let finish = member.see_through(first, &mut signals).await.map_err(|broken| {
        if broken.error.is_not_found() {
            // It is gone with its instance: nobody need try again.
            runs.note_end(&exec_id, ExitStatus::Farm.code());
        }
        broken.error
    })?;
    run::conclude(printer, &finish)
}
