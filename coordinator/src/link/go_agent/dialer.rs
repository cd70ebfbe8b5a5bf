//! Connections to Go agents: asked for over the control channel, dialled by the agent, picked up here.
//!
//! Go's own coordinator gives each agent one path and matches what comes there to who waits longest. Agents
//! ask for whatever path they are told, so here every dial has one of its own: nothing that comes late or
//! twice can be taken for another.

use crate::link::LinkError;
use motefarm_net::dial::BoxStream;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Where agents pick up, and the parameter that names the dial.
const PATH: &str = "/revdial?revdial.dialer=";
/// Time for the agent to dial back: it allows itself as much.
const PICKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections one agent may have at once. More wait.
const MOST_CONNECTIONS: usize = 64;

type Picked = Result<BoxStream, String>;

/// All dials that wait for their agent, whichever agent that is.
#[derive(Default)]
pub struct Pickups(Mutex<HashMap<String, oneshot::Sender<Picked>>>);

impl Pickups {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Picked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for this.
    pub fn expects(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// Brings a connection to who waits for it.
    pub fn deliver(&self, id: &str, stream: BoxStream) {
        if let Some(waiting) = self.lock().remove(id) {
            // Whoever gave up meanwhile closes it by dropping it.
            let _ = waiting.send(Ok(stream));
        }
    }

    /// An agent could not dial. It names the path only if it did not get as far as an answer; otherwise the
    /// dial's deadline tells.
    pub(super) fn failed(&self, path: &str, why: &str) {
        let why: String = why.chars().take(200).collect();
        tracing::debug!(why, "a Go agent could not dial");
        let waiting = path.strip_prefix(PATH).and_then(|id| self.lock().remove(id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(Err(why));
        }
    }
}

/// Forgets a dial that is over.
struct Expected<'a> {
    pickups: &'a Pickups,
    id: String,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.pickups.lock().remove(&self.id);
    }
}

/// Asks one agent for connections.
pub(super) struct Dialer {
    pickups: Arc<Pickups>,
    paths: mpsc::Sender<String>,
    connections: Arc<Semaphore>,
}

/// A connection to the agent, which counts as one while it lives.
pub(super) struct Dialled {
    pub(super) stream: BoxStream,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Dialer {
    /// Announces dials to `paths`, which the control channel reads.
    pub(super) fn new(pickups: Arc<Pickups>, paths: mpsc::Sender<String>) -> Self {
        Self { pickups, paths, connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)) }
    }

    /// A fresh connection on which the agent serves HTTP.
    pub(super) async fn dial(&self) -> Result<Dialled, LinkError> {
        self.dial_within(PICKUP_TIMEOUT).await
    }

    async fn dial_within(&self, limit: Duration) -> Result<Dialled, LinkError> {
        let ended = || LinkError::Lost("the agent's channel has ended".to_owned());
        let dialling = async {
            let permit = self.connections.clone().acquire_owned().await.map_err(|_| ended())?;
            let expected = Expected { pickups: &self.pickups, id: hex::encode(rand::random::<[u8; 16]>()) };
            let (sender, picked) = oneshot::channel();
            self.pickups.lock().insert(expected.id.clone(), sender);
            self.paths.send(format!("{PATH}{}", expected.id)).await.map_err(|_| ended())?;
            match picked.await {
                Ok(Ok(stream)) => Ok(Dialled { stream, permit }),
                Ok(Err(why)) => Err(LinkError::Lost(format!("the agent could not dial us: {why}"))),
                Err(_) => Err(ended()),
            }
        };
        match tokio::time::timeout(limit, dialling).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Lost(format!("the agent did not dial us within {} s", limit.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair() -> (Dialer, Arc<Pickups>, mpsc::Receiver<String>) {
        let pickups = Arc::new(Pickups::default());
        let (sender, paths) = mpsc::channel(4);
        (Dialer::new(pickups.clone(), sender), pickups, paths)
    }

    fn id(path: &str) -> &str {
        path.strip_prefix(PATH).unwrap()
    }

    #[tokio::test]
    async fn each_dial_gets_its_own_connection_in_whatever_order_they_come() {
        let (dialer, pickups, mut paths) = pair();
        let agent = async {
            let (first, second) = (paths.recv().await.unwrap(), paths.recv().await.unwrap());
            assert_eq!(id(&first).len(), 32);
            for path in [&second, &first] {
                let (mut near, far) = tokio::io::duplex(64);
                near.write_all(path.as_bytes()).await.unwrap();
                pickups.deliver(id(path), Box::new(far));
            }
            (first, second)
        };
        let read = |mut dialled: Dialled| async move {
            let mut said = String::new();
            dialled.stream.read_to_string(&mut said).await.unwrap();
            said
        };
        let (a, b, (first, second)) = tokio::join!(dialer.dial(), dialer.dial(), agent);
        assert_eq!((read(a.unwrap()).await, read(b.unwrap()).await), (first, second));
    }

    #[tokio::test]
    async fn a_dial_given_up_is_expected_no_more() {
        let (dialer, pickups, mut paths) = pair();
        let error = dialer.dial_within(Duration::from_millis(10)).await.err().unwrap();
        assert!(matches!(&error, LinkError::Lost(why) if why.contains("did not dial")), "{error}");
        let path = paths.recv().await.unwrap();
        assert!(!pickups.expects(id(&path)));
        let (mut near, far) = tokio::io::duplex(64);
        pickups.deliver(id(&path), Box::new(far));
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0, "what comes late is closed");
    }

    #[tokio::test]
    async fn a_failure_ends_the_dial_it_names_and_no_other() {
        let (dialer, pickups, mut paths) = pair();
        let agent = async {
            let path = paths.recv().await.unwrap();
            pickups.failed("", "of another");
            assert!(pickups.expects(id(&path)));
            pickups.failed(&path, "no route");
        };
        let (dialled, ()) = tokio::join!(dialer.dial(), agent);
        assert!(dialled.err().unwrap().to_string().contains("no route"));
        drop(paths);
        assert!(dialer.dial().await.err().unwrap().to_string().contains("has ended"));
    }
}
