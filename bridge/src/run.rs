//! From the command line to a serving bridge, and back down in order.

use crate::access::Access;
use crate::admission::Pool;
use crate::backend::{Address, Backend};
use crate::caller::Caller;
use crate::cli::{self, Cli, Command, Doctor, Setup, Way};
use crate::client_env::{self, ClientEnv, Shell};
use crate::config::{Config, File, Overrides, Server};
use crate::content::Content;
use crate::doctor::catalogue::Kind;
use crate::doctor::examine::{Options, examine};
use crate::doctor::variables::Variables;
use crate::hash_map::HashMap;
use crate::http::{Edge, Settings};
use crate::local_auth::LocalAuth;
use crate::pipeline::compile::Compiler;
use crate::records::Records;
use crate::relay::arguments;
use crate::relay::config::Flags;
use crate::relay::run::Ready;
use crate::{allocator, explain, seed, serve};
use anyhow::Context as _;
use clap::Parser as _;
use etcetera::BaseStrategy as _;
use motefarm_core::SystemClock;
use motefarm_net::dial::{self, Bearer, Target};
use motefarm_net::private_file;
use motefarm_net::profile::{self, DEFAULT_FARM, Profile, ProfileError};
use motefarm_net::tls::{self, Authority, OperatorCertificate};
use rustls::ServerConfig;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit code for a wrong configuration (`EX_USAGE` of sysexits.h).
const EXIT_CONFIG: u8 = 64;

/// Threads for what blocks, which is processor time and the disk's, both for moments: more of them would only
/// hold more memory at once.
const BLOCKING_THREADS: usize = 8;

/// Turns of tasks after which a thread looks for what came over the network: a turn is up to a millisecond of
/// unpacking, hashing and packing, and with the usual 61 of them answers of the server lie about for as long.
const TURNS: u32 = 5;
/// Turns of its own tasks after which a thread takes one that woke elsewhere, as all do whose work was done on a
/// thread for what blocks. While there is always something to do it takes them at no other time, and who was
/// unlucky waited four times as long as the others.
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
            Ok(config) => on_runtime(run(config)),
            Err(error) => return config_error(&error),
        },
        Command::CheckConfig(setup) => match resolve(setup) {
            Ok(config) => say(&config.describe()),
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

fn resolve(setup: &Setup) -> anyhow::Result<Config> {
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
    // Files that are named must be there before a port opens.
    Access::new(config.anonymous, config.token_file.as_deref())?;
    backend(&config)?;
    Ok(config)
}

/// The way to the server. Nothing is dialled yet.
fn backend(config: &Config) -> anyhow::Result<(Target, Bearer)> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()));
    let (address, ca_file, token_file) = match &config.server {
        Server::At { address, ca_file, token_file } => (address, ca_file, token_file),
        Server::FarmOf(path) => return farm(path),
        Server::Farm(name) => return farm(&farm_profile(name.as_deref())?),
    };
    let target = match address {
        Address::Clear(address) => Target::Clear(address.clone()),
        Address::Unix(path) => Target::Unix(path.clone()),
        Address::Tls(address) => {
            let trusted = match ca_file {
                Some(path) => tls::client_config(&read(path)?)?,
                None => tls::client_config_system()?,
            };
            Target::Tls { address: address.clone(), tls: Arc::new(trusted) }
        }
    };
    let bearer = match token_file {
        Some(path) => Bearer::new(read(path)?.trim()).with_context(|| format!("{} holds no token", path.display()))?,
        None => Bearer::none(),
    };
    Ok((target, bearer))
}

/// Where the profile of a farm is; of the one that `mote` would take, if none is named.
fn farm_profile(name: Option<&str>) -> anyhow::Result<PathBuf> {
    let dir = profile::config_dir(|name| std::env::var_os(name)).context("no home directory is known: set HOME")?;
    let meant = std::env::var("MOTE_FARM").ok().filter(|name| profile::is_farm_name(name));
    Ok(profile::path(&dir, name.or(meant.as_deref()).unwrap_or(DEFAULT_FARM)))
}

/// The way to the farm of a profile.
fn farm(path: &Path) -> anyhow::Result<(Target, Bearer)> {
    let loaded = Profile::load(path).map_err(|error| match error {
        ProfileError::Missing(path) => anyhow::anyhow!(
            "no REAPI server is named, and there is no farm's profile {}: start a farm on this machine \
             (mote-coordinator serve), sign in to one (mote login --server HOST:PORT), or name a server \
             (--backend grpc://HOST:PORT)",
            path.display()
        ),
        other => other.into(),
    })?;
    if let Some(warning) = loaded.warning {
        tracing::warn!("{warning}");
    }
    let Profile { server, ca_pem, token, .. } = loaded.profile;
    let trusted = if ca_pem.is_empty() { tls::client_config_system()? } else { tls::client_config(&ca_pem)? };
    let bearer = Bearer::new(&token).with_context(|| format!("{} holds no token", path.display()))?;
    Ok((Target::Tls { address: server, tls: Arc::new(trusted) }, bearer))
}

fn server_tls(config: &Config) -> anyhow::Result<Arc<ServerConfig>> {
    let authority = Authority::load_or_create(&config.data_dir.join("tls"))?;
    let operators = match &config.tls {
        Some(tls) => {
            Some(OperatorCertificate::load(&tls.cert, &tls.key).context("the certificate of [tls] is no use")?)
        }
        None => None,
    };
    Ok(authority.server_config_beside(&config.names, operators)?)
}

async fn run(config: Config) -> anyhow::Result<()> {
    let data_dir = config.data_dir.clone();
    private_file::create_dir(&data_dir).with_context(|| format!("can not make {}", data_dir.display()))?;
    let listener =
        TcpListener::bind(&config.listen).await.with_context(|| format!("can not listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let map = HashMap::open(&data_dir.join("hash-map"), config.limits.map_entries)?;
    let tls = server_tls(&config)?;
    let (target, bearer) = backend(&config)?;
    let backend = Backend::new(dial::lazy_channel(target)?, bearer, &config.instance);
    let edge = Arc::new(edge(&config, Content::new(backend, map))?);
    let shutdown = CancellationToken::new();
    let mut stop = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let beside = TaskTracker::new();
    if let Some(file) = &config.local_auth {
        let opened = LocalAuth::open(file, None, Arc::new(SystemClock)).await;
        let local_auth = opened.with_context(|| format!("can not write {}", file.display()))?;
        tracing::info!(LUCI_CONTEXT = %local_auth.context().display(), "clients are given tokens");
        beside.spawn(local_auth.serve(shutdown.clone()));
    }
    beside.close();
    let port = tokio::spawn(serve::serve(edge.clone(), listener, tls, config.limits.connections, shutdown.clone()));
    let ca = data_dir.join("tls/ca.pem");
    tracing::info!(%address, backend = %config.server, instance = config.instance, ca = %ca.display(), "the bridge serves");
    match edge.compiler.content().backend().abilities().await {
        Ok(abilities) => tracing::info!(versions = abilities.versions, "the backend answers"),
        Err(fault) => tracing::warn!(%fault, "the backend does not answer; compiles fail until it does"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = stop.0.recv() => {}
        _ = stop.1.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping: what is in progress is answered first");
    shutdown.cancel();
    let ending = async {
        let ended = port.await;
        beside.wait().await;
        ended
    };
    tokio::select! {
        ended = ending => ended?,
        _ = stop.0.recv() => tracing::warn!("told to stop again: stopping at once"),
        _ = stop.1.recv() => tracing::warn!("told to stop again: stopping at once"),
    }
    Ok(())
}

/// Everything an answer needs, by a configuration.
pub fn edge(config: &Config, content: Content) -> anyhow::Result<Edge> {
    // Shares of the memory: requests as they came, unpacked, and answers.
    let share = config.limits.memory_bytes / 6;
    let answers = Pool::new(share * 2);
    Ok(Edge {
        compiler: Compiler::new(config.compile.clone(), content, answers.clone()),
        access: Access::new(config.anonymous, config.token_file.as_deref())?,
        records: Records::default(),
        clock: Arc::new(SystemClock),
        path_prefixes: config.path_prefixes.clone(),
        settings: settings(config),
        request_bytes: config.limits.request_bytes,
        packed: Pool::new(share),
        unpacked: Pool::new(share * 3),
        answers,
        draining: AtomicBool::new(false),
    })
}

fn settings(config: &Config) -> Settings {
    let own_ca = config.tls.is_none().then(|| config.data_dir.join("tls/ca.pem"));
    Settings {
        path: config.settings.path.clone(),
        endpoint: config.settings.endpoint.clone(),
        name: config.settings.name.clone(),
        ca_file: config.settings.ca_file.clone().or(own_ca),
    }
}
