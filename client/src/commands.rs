//! One file for each verb. They take values, act, and answer with an exit status.

mod admin;
mod attach;
mod cancel;
mod create;
mod destroy;
mod execs;
mod gettar;
mod list;
mod logs;
mod ping;
mod push;
mod run;

use crate::cli::Verb;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::printer::Printer;
use crate::run_record::Runs;
use crate::settings::Settings;

/// What every verb may use.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) printer: Printer,
}

impl Context {
    async fn connect(&self) -> Result<Farm, Error> {
        Farm::connect(&self.settings.place, self.printer).await
    }

    fn runs(&self) -> Runs {
        Runs::new(self.settings.dirs.runs())
    }
}

/// Does what was typed.
pub(crate) async fn act(context: &Context, verb: Verb) -> Result<ExitStatus, Error> {
    match verb {
        Verb::Create(create) => create::act(context, create).await,
        Verb::List(list) => list::act(context, list.all).await,
        Verb::Ping(ping) => ping::act(context, ping.instances).await,
        Verb::Push(push) => push::act(context, push).await,
        Verb::Run(run) => run::act(context, run).await,
        Verb::Attach(attach) => attach::act(context, attach).await,
        Verb::Logs(logs) => logs::act(context, logs).await,
        Verb::Cancel(cancel) => cancel::act(context, cancel).await,
        Verb::Gettar(gettar) => gettar::act(context, gettar).await,
        Verb::Destroy(destroy) => destroy::act(context, destroy.instances).await,
        Verb::Admin(admin) => admin::act(context, admin).await,
    }
}

/// What became of one of several things asked for together.
async fn each<T>(
    printer: Printer,
    names: Vec<String>,
    act: impl AsyncFn(&str) -> Result<T, Error>,
) -> Result<Vec<(String, T)>, (Vec<(String, T)>, Error)> {
    let asked = names.len();
    let all = futures_util::future::join_all(names.iter().map(|name| act(name))).await;
    let mut done = Vec::with_capacity(asked);
    let mut failures = Vec::new();
    for (name, result) in names.into_iter().zip(all) {
        match result {
            Ok(value) => done.push((name, value)),
            Err(error) => failures.push(error),
        }
    }
    match failures.len() {
        0 => Ok(done),
        // The one error is the answer.
        1 if asked == 1 => Err((done, failures.remove(0))),
        failed => {
            for failure in &failures {
                printer.warning(failure);
            }
            Err((done, Error::Some { failed, asked }))
        }
    }
}
