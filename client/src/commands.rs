//! One file for each verb. They take values, act, and answer with an exit status.

mod admin;
mod attach;
mod cancel;
mod cas;
mod create;
mod destroy;
mod execs;
mod get;
mod gettar;
mod group;
mod list;
mod login;
mod logout;
mod logs;
mod ls;
mod pages;
mod ping;
mod push;
mod put;
mod putbootstrap;
mod puttar;
mod reapi;
mod renew;
mod rm;
mod run;
mod share;
mod snapshot;
mod ssh;
mod ssh_config;
mod whoami;

pub(crate) use login::act as login;
pub(crate) use logout::act as logout;
pub(crate) use pages::{completions, man};

use crate::cli::Verb;
use crate::connection::{Farm, Place};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::group::ActiveGroup;
use crate::printer::Printer;
use crate::run_record::Runs;
use crate::settings::Settings;
use crate::targets::Resolver;

/// What every verb may use.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) group: ActiveGroup,
    pub(crate) printer: Printer,
}

impl Context {
    /// A buildlet that is addressed directly is named, and knows no groups.
    pub(crate) fn new(settings: Settings, group: ActiveGroup, printer: Printer) -> Self {
        let group = match settings.place {
            Place::Direct(_) => ActiveGroup::Nobody,
            Place::Farm { .. } => group,
        };
        Self { settings, group, printer }
    }

    async fn connect(&self) -> Result<Farm, Error> {
        Farm::connect(&self.settings.place, self.printer).await
    }

    fn runs(&self) -> Runs {
        Runs::new(self.settings.dirs.runs())
    }

    /// Decides whom a command acts on; `shape` is how to write it.
    const fn resolver<'a>(&'a self, farm: &'a Farm, shape: &'a str) -> Resolver<'a> {
        Resolver { farm, printer: self.printer, group: &self.group, shape }
    }
}

/// Does what was typed.
pub(crate) async fn act(context: &Context, verb: Verb) -> Result<ExitStatus, Error> {
    match verb {
        Verb::Create(create) => create::act(context, create).await,
        Verb::List(list) => list::act(context, list).await,
        Verb::Ping(ping) => ping::act(context, ping.instances).await,
        Verb::Renew(renew) => renew::act(context, renew.instances).await,
        Verb::Destroy(destroy) => destroy::act(context, destroy).await,
        Verb::Group(group) => group::act(context, group.verb).await,
        Verb::Push(push) => push::act(context, push).await,
        Verb::Put(put) => put::act(context, put).await,
        Verb::Puttar(puttar) => puttar::act(context, puttar).await,
        Verb::Putbootstrap(put) => putbootstrap::act(context, put.instances).await,
        Verb::Get(get) => get::act(context, get.words).await,
        Verb::Gettar(gettar) => gettar::act(context, gettar).await,
        Verb::Ls(ls) => ls::act(context, ls).await,
        Verb::Rm(rm) => rm::act(context, rm.words).await,
        Verb::Snapshot(snapshot) => snapshot::act(context, snapshot.verb).await,
        Verb::Run(run) => run::act(context, run).await,
        Verb::Attach(attach) => attach::act(context, attach).await,
        Verb::Logs(logs) => logs::act(context, logs).await,
        Verb::Cancel(cancel) => cancel::act(context, cancel).await,
        Verb::Share(flags) => share::share(context, flags).await,
        Verb::Unshare(flags) => share::unshare(context, flags).await,
        Verb::Whoami(_) => whoami::whoami(context).await,
        Verb::Auth(auth) => whoami::auth(context, &auth.verb),
        Verb::Ssh(flags) => ssh::act(context, flags).await,
        Verb::SshConfig(flags) => ssh_config::act(context, flags).await,
        Verb::SshCert(flags) => ssh::certify(context, flags).await,
        Verb::Cas(cas) => cas::act(context, cas).await,
        Verb::Reapi(flags) => reapi::act(context, flags).await,
        Verb::Admin(admin) => admin::act(context, admin).await,
        Verb::Completions(flags) => completions(context.printer, flags.shell),
        Verb::Man(flags) => man(context.printer, flags.dir.as_deref()),
        Verb::Login(_) | Verb::Logout(_) => Err(Error::usage("signing in and out needs no farm", "mote login --help")),
    }
}
