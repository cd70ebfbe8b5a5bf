//! A bridge from its configuration to its end.

use crate::access::Access;
use crate::admission::Pool;
use crate::backend::Backend;
use crate::config::Config;
use crate::content::Content;
use crate::hash_map::HashMap;
use crate::http::{Edge, Settings};
use crate::local_auth::LocalAuth;
use crate::pipeline::compile::Compiler;
use crate::reach::Destination;
use crate::records::Records;
use crate::serve;
use anyhow::Context as _;
use motefarm_core::SystemClock;
use motefarm_net::dial;
use motefarm_net::private_file;
use motefarm_net::tls::{Authority, OperatorCertificate};
use rustls::ServerConfig;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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

/// Serves until it is told to stop, and comes down in order.
pub(crate) async fn run(config: Config, (target, bearer): Destination) -> anyhow::Result<()> {
    let data_dir = config.data_dir.clone();
    private_file::create_dir(&data_dir).with_context(|| format!("can not make {}", data_dir.display()))?;
    let listener =
        TcpListener::bind(&config.listen).await.with_context(|| format!("can not listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let map = HashMap::open(&data_dir.join("hash-map"), config.limits.map_entries)?;
    let tls = server_tls(&config)?;
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
    // Whatever the server does: clients are answered from now on.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let told = async {
        match edge.compiler.content().backend().abilities().await {
            Ok(abilities) => tracing::info!(versions = abilities.versions, "the backend answers"),
            Err(fault) => tracing::warn!(%fault, "the backend does not answer; compiles fail until it does"),
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = told => {}
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
