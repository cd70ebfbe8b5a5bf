//! Headers of a request on its way: what ends here, and who it is from. Pure.

use crate::access::OTHER_USER;
use crate::local_auth::NO_TOKEN;
use http::header::{AUTHORIZATION, CONNECTION, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A client's, as the server is to have them. `ours`: shown in the place of what the client shows.
pub(super) fn of_request(headers: &HeaderMap, is_own_user: bool, ours: Option<HeaderValue>) -> HeaderMap {
    let mut kept = end_to_end(headers);
    for name in [HOST, EXPECT, HeaderName::from_static(OTHER_USER)] {
        kept.remove(name);
    }
    if kept.get(AUTHORIZATION).is_some_and(is_filler) {
        kept.remove(AUTHORIZATION);
    }
    if let Some(value) = ours {
        kept.insert(AUTHORIZATION, value);
    }
    if !is_own_user {
        kept.insert(HeaderName::from_static(OTHER_USER), HeaderValue::from_static("1"));
    }
    kept
}

/// The `Authorization` that a client has from [`crate::local_auth`] where no token is needed.
fn is_filler(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.strip_prefix("Bearer ").is_some_and(|token| token.trim() == NO_TOKEN))
}

/// Without what belongs to one connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').filter_map(|name| name.trim().parse().ok()))
        .collect();
    let mut kept = headers.clone();
    let usual = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let usual = usual.into_iter().chain(["keep-alive", "proxy-connection"].map(HeaderName::from_static));
    for name in usual.chain(named) {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
            ("content-encoding", "gzip"),
            ("cookie", "GomaClient=1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept = end_to_end(&headers);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-encoding", "cookie"]);
    }

    #[test]
    fn a_server_is_shown_what_is_known_of_the_caller() {
        let with = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let own = || Some(HeaderValue::from_static("Bearer ours"));
        for (headers, is_own_user, ours, authorization, is_marked) in [
            (with("authorization", "Basic x"), true, None, Some("Basic x"), false),
            (with("authorization", "Basic x"), true, own(), Some("Bearer ours"), false),
            (with("authorization", "Bearer own-user"), true, None, None, false),
            (with("authorization", "Basic x"), false, None, Some("Basic x"), true),
            (with("mote-other-user", "0"), false, None, None, true),
        ] {
            let sent = of_request(&headers, is_own_user, ours);
            assert_eq!(sent.get(AUTHORIZATION).map(|value| value.to_str().unwrap()), authorization);
            assert_eq!(sent.get(OTHER_USER).is_some_and(|mark| mark == "1"), is_marked);
        }
    }
}
