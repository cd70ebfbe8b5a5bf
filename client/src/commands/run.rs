//! `mote run`: a command on instances, its output here, its exit code ours.

mod member;
mod report;
mod several;
mod spec;
mod start;

pub(super) use member::{Member, Screen};
pub(super) use report::conclude;
pub(super) use several::go_on_with;
pub(super) use start::first_of;

use crate::cli;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::follow::{Begin, Broken, Stdin};
use crate::group::ActiveGroup;
use crate::output_file::OutputFile;
use crate::printer::Passthrough;
use crate::signals::Signals;
use crate::targets;
use crate::until::Until;
use member::First;
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::mote;
use tonic::Status;
use uuid::Uuid;

/// One run in so many looks for old records: reading the folder costs more than the rest of the
/// program's own work.
const PRUNE_ONE_IN: u32 = 32;

pub(crate) async fn act(context: &Context, run: cli::Run) -> Result<ExitStatus, Error> {
    let words = spec::texts(&run.words)?;
    if let Some(pattern) = &run.until {
        Until::new(pattern).map_err(|problem| wrong_pattern(pattern, &problem))?;
    }
    if run.builderenv.is_some() {
        context.printer.message("-builderenv changes nothing: this farm's instances have no builder environments");
    }
    if context.group == ActiveGroup::Nobody && words.first().is_some_and(String::is_empty) {
        return Err(Error::usage("the instance's name is empty", spec::SHAPE));
    }
    let status = match targets::without_group(&context.group, &words) {
        Some((instance, rest)) => one(context, None, &run, instance, rest, true).await?,
        None => {
            let farm = context.connect().await?;
            let mut targets = context.resolver(&farm, spec::SHAPE).first(words).await?;
            match targets.instances.len() {
                1 => {
                    let instance = targets.instances.remove(0);
                    one(context, Some(farm), &run, instance, targets.rest, targets.named).await?
                }
                _ => several::act(context, &farm, &run, targets).await?,
            }
        }
    };
    if rand::random::<u32>().is_multiple_of(PRUNE_ONE_IN) {
        context.runs().prune(SystemClock.now());
    }
    Ok(status)
}

/// A bad `-until`.
fn wrong_pattern(pattern: &str, problem: &str) -> Error {
    Error::usage(format!("-until {pattern:?}: {problem}"), "the syntax is that of Go's regexp package (RE2)")
}

/// On one instance.
async fn one(
    context: &Context,
    farm: Option<Farm>,
    run: &cli::Run,
    instance: String,
    rest: Vec<String>,
    named: bool,
) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let terminal = if printer.is_json() || run.detach { None } else { Some(Passthrough::open()?) };
    // Where the two end up in one file or terminal anyway, one pipe keeps their order exactly.
    let merge_output = run.interactive || terminal.as_ref().is_none_or(Passthrough::is_one_place);
    let spec = spec::from_flags(run, rest, named.then_some(instance.as_str()), merge_output)?;
    let exec_id = Uuid::now_v7().to_string();
    let runs = context.runs();
    let output = start::output_of_one(run, &instance, &runs, &exec_id)?;
    let record = start::record(context, run, &instance, &exec_id, &spec, output)?;
    // The files are made while the farm answers our hello.
    let (farm, file) = tokio::join!(
        async {
            match farm {
                Some(farm) => Ok(farm),
                None => context.connect().await,
            }
        },
        async {
            runs.remember(&record)?;
            if run.detach {
                return Ok(None);
            }
            let file = OutputFile::create(&record.output)?;
            if record.fresh {
                runs.note_begun(&exec_id);
            }
            Ok(Some(file))
        }
    );
    let unwind = |error: Error| start::unwind(&runs, &record, error);
    let (farm, file) = match (farm, file) {
        (Ok(farm), Ok(file)) => (farm, file),
        (Err(error), _) | (_, Err(error)) => return Err(unwind(error)),
    };
    let Some(file) = file else {
        start_detached(&farm, &instance, &exec_id, spec)
            .await
            .map_err(|e| if may_have_begun(&e) { e } else { unwind(e) })?;
        return report::detached(printer, &[(instance, Ok(exec_id))]);
    };
    printer.message(start::place(run, &record));
    let mut signals = Signals::listen()?;
    let stdin = (run.stdin || run.interactive).then(Stdin::open).transpose()?;
    let begin = Begin::Start { instance, spec: Box::new(spec) };
    let screen = terminal.map_or(Screen::Nowhere, Screen::own);
    let member = Member { farm: &farm, printer, runs: &runs, record: record.clone(), screen: &screen, several: false };
    match member.see_through(First { begin, file, stdin }, &mut signals).await {
        Ok(finish) => conclude(printer, &finish),
        Err(Broken { error, started: false }) if !may_have_begun(&error) => Err(unwind(error)),
        Err(Broken { error, .. }) => Err(error),
    }
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
