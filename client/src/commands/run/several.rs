//! The same command on several instances at once, each by itself: its own file, its own attempts,
//! its own end.

use super::member::{Finish, Member, Screen};
use super::{may_have_begun, report, spec, start, start_detached};
use crate::broadcast;
use crate::cli;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::fetch::file_name;
use crate::follow::Broken;
use crate::output_file::OutputFile;
use crate::printer::Shared;
use crate::run_record::{RunRecord, Runs};
use crate::signals::Signals;
use crate::targets::Targets;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How many run at a time. Each holds a stream of the one connection, of which a peer customarily
/// allows 200; calls beside them need some too.
const AT_ONCE: usize = 128;

pub(super) async fn act(context: &Context, farm: &Farm, run: &cli::Run, targets: Targets) -> Result<ExitStatus, Error> {
    for (given, flag) in [(run.output.is_some(), "-output"), (run.stdin, "-stdin"), (run.interactive, "-t")] {
        if given {
            let count = targets.instances.len();
            return Err(Error::usage(
                format!("{flag} is for one instance, and these are {count}"),
                format!("name one: mote run {flag} ... INSTANCE COMMAND"),
            ));
        }
    }
    let printer = context.printer;
    let shared = if printer.is_json() || run.detach { None } else { Some(Shared::open()?) };
    let merge_output = shared.as_ref().is_none_or(Shared::is_one_place);
    let spec = spec::from_flags(run, targets.rest, None, merge_output)?;
    let runs = context.runs();
    let batch = Uuid::now_v7().to_string();
    let records = targets
        .instances
        .iter()
        .map(|instance| {
            let exec_id = Uuid::now_v7().to_string();
            let output = match run.collect {
                true => start::output_of_one(run, instance, &runs, &exec_id)?,
                false => runs.folder(&batch).join(format!("{}.stdout", file_name(instance))),
            };
            let record = start::record(context, run, instance, &exec_id, &spec, output)?;
            Ok(RunRecord { batch: Some(batch.clone()), ..record })
        })
        .collect::<Result<Vec<RunRecord>, Error>>()?;
    if run.detach {
        let start = async |name: &str| {
            let record = find(&records, name);
            runs.remember(record)?;
            match start_detached(farm, name, &record.exec_id, spec.clone()).await {
                Ok(()) => Ok(record.exec_id.clone()),
                Err(error) if may_have_begun(&error) => Err(error),
                Err(error) => Err(start::unwind(&runs, record, error)),
            }
        };
        let started = broadcast::each(&targets.instances, start).await;
        return report::detached(printer, &started);
    }
    if !run.collect {
        let folder: PathBuf = runs.make_folder(&batch)?;
        printer.message(format_args!("output of each in {}", folder.display()));
    }
    for record in &records {
        printer.message(format_args!("Writing output of {:?} to {}...", record.instance, shown(record)));
    }
    let screen = shared.map_or(Screen::Nowhere, Screen::Shared);
    let one = async |name: &str| {
        let record = find(&records, name);
        runs.remember(record)?;
        let prepare = || {
            let file = OutputFile::create(&record.output)?;
            if record.fresh {
                runs.note_begun(&record.exec_id);
            }
            Ok(super::First {
                begin: crate::follow::Begin::Start { instance: name.to_owned(), spec: Box::new(spec.clone()) },
                file,
                stdin: None,
            })
        };
        let first = prepare().map_err(|error| start::unwind(&runs, record, error))?;
        let mut signals = Signals::listen()?;
        let member = Member { farm, printer, runs: &runs, record: record.clone(), screen: &screen, several: true };
        match member.see_through(first, &mut signals).await {
            Ok(finish) => Ok(finish),
            Err(Broken { error, started: false }) if !may_have_begun(&error) => {
                Err(start::unwind(&runs, record, error))
            }
            Err(Broken { error, .. }) => Err(error),
        }
    };
    let results = broadcast::each_at_once(&targets.instances, AT_ONCE, one).await;
    end(context, screen, &results).await
}

/// Goes on with what one command line began on several instances (`attach`).
pub(crate) async fn go_on_with(
    context: &Context,
    farm: &Farm,
    runs: &Runs,
    records: Vec<RunRecord>,
) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let screen = if printer.is_json() { Screen::Nowhere } else { Screen::Shared(Shared::open()?) };
    let names: Vec<String> = records.iter().map(|record| record.instance.clone()).collect();
    let one = async |name: &str| {
        let record = find(&records, name);
        let first = start::first_of(runs, record)?;
        printer.message(format_args!(
            "attached to {} on {name}, from byte {}; output in {}",
            record.exec_id,
            first.known(),
            record.output.display()
        ));
        let mut signals = Signals::listen()?;
        let member = Member { farm, printer, runs, record: record.clone(), screen: &screen, several: true };
        member.see_through(first, &mut signals).await.map_err(|broken| broken.error)
    };
    let results = broadcast::each_at_once(&names, AT_ONCE, one).await;
    end(context, screen, &results).await
}

async fn end(
    context: &Context,
    screen: Screen,
    results: &[(String, Result<Finish, Error>)],
) -> Result<ExitStatus, Error> {
    if let Screen::Shared(shared) = screen {
        let mut signals = Signals::listen()?;
        tokio::select! {
            drained = shared.drained() => match drained {
                Ok(()) | Err(Error::StdoutClosed) => {}
                Err(error) => return Err(error),
            },
            // The terminal may be slower than the farm; the user may not want to wait for it.
            _ = signals.next() => {}
        }
    }
    report::conclude_all(context.printer, results)
}

/// The record of an instance; each has one.
fn find<'a>(records: &'a [RunRecord], instance: &str) -> &'a RunRecord {
    let found = records.iter().find(|record| record.instance == instance);
    found.unwrap_or(&records[0])
}

fn shown(record: &RunRecord) -> std::path::Display<'_> {
    record.output.file_name().map_or(record.output.as_path(), Path::new).display()
}
