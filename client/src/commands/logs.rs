//! `mote logs`: what a command has written so far, without keeping it anew.

use crate::cli;
use crate::commands::{Context, execs};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::follow::{self, Begin, End, Show, Watch};
use crate::json;
use crate::printer::Passthrough;
use crate::signals::Signals;
use serde::Serialize;

/// The last line with `--json`, behind the output's.
#[derive(Serialize)]
struct Last {
    exec_id: String,
    running: bool,
    #[serde(flatten)]
    outcome: Option<json::Outcome>,
}

pub(crate) async fn act(context: &Context, logs: cli::Logs) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let runs = context.runs();
    let farm = context.connect().await?;
    let exec_id = match &logs.target {
        Some(word) => execs::resolve(&farm, &runs, word).await?.exec_id,
        None => match runs.newest(farm.address(), true) {
            Some(found) => found.record.exec_id,
            None => {
                return Err(Error::usage(
                    "nothing was run from this machine yet",
                    "name an execution or an instance: mote logs INSTANCE",
                ));
            }
        },
    };
    let mut signals = Signals::listen()?;
    let begin = Begin::Attach { follow: logs.follow };
    let show = if printer.is_json() { Show::JsonLines } else { Show::Raw(Passthrough::open()?) };
    let watch = Watch { exec_id: exec_id.clone(), begin, file: None, show, stdin: None, owns: false };
    let end = follow::watch(&farm, printer, &mut signals, watch).await.map_err(|broken| broken.error)?;
    let outcome = match end {
        End::Outcome { outcome, .. } => Some(outcome),
        End::UpToDate | End::Left => None,
    };
    if printer.is_json() {
        let running = outcome.is_none();
        printer.json(&Last { exec_id, running, outcome: outcome.as_ref().map(json::Outcome::from) })?;
    } else if let Some(outcome) = outcome {
        follow::explain(printer, "the command", &outcome);
    }
    Ok(ExitStatus::Success)
}
