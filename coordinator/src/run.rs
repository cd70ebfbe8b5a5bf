//! From the command line to a serving farm, and back down in order.

use crate::app::App;
use crate::cli::{AdminCommand, CasCommand, Cli, Command, Setup, SshCommand};
use crate::config::{Config, ConfigError, File, Oidc, Overrides};
use crate::farm::{actions, allocate, reap::Reaper, snapshots};
use crate::provider::{self, go_agent, local, statics::Static};
use crate::ssh::{self, Gateway, SshAuthority};
use crate::store::Store;
use crate::{bootstrap, http, offline, serve, tls_files};
use anyhow::Context as _;
use clap::Parser as _;
use motefarm_cas::store::{Store as Cas, StoreLimits};
use motefarm_core::{Clock as _, SystemClock};
use motefarm_net::private_file;
use motefarm_net::tls::{Authority, OperatorCertificate};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code for a wrong configuration (`EX_USAGE` of sysexits.h).
const EXIT_CONFIG: u8 = 64;
/// Time for everything that runs on to end, after the port is closed.
const TASKS_DRAIN: Duration = Duration::from_secs(5);

/// The whole program.
pub fn main_impl() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    let result = match &cli.command {
        Command::Ssh(SshCommand::RotateCa(setup)) => match resolve(setup) {
            Ok(config) => rotate(&config),
            Err(error) => return config_error(&error),
        },
        Command::Serve(setup) => match resolve(setup) {
            Ok(config) => run(config),
            Err(error) => return config_error(&error),
        },
        Command::CheckConfig(setup) => match resolve(setup) {
            Ok(config) => say(&config.describe()),
            Err(error) => return config_error(&error),
        },
        Command::Cas(CasCommand::Verify(setup)) => match resolve(setup) {
            Ok(config) => verify(&config),
            Err(error) => return config_error(&error),
        },
        Command::Admin(admin) => match resolve(&admin.setup) {
            Ok(config) => administrate(&config, &admin.command),
            Err(error) => return config_error(&error),
        },
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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A program that starts twice in one process (tests) keeps its first subscriber.
    let _ = builder.with_ansi(ansi).with_target(false).try_init();
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

fn resolve(setup: &Setup) -> anyhow::Result<Config> {
    let file = match &setup.config {
        Some(path) => File::load(path)?,
        None => File::default(),
    };
    let named = setup.data_dir.is_some() || file.data_dir.is_some();
    let default_dir = if named { std::path::PathBuf::new() } else { bootstrap::default_data_dir()? };
    let flags = Overrides { data_dir: setup.data_dir.clone(), listen: setup.listen.clone() };
    let mut config = file.resolve(flags, default_dir)?;
    config.data_dir = std::path::absolute(&config.data_dir)
        .map_err(|source| ConfigError::Read { path: config.data_dir.clone(), source })?;
    // A file a static entry names must be there before a port opens.
    config.statics.iter().try_for_each(|entry| Static::load(entry).map(drop))?;
    config.oidc.iter().try_for_each(Oidc::check_files)?;
    Ok(config)
}

fn open_cas(config: &Config) -> anyhow::Result<Cas> {
    let limits = StoreLimits { max_bytes: config.cas_max_bytes, ..StoreLimits::default() };
    Cas::open(&config.data_dir.join("cas"), limits).context("can not open the content store")
}

async fn open_store(path: &Path) -> anyhow::Result<Store> {
    Store::open(path).await.with_context(|| {
        format!("can not use the database {}; if it is damaged, restore it from a backup", path.display())
    })
}

fn verify(config: &Config) -> anyhow::Result<()> {
    let report = open_cas(config)?.verify()?;
    say(&format!("{report:?}"))?;
    anyhow::ensure!(report.bad.is_empty(), "{} blobs are not what their digests say", report.bad.len());
    Ok(())
}

fn administrate(config: &Config, command: &AdminCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(offline::act(config, command, SystemClock.now()))?.as_str() {
        "" => Ok(()),
        text => say(text),
    }
}

fn rotate(config: &Config) -> anyhow::Result<()> {
    ssh::rotate(&config.data_dir.join("ssh"), SystemClock.now(), config.ssh.certificate_lifetime)?;
    say("a new key signs ssh certificates from the coordinator's next start on; those of the old one stay good")
}

fn run(config: Config) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve_farm(config))
}

async fn serve_farm(mut config: Config) -> anyhow::Result<()> {
    let data_dir = config.data_dir.clone();
    private_file::create_dir(&data_dir).with_context(|| format!("can not make {}", data_dir.display()))?;
    let listener =
        TcpListener::bind(&config.listen).await.with_context(|| format!("can not listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let cas = open_cas(&config)?;
    let ssh_listener = ssh::listen(&config.ssh).await?;
    let authority = Authority::load_or_create(&data_dir.join("tls"))?;
    config.ca_hash = authority.ca_hash()?;
    if config.advertised.is_empty() {
        config.advertised = address.to_string();
    }
    let mut names = config.names.clone();
    names.push(rustix::system::uname().nodename().to_string_lossy().into_owned());
    let operators = match &config.tls {
        Some(tls) => {
            Some(OperatorCertificate::load(&tls.cert, &tls.key).context("the certificate of [tls] is no use")?)
        }
        None => None,
    };
    let tls = authority.server_config_beside(&names, operators.clone())?;
    let gateway = match &ssh_listener {
        Some(listener) => Some(open_gateway(&config, &names, listener)?),
        None => None,
    };
    let store = open_store(&data_dir.join("farm.db")).await?;
    store.all_lost().await?;
    let own_user =
        bootstrap::first_admin(&store, &data_dir, authority.ca_pem(), &address.to_string(), SystemClock.now()).await?;

    let app = App::new(config, store, cas, Arc::new(SystemClock));
    // Before anything can be stored, and so evicted.
    snapshots::pin_again(&app).await.context("can not keep the content of snapshots")?;
    go_agent::forget_all(&app).await.context("can not end what Go agents had")?;
    let mut stop = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    start_providers(&app)?;
    app.spawn(allocate::run(app.clone()));
    app.spawn(actions::schedule::run(app.clone()));
    app.spawn(Reaper::default().run(app.clone()));
    if let (Some(gateway), Some(listener)) = (gateway, ssh_listener) {
        tracing::info!(address = %listener.local_addr()?, "the ssh gateway serves");
        let _ = app.ssh.set(gateway.clone());
        app.spawn(gateway.serve(app.clone(), listener));
    }
    // Asked for in any case: without a listener it would end the program.
    let hangup = signal(SignalKind::hangup())?;
    if let Some(operators) = operators {
        app.spawn(tls_files::watch(app.clone(), operators, hangup));
    }
    let router = http::router(&app, own_user);
    let port = tokio::spawn(serve::serve(app.clone(), listener, tls, router));
    tracing::info!(%address, data_dir = %data_dir.display(), ca = app.config.ca_hash, "the farm serves");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    tokio::select! {
        _ = stop.0.recv() => {}
        _ = stop.1.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping: commands run on, leases stand");
    // The port first, then what it used, the store last.
    app.shutdown.cancel();
    port.await?;
    app.tasks.close();
    if tokio::time::timeout(TASKS_DRAIN, app.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = app.tasks.len(), "some tasks did not end in time");
    }
    app.store.close().await;
    Ok(())
}

/// The gateway for a bound port. Its certificate has the names people know this machine by, for those who
/// do not use `mote ssh`.
fn open_gateway(config: &Config, names: &[String], listener: &TcpListener) -> anyhow::Result<Arc<Gateway>> {
    let mut names: Vec<String> = names.to_vec();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(config.ssh.advertise.iter().map(|(host, _)| host.clone()));
    if let Ok((host, _)) = motefarm_net::dial::split_address(&config.advertised) {
        names.push(host.to_owned());
    }
    let keys = SshAuthority::load_or_create(&config.data_dir.join("ssh"), &names, SystemClock.now())?;
    Ok(Arc::new(Gateway::new(keys, &config.ssh, listener.local_addr()?)))
}

fn start_providers(app: &Arc<App>) -> anyhow::Result<()> {
    let config = &app.config;
    if config.local.enabled {
        let data_dir = config.data_dir.join("buildlet");
        let program = config.local.start.then(|| config.local.program.clone().unwrap_or_else(local::default_program));
        provider::start(
            app,
            Box::new(local::Local {
                socket: config.local.socket.clone().unwrap_or_else(|| data_dir.join("buildlet.sock")),
                data_dir,
                farm_store: config.data_dir.join("cas"),
                host_type: config.local_host_type.clone(),
                slots: config.local.slots,
                action_slots: config.local.action_slots,
                program,
            }),
        );
    }
    for entry in &config.statics {
        provider::start(app, Box::new(Static::load(entry)?));
    }
    Ok(())
}
