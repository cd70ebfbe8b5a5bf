//! Reached directly, over TLS, by whoever shows the token.

use super::front::{Front, STOP_GRACE};
use super::{Started, tell_ready};
use anyhow::Context as _;
use motefarm_net::accept::accept;
use motefarm_net::private_file;
use motefarm_net::tls::Authority;
use motefarm_net::token::ApiToken;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// At once, those that have shown no token yet among them.
const MAX_CONNECTIONS: usize = 4096;
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

pub(super) async fn serve(
    started: &Started,
    address: SocketAddr,
    token_file: Option<PathBuf>,
    insecure_no_auth: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let token = if insecure_no_auth {
        tracing::warn!("serving without any token: whoever can connect can run commands here");
        None
    } else {
        let path = token_file.unwrap_or_else(|| started.data.root().join("token"));
        Some(load_or_create(&path)?.hash())
    };
    let authority = Authority::load_or_create(&started.data.tls()).context("can not set up this buildlet's CA")?;
    let hash = authority.ca_hash()?;
    let names = [started.agent.identity.hostname.clone(), address.ip().to_string()];
    let tls = TlsAcceptor::from(authority.server_config(&names).context("can not make a certificate")?);
    let listener = TcpListener::bind(address).await.with_context(|| format!("can not listen at {address}"))?;
    let bound = listener.local_addr()?;
    let front = Front::new(started.service.clone(), token);
    let ca = started.data.tls().join("ca.pem");
    tracing::info!(address = %bound, ca = %ca.display(), ca.sha256 = %hash, "listening");
    tell_ready();
    let open = accept(listener, MAX_CONNECTIONS, &stop, |stream, _| {
        let (front, tls, stop) = (front.clone(), tls.clone(), stop.clone());
        async move {
            front.serve(handshake(&tls, stream).await?, stop).await;
            Ok(())
        }
    });
    // A handshake that was begun may go on a little longer than calls.
    open.await.drain(STOP_GRACE * 2).await;
    Ok(())
}

async fn handshake(tls: &TlsAcceptor, stream: TcpStream) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The token in `path`; made at first start. The log says where it is, never what.
fn load_or_create(path: &Path) -> anyhow::Result<ApiToken> {
    match fs::read_to_string(path) {
        Ok(text) => {
            text.parse().with_context(|| format!("the token in {} is unusable: repair or remove it", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = ApiToken::generate();
            if let Some(dir) = path.parent() {
                private_file::create_dir(dir).with_context(|| format!("can not make {}", dir.display()))?;
            }
            private_file::write(path, format!("{}\n", token.secret()).as_bytes())
                .with_context(|| format!("can not write {}", path.display()))?;
            tracing::info!(path = %path.display(), "token made; callers need it");
            Ok(token)
        }
        Err(error) => Err(error).with_context(|| format!("can not read {}", path.display())),
    }
}
