//! What is asked of an OpenID Connect issuer, over HTTP: where things are (OpenID Connect Discovery), a
//! device code and what became of it (RFC 8628), and the keys it signs with (RFC 7517).
//!
//! Keys and places are asked for anew each time: sign-ins are rare, and a key that was withdrawn is gone
//! at once. Every request has a deadline and every answer a bound; redirects are not followed.

use crate::config::{Oidc, is_safe};
use crate::farm::FarmError;
use jsonwebtoken::jwk::JwkSet;
use reqwest::{Client, RequestBuilder, StatusCode, header, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::sync::OnceCell;
use url::{Url, form_urlencoded};

/// For one answer, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Of one answer.
const MOST_BYTES: usize = 1 << 20;
/// RFC 8628, section 3.2 and 3.5: unless the issuer says otherwise, and by how much to slow down.
const INTERVAL: Duration = Duration::from_secs(5);
const SLOWER: Duration = Duration::from_secs(5);
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the issuer began.
pub(super) struct DeviceCode {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    pub(super) verification_uri_complete: String,
    pub(super) interval: Duration,
    pub(super) expires_in: Duration,
}

/// What became of it.
pub(super) enum Granted {
    NotYet { slower: Duration },
    Yes { id_token: String },
}

#[derive(Deserialize)]
struct Places {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

pub(super) struct Issuer {
    config: Oidc,
    client: OnceCell<Client>,
}

impl Issuer {
    pub(super) fn new(config: Oidc) -> Self {
        Self { config, client: OnceCell::new() }
    }

    fn away(&self, why: impl std::fmt::Display) -> FarmError {
        tracing::warn!(issuer = self.config.issuer, error = %why, "the sign-in's issuer does not answer as it should");
        FarmError::Unavailable(format!("{} does not answer as it should; try again later", self.config.issuer))
    }

    fn misconfigured(&self, why: impl std::fmt::Display) -> FarmError {
        tracing::error!(issuer = self.config.issuer, error = %why, "nobody can sign in by [oidc]");
        let text = "this farm can not sign anybody in; its operator finds the cause in the coordinator's log";
        FarmError::NotReady(text.to_owned())
    }

    async fn client(&self) -> Result<&Client, FarmError> {
        let make = || async {
            // reqwest takes the process's provider; the first one stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let mut builder = Client::builder()
                .connect_timeout(ANSWER_WITHIN)
                .timeout(ANSWER_WITHIN)
                .redirect(redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .user_agent(concat!("motefarm/", env!("CARGO_PKG_VERSION")));
            if let Some(path) = &self.config.ca_file {
                let pem = std::fs::read(path).map_err(|e| self.misconfigured(format!("{}: {e}", path.display())))?;
                let ca = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| self.misconfigured(e))?;
                builder = builder.tls_certs_only(ca);
            }
            builder.build().map_err(|e| self.misconfigured(e))
        };
        self.client.get_or_try_init(make).await
    }

    /// The status and the whole body of an answer.
    async fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), FarmError> {
        let request = request.header(header::ACCEPT, "application/json");
        // An error of the request names its address, which holds no secret: those are in bodies.
        let mut answer = request.send().await.map_err(|e| self.away(e))?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| self.away(e))? {
            if body.len() + piece.len() > MOST_BYTES {
                return Err(self.away(format!("more than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok((answer.status(), body))
    }

    fn parse<T: DeserializeOwned>(&self, what: &str, (status, body): (StatusCode, Vec<u8>)) -> Result<T, FarmError> {
        if status != StatusCode::OK {
            let error: Option<ErrorAnswer> = serde_json::from_slice(&body).ok();
            let word = error.map(|answer| answer.error).unwrap_or_default();
            return Err(self.away(format!("{what}: {status} {}", word.chars().take(100).collect::<String>())));
        }
        // The error of a parser quotes nothing of what it read but single values; no secret is a number.
        serde_json::from_slice(&body)
            .map_err(|e| self.away(format!("{what}: line {} is not what it should be", e.line())))
    }

    async fn places(&self) -> Result<Places, FarmError> {
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let client = self.client().await?;
        let places: Places = self.parse("discovery", self.answer(client.get(&url)).await?)?;
        if places.issuer != self.config.issuer {
            let shown: String = places.issuer.chars().take(200).collect();
            return Err(self.misconfigured(format!("it calls itself {shown:?}")));
        }
        Ok(places)
    }

    /// A place that may be told secrets.
    fn place(&self, text: &str) -> Result<Url, FarmError> {
        match Url::parse(text) {
            Ok(url) if is_safe(&url) => Ok(url),
            _ => Err(self.misconfigured("it names a place that is not https")),
        }
    }

    /// A form with what identifies this farm.
    async fn form(&self, to: &str, fields: &[(&str, &str)]) -> Result<RequestBuilder, FarmError> {
        let body = {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(fields).append_pair("client_id", &self.config.client_id);
            if let Some(path) = &self.config.client_secret_file {
                let secret = std::fs::read_to_string(path);
                let secret = secret.map_err(|e| self.misconfigured(format!("{}: {e}", path.display())))?;
                form.append_pair("client_secret", secret.trim());
            }
            form.finish()
        };
        let request = self.client().await?.post(self.place(to)?);
        let kind = "application/x-www-form-urlencoded";
        Ok(request.header(header::CONTENT_TYPE, kind).body(body))
    }

    pub(super) async fn begin(&self) -> Result<DeviceCode, FarmError> {
        let places = self.places().await?;
        let none = || self.misconfigured("it has no device flow (no device_authorization_endpoint)");
        let to = places.device_authorization_endpoint.ok_or_else(none)?;
        let form = self.form(&to, &[("scope", &self.config.scope)]).await?;
        let answer: DeviceAnswer = self.parse("device authorization", self.answer(form).await?)?;
        Ok(DeviceCode {
            device_code: answer.device_code,
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete,
            interval: answer.interval.map_or(INTERVAL, |seconds| Duration::from_secs(seconds.clamp(1, 60))),
            expires_in: Duration::from_secs(answer.expires_in),
        })
    }

    pub(super) async fn ask(&self, device_code: &str) -> Result<Granted, FarmError> {
        let places = self.places().await?;
        let form = self.form(&places.token_endpoint, &[("grant_type", GRANT), ("device_code", device_code)]).await?;
        let (status, body) = self.answer(form).await?;
        if status == StatusCode::OK {
            let answer: TokenAnswer = self.parse("token", (status, body))?;
            let none = || self.misconfigured("it gave no id token; is the scope openid allowed?");
            return Ok(Granted::Yes { id_token: answer.id_token.ok_or_else(none)? });
        }
        let error: ErrorAnswer = serde_json::from_slice(&body).map_err(|_| self.away(format!("token: {status}")))?;
        match error.error.as_str() {
            "authorization_pending" => Ok(Granted::NotYet { slower: Duration::ZERO }),
            "slow_down" => Ok(Granted::NotYet { slower: SLOWER }),
            "access_denied" => Err(FarmError::Forbidden("the sign-in was refused on the page".to_owned())),
            "expired_token" => Err(super::unknown()),
            other => Err(self.misconfigured(format!("token: {}", other.chars().take(100).collect::<String>()))),
        }
    }

    pub(super) async fn keys(&self) -> Result<JwkSet, FarmError> {
        let places = self.places().await?;
        let client = self.client().await?;
        self.parse("keys", self.answer(client.get(self.place(&places.jwks_uri)?)).await?)
    }
}
