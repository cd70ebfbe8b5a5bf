//! One use of an instance by a caller: allowed once, its lease kept alive for as long as it goes on.
//!
//! Owns what every call that moves content has in common, whichever way it moves; knows nothing of
//! what it is.

use super::{FarmError, access, exec, renew};
use crate::app::App;
use crate::identity::Identity;
use crate::link::{LinkError, LinkStream, Pieces};
use crate::registry::Session;
use crate::store::InstanceRow;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Content on its way from a caller, in pieces of at most [`motefarm_proto::MAX_CHUNK_BYTES`]; an error ends it
/// without it being whole.
pub type Incoming = BoxStream<'static, Result<Bytes, FarmError>>;

/// What a caller gets in pieces.
pub type Outgoing<T> = BoxStream<'static, Result<T, FarmError>>;

/// See the module.
#[derive(Clone)]
pub struct Usage {
    /// The farm.
    pub app: Arc<App>,
    /// What is used.
    pub row: InstanceRow,
    /// The contact it is used over.
    pub session: Arc<Session>,
    /// Who uses it.
    pub caller: Identity,
}

impl Usage {
    /// Begins to use the instance that `name` means to `caller`: checks that they may and that it can
    /// be, renews its lease, and waits a while for its buildlet.
    pub async fn begin(app: &Arc<App>, caller: &Identity, name: &str) -> Result<Self, FarmError> {
        let row = access::usable_instance(app, caller, name).await?;
        renew::renew(app, &row).await?;
        let session = exec::session_of(app, &row).await?;
        Ok(Self { app: app.clone(), row, session, caller: caller.clone() })
    }

    /// The instance's id as messages spell it.
    pub fn id(&self) -> String {
        self.row.id.to_string()
    }

    /// Ends when nothing more can come over this contact, or may, with why.
    async fn broken(&self) -> FarmError {
        tokio::select! {
            () = self.app.shutdown.cancelled() => {
                FarmError::Unavailable("the coordinator is stopping; ask again".to_owned())
            }
            () = self.session.ended.cancelled() => {
                let name = &self.row.name;
                FarmError::Unavailable(format!("the contact to the buildlet of {name} ended in the middle; ask again"))
            }
            error = access::no_longer_shared(self.app.clone(), self.caller.clone(), self.row.clone()) => error,
        }
    }

    /// Waits for a call that works without a stream between caller and buildlet; renews meanwhile.
    pub async fn during<T>(&self, call: impl Future<Output = Result<T, FarmError>>) -> Result<T, FarmError> {
        let renewing = async {
            loop {
                tokio::time::sleep(self.row.terms.coalesce_window()).await;
                if let Err(error) = renew::renew(&self.app, &self.row).await {
                    return error;
                }
            }
        };
        tokio::select! {
            answer = call => answer,
            error = renewing => Err(error),
            error = self.broken() => Err(error),
        }
    }

    /// Hands a caller's content to `put`; renews with every piece. Content that breaks off gives up the
    /// call, so the buildlet never takes a part for the whole.
    pub async fn put<T, F>(&self, content: Incoming, put: impl FnOnce(Pieces) -> F) -> Result<T, FarmError>
    where
        F: Future<Output = Result<T, LinkError>>,
    {
        let (give_up, given_up) = oneshot::channel();
        let (app, row) = (self.app.clone(), self.row.clone());
        let state = Some((content, give_up, app, row));
        let pieces = stream::unfold(state, |state| async {
            let (mut content, give_up, app, row) = state?;
            let piece = match content.next().await {
                Some(Ok(piece)) => renew::renew(&app, &row).await.map(|()| piece),
                Some(Err(error)) => Err(error),
                None => return None,
            };
            match piece {
                Ok(piece) => Some((piece, Some((content, give_up, app, row)))),
                Err(error) => {
                    let _ = give_up.send(error);
                    std::future::pending().await
                }
            }
        });
        tokio::select! {
            answer = put(pieces.boxed()) => Ok(answer?),
            Ok(error) = given_up => Err(error),
            error = self.broken() => Err(error),
        }
    }

    /// Passes a buildlet's stream on to a caller; renews with every item. Its end is whole, or there
    /// is an error that says why it is not: never a short stream that looks like one.
    pub fn pass<T: Send + 'static>(self, items: LinkStream<T>) -> Outgoing<T> {
        let broken = {
            let usage = self.clone();
            Box::pin(async move { usage.broken().await })
        };
        let passed = stream::unfold(Some((items, broken, self)), |state| async {
            let (mut items, mut broken, usage) = state?;
            let item = tokio::select! {
                item = items.next() => item?,
                error = &mut broken => return Some((Err(error), None)),
            };
            let item = match item {
                Ok(item) => renew::renew(&usage.app, &usage.row).await.map(|()| item),
                Err(error) => Err(error.into()),
            };
            let rest = item.is_ok().then_some((items, broken, usage));
            Some((item, rest))
        });
        passed.boxed()
    }
}
