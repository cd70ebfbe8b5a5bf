//! What a client is told of where its server is, before it knows it: endpoint, CA, name.
//!
//! Nothing here is secret, and who asks has nothing to show yet, so everybody is answered. Who can reach the
//! port knows the address, and a CA's certificate is there to be known.

use super::encoding::{Encoding, Expanded};
use super::{Answer, Arrival, Edge, bad, header, message_answer, text};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST};
use http::uri::Authority;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use motefarm_proto::goma::{self, SettingsReq, SettingsResp};
use prost::Message as _;
use std::path::PathBuf;
use std::time::Duration;

/// Largest question, packed or not.
const MAX_BYTES: usize = 16 << 10;
/// Longest time for it to come.
const TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is asked.
    pub path: String,
    /// The URL to tell; `None`: the one that was dialled.
    pub endpoint: Option<String>,
    /// What these settings are called.
    pub name: String,
    /// PEM file of the CA to tell.
    pub ca_file: Option<PathBuf>,
}

pub(super) async fn answer(edge: &Edge, request: Request<Incoming>, arrival: Arrival) -> Answer {
    let answer_by = Encoding::for_answer(header(request.headers(), ACCEPT_ENCODING));
    let dialled = dialled(edge, header(request.headers(), HOST), arrival);
    let asked = match question(request).await {
        Ok(asked) => asked,
        Err(problem) => return bad(&problem),
    };
    let certificate = match &edge.settings.ca_file {
        Some(path) => match tokio::fs::read_to_string(path).await {
            Ok(pem) => pem,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the CA to tell clients can not be read");
                return text(StatusCode::SERVICE_UNAVAILABLE, "mote-bridge: its CA can not be read; see its log\n");
            }
        },
        None => String::new(),
    };
    let endpoint_url = edge.settings.endpoint.clone().unwrap_or(dialled);
    tracing::info!(use_case = asked.use_case, endpoint_url, "settings are told");
    let settings = goma::Settings { endpoint_url, certificate, name: edge.settings.name.clone() };
    message_answer(answer_by.pack(SettingsResp { settings: Some(settings) }.encode_to_vec()), answer_by)
}

async fn question(request: Request<Incoming>) -> Result<SettingsReq, String> {
    let encoding = header(request.headers(), CONTENT_ENCODING);
    let encoding = Encoding::of_request(encoding).ok_or("the content-encoding is not spoken here")?;
    let body = Limited::new(request.into_body(), MAX_BYTES).collect();
    let body = tokio::time::timeout(TIMEOUT, body).await.map_err(|_| "the question did not come in time")?;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    match encoding.expand(body, MAX_BYTES, |_| true).map_err(|error| error.to_string())? {
        Expanded::Whole(bytes) => SettingsReq::decode(bytes).map_err(|error| format!("not a SettingsReq: {error}")),
        Expanded::Refused => Err("the question is too large".to_owned()),
    }
}

/// The way the client came here is one that works for it. Its `Host` never has the port.
fn dialled(edge: &Edge, host: Option<&str>, arrival: Arrival) -> String {
    let scheme = if arrival.is_tls { "https" } else { "http" };
    let named = host.and_then(|host| host.parse::<Authority>().ok());
    let host = named.map(|authority| authority.host().to_owned()).filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| match arrival.at.ip().to_canonical() {
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        std::net::IpAddr::V4(v4) => v4.to_string(),
    });
    let prefix = edge.path_prefixes.first().map_or("", String::as_str);
    format!("{scheme}://{host}:{}{prefix}", arrival.at.port())
}
