//! What the Go client asks a cloud's metadata server: which project this is, and for a token.
//!
//! That is the one way to give the unmodified client a token that is not Google's: with
//! `GCE_METADATA_HOST` it believes itself in the cloud. Only the farm's own user is answered, known
//! by the socket (the same who needs no token for our own protocol), so nothing is given away.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use motefarm_core::Timestamp;
use motefarm_net::token::ApiToken;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// The project in which the client asks for a token (golang/build `internal/iapclient`).
pub(super) const PROJECT: &str = "symbolic-datum-552";
/// The header that both sides of a metadata server send; a browser that was led astray does not.
const FLAVOR: &str = "metadata-flavor";
/// How long a token is good. The client keeps one for less than an hour.
const LIFE: Duration = Duration::from_secs(2 * 3600);
/// How long a token must still be good to be given out.
const LEAST: Duration = Duration::from_secs(3600);

/// Tokens given to the farm's own user; in memory only, so they end with this process.
#[derive(Default)]
pub struct LocalTokens(Mutex<Vec<(ApiToken, Timestamp)>>);

impl LocalTokens {
    /// A token that is good for an hour at least.
    pub(super) fn give(&self, now: Timestamp) -> ApiToken {
        let mut tokens = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        tokens.retain(|(_, until)| *until > now);
        match tokens.last() {
            // A clock set back would make one good for longer than promised.
            Some((token, until)) if *until >= now + LEAST && *until <= now + LIFE => token.clone(),
            _ => {
                let token = ApiToken::generate();
                tokens.push((token.clone(), now + LIFE));
                token
            }
        }
    }

    /// Whether a token was given out here and is still good.
    pub fn knows(&self, token: &ApiToken, now: Timestamp) -> bool {
        let tokens = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        tokens.iter().any(|(own, until)| *until > now && own.hash() == token.hash())
    }
}

/// An answer as a metadata server gives it.
pub(super) fn answer(text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/text")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static(FLAVOR), HeaderValue::from_static("Google")),
    ];
    (headers, text).into_response()
}

/// Whether a request is one that a program made of its own will: a page in a browser can neither set
/// the header for another origin, nor name a loopback host as its own; a proxy says whom it speaks for.
/// Otherwise answers what is wrong.
pub(super) fn check(headers: &HeaderMap, host: Option<&str>) -> Result<(), &'static str> {
    if headers.get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
        return Err("the header Metadata-Flavor: Google is missing\n");
    }
    if headers.contains_key("x-forwarded-for") {
        return Err("not through a proxy\n");
    }
    let host = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    let loopback = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    if loopback { Ok(()) } else { Err("only by a loopback address or as localhost\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_an_hour_and_not_for_ever() {
        let (tokens, now) = (LocalTokens::default(), Timestamp::from_millis(0));
        let hours = |n: u64| now + Duration::from_secs(n * 3600);
        let first = tokens.give(now);
        assert_eq!(tokens.give(hours(1)), first);
        let second = tokens.give(hours(1) + Duration::from_secs(1));
        assert!(second != first && tokens.knows(&first, hours(1)) && tokens.knows(&second, hours(3)));
        assert!(!tokens.knows(&first, hours(2)));
        assert!(!tokens.knows(&ApiToken::generate(), now));
        for hour in 2..100 {
            tokens.give(hours(hour));
            assert!(tokens.0.lock().unwrap().len() <= 3);
        }
    }

    #[test]
    fn only_programs_that_mean_it_are_answered() {
        let mut headers = HeaderMap::new();
        assert!(check(&headers, Some("127.0.0.1:1")).is_err());
        headers.insert(FLAVOR, HeaderValue::from_static("Google"));
        for good in ["127.0.0.1:8119", "localhost", "[::1]:8119"] {
            assert!(check(&headers, Some(good)).is_ok(), "{good}");
        }
        for bad in [None, Some("farm.example:8119"), Some("10.0.0.1"), Some("localhost.example"), Some("")] {
            assert!(check(&headers, bad).is_err(), "{bad:?}");
        }
        headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        assert!(check(&headers, Some("127.0.0.1:1")).is_err());
    }
}
