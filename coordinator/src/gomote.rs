//! The Go project's unmodified `gomote` against this farm: `protos.GomoteService` and the HTTP that
//! its client does besides, as a thin translation onto the farm's use cases.
//!
//! Refuses to know what the use cases do, and `mote.v1.Farm`. What the client does was read in, and
//! tried with, golang.org/x/build at c0ee0fbd16a3; `docs/gomote.md` tells users what differs.

mod address;
mod archives;
mod command;
mod form;
mod http;
mod listing;
mod metadata;
mod objects;
mod service;
mod streams;

pub(crate) use command::signal_word;
pub use metadata::LocalTokens;

use crate::app::App;
use crate::peer::Peer;
use address::Door;
use axum::extract::Request;
use axum::http::header;
use motefarm_proto::MAX_MESSAGE_BYTES;
use motefarm_proto::gomote::gomote_service_server::GomoteServiceServer;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::Routes;

/// How often what nobody came for is let go.
const SWEEP: Duration = Duration::from_secs(15);

/// What the translation keeps between one call of a client and the next. None of it is a promise:
/// a client that finds it gone begins again.
pub struct Gomote {
    app: Arc<App>,
    objects: Arc<objects::Objects>,
    archives: archives::Archives,
    /// Tokens given to the farm's own user.
    pub tokens: LocalTokens,
}

impl Gomote {
    /// Begins, with nothing left from before.
    pub fn new(app: &Arc<App>) -> Arc<Self> {
        let dir = app.config.data_dir.join("uploads");
        Arc::new(Self {
            app: app.clone(),
            objects: objects::Objects::new(dir, objects::Bounds::default()),
            archives: archives::Archives::default(),
            tokens: LocalTokens::default(),
        })
    }

    /// Lets go of uploads and archives in their time, until shutdown.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = self.app.shutdown.cancelled() => return,
            }
            let gomote = self.clone();
            let swept = tokio::task::spawn_blocking(move || {
                let now = gomote.app.now();
                gomote.objects.expire(now);
                gomote.archives.expire(now);
            });
            if let Err(error) = swept.await {
                tracing::error!(%error, "uploads could not be swept");
            }
        }
    }
}

/// The service and the routes beside it.
pub fn routes(gomote: &Arc<Gomote>) -> axum::Router {
    gomote.app.spawn(gomote.clone().sweep());
    let service = GomoteServiceServer::new(service::Service(gomote.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Routes::new(service)
        .prepare()
        .into_axum_router()
        // Without this, tonic answers every unknown path with 200 and status 12.
        .reset_fallback()
        .layer(axum::middleware::map_request(note_door))
        .merge(http::routes().with_state(gomote.clone()))
}

/// Notes how a call came in, for the addresses that are answered to it.
async fn note_door(mut request: Request) -> Request {
    let named = request.uri().authority().map(ToString::to_string);
    let named = named.or_else(|| Some(request.headers().get(header::HOST)?.to_str().ok()?.to_owned()));
    if let (Some(authority), Some(peer)) = (named, request.extensions().get::<Peer>().copied()) {
        request.extensions_mut().insert(Door { authority, local: peer.local });
    }
    request
}
