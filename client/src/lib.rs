//! The command line of a Motefarm: `mote`.
//!
//! `cli` declares, `go_flags` makes Go's flag syntax clap's, `settings` resolves flags over
//! environment over profile, `targets` decides which instances are meant and `broadcast` acts on
//! each, `commands/<verb>` acts, `printer` alone writes. Calls survive a restarted farm through
//! `resume`; what a command prints goes through `follow`, content through `source` and `fetch`.
//!
//! **Absent on purpose:** SQL, processes, sandboxes. The program starts nothing and remembers
//! nothing but its run records (`run_record`) and stat caches, which may be deleted at any time.

#![forbid(unsafe_code)]

mod broadcast;
mod cli;
mod commands;
mod connection;
mod direct;
mod dirs;
mod env_vars;
mod error;
mod exit_code;
mod fetch;
mod follow;
mod go_flags;
mod group;
mod human;
mod json;
mod listing;
mod output_file;
mod printer;
mod progress;
mod push;
mod resume;
mod run_record;
mod settings;
mod signals;
mod source;
mod ssh;
mod table;
mod targets;
mod terminal;
mod until;
mod vectored;

use crate::cli::{Cli, Verb};
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::group::ActiveGroup;
use crate::printer::Printer;
use crate::settings::Settings;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program on this process's arguments and environment.
pub fn main_impl() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if exit_code::is_help_topic(&args) {
        let printed = Printer::default().line(exit_code::TABLE);
        return printed.map_or(ExitStatus::Failed, |()| ExitStatus::Success).into();
    }
    let mut command = Cli::command();
    let args = go_flags::rewrite(&command, args);
    let parsed = command.try_get_matches_from_mut(args).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, verb_of(&matches)))
    });
    let (cli, verb) = match parsed {
        Ok(parsed) => parsed,
        Err(refused) => return usage(&refused).into(),
    };
    let printer = Printer::new(&cli.global, verb, |name| std::env::var_os(name));
    // Within `run`, `attach`, `ssh` and `reapi exec` every code below 255 is the remote command's.
    let passes_code = matches!(cli.verb, Verb::Run(_) | Verb::Attach(_) | Verb::Ssh(_)) || cli.verb.is_action();
    let status = act(cli, printer).unwrap_or_else(|error| {
        printer.error(&error);
        match error.exit_status() {
            ExitStatus::Usage => ExitStatus::Usage,
            ExitStatus::StdoutClosed => ExitStatus::StdoutClosed,
            ExitStatus::Interrupted => ExitStatus::Interrupted,
            _ if passes_code => ExitStatus::Farm,
            other => other,
        }
    });
    status.into()
}

fn act(cli: Cli, printer: Printer) -> Result<ExitStatus, Error> {
    let env = |name: &str| std::env::var_os(name);
    // These two tell of the program alone: they need no farm, not even a home.
    match cli.verb {
        Verb::Completions(flags) => return commands::completions(printer, flags.shell),
        Verb::Man(flags) => return commands::man(printer, flags.dir.as_deref()),
        // These make and remove what the others need.
        Verb::Login(flags) => return run(commands::login(printer, &cli.global, flags, env)),
        Verb::Logout(flags) => return run(commands::logout(printer, &cli.global, flags, env)),
        _ => {}
    }
    let settings = match direct::settings(&cli, env)? {
        Some(direct) => direct,
        None => Settings::resolve(&cli.global, env)?,
    };
    for warning in &settings.warnings {
        printer.warning(warning);
    }
    let group = ActiveGroup::resolve(cli.global.group.as_deref(), env)?;
    let context = Context::new(settings, group, printer);
    run(commands::act(&context, cli.verb))
}

fn run(acting: impl Future<Output = Result<ExitStatus, Error>>) -> Result<ExitStatus, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::local("start the program's event loop", e))?;
    let result = runtime.block_on(acting);
    // A read of stdin may be blocked for ever: nobody waits for it.
    runtime.shutdown_background();
    result
}

/// What was asked for, as `--json` names it: "run", "group add".
fn verb_of(matches: &ArgMatches) -> &'static str {
    let mut words = Vec::new();
    let mut level = matches;
    while let Some((word, below)) = level.subcommand() {
        words.push(word);
        level = below;
    }
    // Once a process, for a printer that everybody may copy.
    words.join(" ").leak()
}

fn usage(refused: &clap::Error) -> ExitStatus {
    // clap sends help to stdout and complaints to stderr. A reader that went away is no news.
    let _ = refused.print();
    if refused.use_stderr() { ExitStatus::Usage } else { ExitStatus::Success }
}
