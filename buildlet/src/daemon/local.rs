//! Reached by a Unix socket, by whoever is the same user (or root).

use super::front::Front;
use super::{Started, tell_ready};
use anyhow::Context as _;
use motefarm_net::{private_file, unix};
use std::path::Path;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub(super) async fn serve(started: &Started, socket: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    if let Some(dir) = socket.parent() {
        private_file::create_dir(dir).with_context(|| format!("can not make {}", dir.display()))?;
    }
    let listener = unix::bind(socket).with_context(|| format!("can not listen at {}", socket.display()))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let front = Front::new(started.service.clone(), None);
    let own_user = rustix::process::geteuid().as_raw();
    tracing::info!(socket = %socket.display(), buildlet.id = %started.agent.identity.id, "serving");
    tell_ready();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == own_user || peer.uid() == 0 => front.spawn(stream, &stop),
                Ok(peer) => tracing::warn!(peer.uid = peer.uid(), "another user's connection was refused"),
                Err(error) => tracing::warn!(%error, "a connection without a name was refused"),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(super::front::ACCEPT_PAUSE).await;
            }
        }
    }
    front.drain().await;
    Ok(())
}
