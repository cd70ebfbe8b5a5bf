//! Whether an id token is what it must be (OpenID Connect Core, section 3.1.3.7). `jsonwebtoken` checks
//! signature, issuer, audience and times; this says which keys and algorithms it may use at all.

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use motefarm_core::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// What is signed with a key pair. None of the HMACs: with them, a public key would do as the secret.
const ALLOWED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(60);
/// An id token is for signing in just now.
const MOST_AGE: Duration = Duration::from_secs(3600);

/// What it must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who made it.
    pub issuer: &'a str,
    /// For whom.
    pub audience: &'a str,
}

/// What it says.
#[derive(Debug)]
pub struct Verified {
    /// Who, for ever, at this issuer.
    pub subject: String,
    /// Until when it would be good.
    pub expires_at: Timestamp,
    /// Everything.
    pub claims: Value,
}

/// Why it is no good. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a token, or signed in a way that proves nothing.
    #[error("its id token is not signed in a way that is accepted")]
    Algorithm,
    /// Signed by somebody else.
    #[error("its id token is not signed by one of its keys")]
    Key,
    /// A check of the library's.
    #[error("its id token is refused: {0}")]
    Claims(String),
    /// A claim is missing or makes no sense.
    #[error("its id token has no proper claim {0}")]
    Claim(&'static str),
    /// Too old, or from the future.
    #[error("its id token was not made just now; do the clocks agree?")]
    Age,
    /// For another program, which then had it.
    #[error("its id token was made for another party")]
    OtherParty,
}

/// The key that a token with this header is signed with.
fn key<'a>(keys: &'a JwkSet, kid: Option<&str>, algorithm: Algorithm) -> Option<&'a Jwk> {
    let usable = |key: &&Jwk| {
        let for_signing = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        let alg = key.common.key_algorithm.map(|alg| alg.to_string());
        let same_alg = alg.is_none_or(|alg| alg == format!("{algorithm:?}"));
        let family = DecodingKey::from_jwk(key).is_ok_and(|key| key.family() == algorithm.family());
        for_signing && same_alg && family
    };
    let mut usable = keys.keys.iter().filter(usable);
    match kid {
        Some(kid) => usable.find(|key| key.common.key_id.as_deref() == Some(kid)),
        // Without a name only the one there is can be meant.
        None => usable.next().filter(|_| usable.next().is_none()),
    }
}

/// Verifies an id token at `now` (the library reads the clock itself, for expiry).
pub fn verify(token: &str, keys: &JwkSet, expected: &Expected<'_>, now: Timestamp) -> Result<Verified, Refusal> {
    super::crypto::install();
    let header = decode_header(token).map_err(|_| Refusal::Algorithm)?;
    if !ALLOWED.contains(&header.alg) {
        return Err(Refusal::Algorithm);
    }
    let key = key(keys, header.kid.as_deref(), header.alg).ok_or(Refusal::Key)?;
    let key = DecodingKey::from_jwk(key).map_err(|_| Refusal::Key)?;
    let mut validation = Validation::new(header.alg);
    validation.leeway = SKEW.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = decode::<Value>(token, &key, &validation).map_err(|e| Refusal::Claims(e.to_string()))?.claims;
    let seconds = |name: &'static str| claims.get(name).and_then(Value::as_f64).ok_or(Refusal::Claim(name));
    let at = |seconds: f64| Timestamp::from_millis((seconds * 1000.0) as i64);
    let (issued_at, expires_at) = (at(seconds("iat")?), at(seconds("exp")?));
    if issued_at > now + SKEW || now > issued_at + MOST_AGE {
        return Err(Refusal::Age);
    }
    let parties = claims.get("aud").and_then(Value::as_array).map_or(1, Vec::len);
    match claims.get("azp") {
        Some(party) if party != expected.audience => return Err(Refusal::OtherParty),
        None if parties > 1 => return Err(Refusal::OtherParty),
        _ => {}
    }
    let subject = claims.get("sub").and_then(Value::as_str).filter(|text| (1..=255).contains(&text.len()));
    let subject = subject.ok_or(Refusal::Claim("sub"))?.to_owned();
    Ok(Verified { subject, expires_at, claims })
}
