//! Which of the meanings of what was written is true: found when it is first needed, by one call for all that
//! wait, kept as long as it holds, and looked for again when it was in doubt.

use super::speech::{Trouble, check};
use super::upstream::{Endpoint, Upstream};
use rustls::ClientConfig;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a failure is good for everybody who asks.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Way(Arc<Inner>);

struct Inner {
    written: Upstream,
    default_port: u16,
    may_switch: bool,
    tls: Arc<ClientConfig>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was found last, and whether it is beyond doubt.
    found: Option<(Endpoint, bool)>,
    failed: Option<(Instant, String)>,
}

impl Way {
    pub(super) fn new(written: Upstream, default_port: u16, may_switch: bool, tls: Arc<ClientConfig>) -> Self {
        Self(Arc::new(Inner { written, default_port, may_switch, tls, state: Mutex::default() }))
    }

    /// The server, or in words why there is none.
    pub(super) async fn endpoint(&self) -> Result<Endpoint, String> {
        if let Some((endpoint, true)) = &self.0.state.lock().await.found {
            return Ok(endpoint.clone());
        }
        // What is found out is for all, also when who asked first has no more patience.
        let inner = self.0.clone();
        let looking = tokio::spawn(async move { inner.endpoint().await });
        looking.await.unwrap_or_else(|error| Err(format!("looking for the upstream was stopped: {error}")))
    }

    /// Something went wrong there.
    pub(super) async fn doubt(&self, endpoint: &Endpoint) {
        let mut state = self.0.state.lock().await;
        if let Some((found, is_good)) = &mut state.found
            && found == endpoint
        {
            *is_good = false;
        }
    }
}

impl Inner {
    async fn endpoint(&self) -> Result<Endpoint, String> {
        let mut state = self.state.lock().await;
        if let Some((endpoint, true)) = &state.found {
            return Ok(endpoint.clone());
        }
        if let Some((at, why)) = &state.failed
            && at.elapsed() < FAILED_FOR
        {
            return Err(why.clone());
        }
        match self.look(state.found.as_ref().map(|(endpoint, _)| endpoint)).await {
            Ok(endpoint) => {
                *state = State { found: Some((endpoint.clone(), true)), failed: None };
                Ok(endpoint)
            }
            Err(why) => {
                state.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// What was found once is not given up for another meaning because it is down.
    async fn look(&self, before: Option<&Endpoint>) -> Result<Endpoint, String> {
        let meanings = match before {
            Some(endpoint) => vec![endpoint.clone()],
            None => self.written.meanings(self.default_port, self.may_switch),
        };
        let mut problems = Vec::new();
        for endpoint in meanings {
            match check(&endpoint, &self.tls).await {
                Ok(()) => {
                    self.chosen(&endpoint, before, &problems);
                    return Ok(endpoint);
                }
                Err(Trouble::SpeaksHttp | Trouble::SpeaksTls) if self.may_switch => {
                    let other = endpoint.other_scheme();
                    match check(&other, &self.tls).await {
                        Ok(()) => {
                            tracing::warn!("{endpoint} was said, and {other} is spoken: switched, as configured");
                            return Ok(other);
                        }
                        Err(trouble) => problems.push(trouble.words(&other)),
                    }
                }
                Err(trouble) => problems.push(trouble.words(&endpoint)),
            }
        }
        Err(format!("upstream {}: {}", self.written, problems.join("; ")))
    }

    fn chosen(&self, endpoint: &Endpoint, before: Option<&Endpoint>, problems: &[String]) {
        if before.is_some() {
            tracing::info!("the upstream {endpoint} answers again");
        } else if problems.is_empty() {
            tracing::info!("the upstream is {endpoint}");
        } else {
            let written = &self.written;
            tracing::info!("the upstream is {endpoint}: {written} was said, and {}", problems.join("; "));
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.written.fmt(f)
    }
}
