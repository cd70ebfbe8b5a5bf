//! From the command line to whatever was asked for, and its exit code.

use crate::access::Access;
use crate::caller::Caller;
use crate::cli::{self, Cli, Command, Doctor, Setup, Way};
use crate::client_env::{self, ClientEnv, Shell};
use crate::config::{Config, File, Overrides};
use crate::doctor::catalogue::Kind;
use crate::doctor::examine::{Options, examine};
use crate::doctor::variables::Variables;
use crate::reach::{Destination, reach};
use crate::relay::arguments;
use crate::relay::config::Flags;
use crate::relay::run::Ready;
use crate::{allocator, daemon, explain, seed};
use anyhow::Context as _;
use clap::Parser as _;
use etcetera::BaseStrategy as _;
use motefarm_net::dial;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code for a wrong configuration (`EX_USAGE` of sysexits.h).
const EXIT_CONFIG: u8 = 64;

/// Threads for what blocks, which is processor time and the disk's, both for moments: more of them would only
/// hold more memory at once.
const BLOCKING_THREADS: usize = 8;

/// Turns of tasks after which a thread looks for what came over the network: a turn is up to a millisecond of
/// unpacking, hashing and packing, and with the usual 61 of them answers of the server lie about for as long.
const TURNS: u32 = 5;
/// Turns of its own tasks after which a thread takes one that woke elsewhere, as all do whose work was done on a
/// thread for what blocks. While there is always something to do it takes them at no other time.
const TURNS_FOR_OTHERS: u32 = 2;

/// The whole program.
pub fn main_impl() -> ExitCode {
    allocator::keep_little();
    let args: Vec<OsString> = std::env::args_os().collect();
    let is_http_proxy = args.first().is_some_and(|program| arguments::is_http_proxy(program));
    let cli = Cli::parse_from(arguments::words(args));
    start_logging();
    let result = match &cli.command {
        Command::Serve(setup) => match resolve(setup) {
            Ok((config, destination)) => on_runtime(daemon::run(config, destination)),
            Err(error) => return config_error(&error),
        },
        Command::CheckConfig(setup) => match resolve(setup) {
            Ok((config, _)) => say(&config.describe()),
            Err(error) => return config_error(&error),
        },
        Command::Relay(asked) => match ready_relay(asked) {
            Ok(ready) => on_runtime(ready.run(is_http_proxy)),
            Err(error) => return config_error(&error),
        },
        Command::Env(env) => dial::split_address(&env.bridge).map_err(Into::into).and_then(|(host, port)| {
            let token_file = env.token_file.as_deref().map(client_env::absolute);
            let env_of = ClientEnv {
                host: host.to_owned(),
                port,
                token_file,
                local_auth: env.local_auth.as_deref().map(client_env::absolute),
                settings: env.settings.clone(),
                strict: env.strict,
            };
            say(env_of.lines(env.shell).trim_end())
        }),
        Command::Seed(asked) => on_runtime(async {
            let seeded = seed::seed(caller(&asked.way).await?, &asked.dir).await?;
            for (path, reason) in &seeded.left_out {
                tracing::warn!(path = %path.display(), reason, "left out");
            }
            say(&format!("{} files, {} bytes; {} left out", seeded.files, seeded.bytes, seeded.left_out.len()))
        }),
        Command::Doctor(asked) => match on_runtime(doctor(asked)) {
            Ok(true) => return ExitCode::FAILURE,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        },
        Command::Explain(asked) => on_runtime(async {
            let records = explain::ask(caller(&asked.way).await?, &asked.id).await?;
            anyhow::ensure!(
                records.as_array().is_some_and(|list| !list.is_empty()),
                "the bridge remembers no compile with the id {:?}; it forgets all but the latest, and all when it ends",
                asked.id
            );
            say(if asked.json { records.to_string() } else { explain::describe(&records) }.trim_end())
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging() {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("MOTE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A program that starts twice in one process (tests) keeps its first subscriber.
    let _ = if std::env::var("MOTE_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().try_init()
    } else {
        builder.with_ansi(ansi).try_init()
    };
}

#[expect(clippy::print_stdout, reason = "answers asked for on the command line")]
fn say(text: &str) -> anyhow::Result<()> {
    println!("{text}");
    Ok(())
}

fn config_error(error: &anyhow::Error) -> ExitCode {
    tracing::error!("the configuration is wrong: {error:#}");
    ExitCode::from(EXIT_CONFIG)
}

fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().max_blocking_threads(BLOCKING_THREADS);
    runtime.event_interval(TURNS).global_queue_interval(TURNS_FOR_OTHERS).build()?.block_on(work)
}

async fn caller(way: &Way) -> anyhow::Result<Caller> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()));
    let authorization = way.token_file.as_ref().map(read).transpose()?;
    Caller::connect(&way.bridge, authorization.map(|text| text.trim_end().to_owned())).await
}

/// Whether something is wrong.
async fn doctor(asked: &Doctor) -> anyhow::Result<bool> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables: Variables = variables.collect();
    let options = Options { compiler: asked.compiler.clone(), patience: asked.patience.into() };
    let mut report = examine(&variables, &options).await;
    if variables.first(&["MOTE_BRIDGE_CONFIG", "MOTE_BRIDGE_BACKEND"]).is_some()
        && let Err(error) = Setup::of_environment().and_then(|setup| resolve(&setup))
    {
        report.found(Kind::BridgeConfig, format!("{error:#}"), "mote-bridge check-config");
    }
    report.arrange(asked.shell.unwrap_or_else(|| Shell::named(variables.text("SHELL").unwrap_or_default())));
    say(&if asked.json { serde_json::to_string(&report.findings)? } else { report.describe().trim_end().to_owned() })?;
    Ok(report.is_bad())
}

fn ready_relay(asked: &cli::Relay) -> anyhow::Result<Ready> {
    let file = match &asked.config {
        Some(path) => File::load(path)?,
        None => File::default(),
    };
    let flags = Flags {
        upstream: asked.upstream.clone(),
        server_host: asked.server_host.clone(),
        port: asked.port,
        ca_file: asked.ca_file.clone(),
        token_file: asked.token_file.clone(),
        local_auth: asked.local_auth.clone(),
        switch_scheme: asked.switch_scheme,
    };
    Ready::new(file.relay.resolve(flags)?)
}

/// What holds, and the way to the server by it: files that are named must be there before a port opens.
fn resolve(setup: &Setup) -> anyhow::Result<(Config, Destination)> {
    let file = match &setup.config {
        Some(path) => File::load(path)?,
        None => File::default(),
    };
    let default_dir = match setup.data_dir.is_some() || file.data_dir.is_some() {
        true => PathBuf::new(),
        false => etcetera::choose_base_strategy()
            .context("no home directory is known: give --data-dir")?
            .data_dir()
            .join("mote-bridge"),
    };
    let flags = Overrides {
        listen: setup.listen.clone(),
        data_dir: setup.data_dir.clone(),
        backend: setup.backend.clone(),
        farm: setup.farm.clone(),
        profile: setup.profile.clone(),
        instance: setup.instance.clone(),
        platform: setup.platform.clone(),
        local_auth: setup.local_auth.clone(),
    };
    let mut config = file.resolve(flags, default_dir)?;
    config.data_dir = std::path::absolute(&config.data_dir)?;
    Access::new(config.anonymous, config.token_file.as_deref())?;
    let destination = reach(&config.server)?;
    Ok((config, destination))
}
