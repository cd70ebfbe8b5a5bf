//! Whether a signed-in client may go on: its token, its instance, the coordinator. Keeps the lease
//! alive while a channel is open.

use super::client::Client;
use crate::farm::renew;
use crate::farm::ssh::admit;
use std::sync::Arc;
use std::time::Duration;

/// How often all of it is looked at, or more often where leases are short. Instances' changes are looked at
/// as they come.
const LOOK: Duration = Duration::from_secs(5);
/// Changes closer together than this are looked at once.
const PAUSE: Duration = Duration::from_millis(50);
/// For channels to tell their clients, once the end is decided.
const FAREWELL: Duration = Duration::from_secs(3);

/// Watches until the client may not go on or has gone, then cuts the connection.
pub(super) async fn run(client: Arc<Client>) {
    let why = tokio::select! {
        why = look(&client) => why,
        () = client.app.shutdown.cancelled() => "the coordinator is stopping".to_owned(),
        () = client.over.cancelled() => return client.cut.cancel(),
    };
    tracing::info!(
        instance.name = client.instance.name, user = %client.identity.user, why, "an ssh connection is ended"
    );
    client.end(why);
    let told = async {
        while client.channels() > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        // What they said is on its way.
        tokio::time::sleep(PAUSE).await;
    };
    let _ = tokio::time::timeout(FAREWELL, told).await;
    client.cut.cancel();
}

async fn look(client: &Client) -> String {
    let mut changes = client.app.changes.subscribe();
    loop {
        changes.borrow_and_update();
        match admit(&client.app, &client.grant).await {
            Ok((_, row)) if client.channels() > 0 => {
                if let Err(error) = renew::renew(&client.app, &row).await {
                    return error.to_string();
                }
            }
            Ok(_) => {}
            // The farm's own trouble is no reason to end anybody's work.
            Err(error @ (crate::farm::FarmError::Store(_) | crate::farm::FarmError::Content(_))) => {
                tracing::warn!(%error, "an ssh client's rights could not be looked at");
            }
            Err(error) => return error.to_string(),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK.min(client.instance.terms.coalesce_window())) => {}
            _ = changes.changed() => tokio::time::sleep(PAUSE).await,
        }
    }
}
