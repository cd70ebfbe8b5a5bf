//! What of a server's answers is passed on. Pure.
//!
//! A redirect and 403 disable a client for minutes, and any error on a compile makes others of the same second
//! fail. So a compile is answered by a message that says what is wrong, whatever that is: the client tries again
//! and then compiles locally. Only what tells the client something that it acts on rightly is passed on as it
//! came: 400 and 415 (do not compress), 401 (your token).

use bytes::Bytes;
use http::StatusCode;
use motefarm_proto::goma::{ExecResp, ExecResult};
use prost::Message as _;
use std::time::Duration;

/// What is asked, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `/ping`.
    Ping,
    /// `/e`.
    Compile,
    /// Everything else.
    Other,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client has it as it is.
    Pass,
    /// The client is told of it in other words.
    Withhold,
}

impl Call {
    /// By the path, whatever stands before its last part.
    pub(super) fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("ping") => Self::Ping,
            Some("e") => Self::Compile,
            _ => Self::Other,
        }
    }

    /// How long an answer may take to begin: a little less than clients wait for it.
    pub(super) const fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Ping => 9,
            Self::Compile => 605,
            Self::Other => 14 * 60,
        })
    }
}

/// `is_our_token`: what was shown to the server is not the client's.
pub(super) fn judge(call: Call, status: StatusCode, is_our_token: bool) -> Verdict {
    let pass = match (call, status.as_u16()) {
        (_, 200 | 204) => true,
        // 401 at the start is what makes goma_ctl.py say that something is wrong.
        (Call::Ping, 401) => true,
        (_, 401) => !is_our_token,
        (_, 100..=399 | 403) => false,
        (Call::Compile, code) => matches!(code, 400 | 415),
        (Call::Ping | Call::Other, _) => true,
    };
    if pass { Verdict::Pass } else { Verdict::Withhold }
}

/// What an answer that is withheld was, after the server's name.
pub(super) fn words(status: StatusCode, location: Option<&str>, said: &[u8], is_our_token: bool) -> String {
    let said = String::from_utf8_lossy(said);
    let line: String = said.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
    let said = if line.is_empty() { String::new() } else { format!(": {line}") };
    match (status, location) {
        (status, Some(to)) if status.is_redirection() => {
            format!("redirects to {to}. Clients do not survive that: say where the server is (MOTE_BRIDGE_UPSTREAM)")
        }
        (StatusCode::UNAUTHORIZED, _) if is_our_token => {
            format!("refuses the token of the relay's --token-file{said}")
        }
        _ => format!("answered {status}{said}"),
    }
}

/// Status, content type and body in the place of an answer.
pub(super) fn instead(call: Call, why: &str) -> (StatusCode, &'static str, Bytes) {
    let why = format!("mote-bridge relay: {why}");
    match call {
        Call::Compile => {
            let answer = ExecResp {
                result: Some(ExecResult { exit_status: -1, ..ExecResult::default() }),
                error_message: vec![why],
                ..ExecResp::default()
            };
            (StatusCode::OK, "binary/x-protocol-buffer", answer.encode_to_vec().into())
        }
        Call::Ping | Call::Other => (
            StatusCode::BAD_GATEWAY,
            "text/plain; charset=utf-8",
            format!("{}\n", why.replace(['\r', '\n'], " ")).into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_given_what_it_survives() {
        use Call::{Compile, Other, Ping};
        let passed = |call: Call, ours: bool| -> Vec<u16> {
            let all = (100..600).filter_map(|code| StatusCode::from_u16(code).ok());
            let passed = all.filter(|status| judge(call, *status, ours) == Verdict::Pass);
            passed.map(|status| status.as_u16()).collect()
        };
        assert_eq!(passed(Compile, false), [200, 204, 400, 401, 415]);
        assert_eq!(passed(Compile, true), [200, 204, 400, 415]);
        for call in [Ping, Other] {
            let passed = passed(call, false);
            assert!([200, 401, 404, 500, 503].iter().all(|code| passed.contains(code)), "{passed:?}");
            assert!(![100, 103, 206, 301, 302, 307, 403].iter().any(|code| passed.contains(code)), "{passed:?}");
        }
        assert_eq!(
            (judge(Ping, StatusCode::UNAUTHORIZED, true), judge(Other, StatusCode::UNAUTHORIZED, true)),
            (Verdict::Pass, Verdict::Withhold)
        );
    }

    #[test]
    fn calls_are_known_below_every_prefix() {
        for (path, expected) in [
            ("/cxx-compiler-service/e", Call::Compile),
            ("/e", Call::Compile),
            ("/a/b/ping", Call::Ping),
            ("/cxx-compiler-service/s", Call::Other),
            ("/cxx-compiler-service/sle", Call::Other),
        ] {
            assert_eq!(Call::of(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_withheld_is_told_in_one_line() {
        let moved = words(StatusCode::FOUND, Some("https://h/"), b"", false);
        assert!(moved.contains("redirects to https://h/"), "{moved}");
        let refused = words(StatusCode::UNAUTHORIZED, None, b"no such token\nmore", true);
        assert_eq!(refused, "refuses the token of the relay's --token-file: no such token");
        assert_eq!(words(StatusCode::BAD_GATEWAY, None, b"a\x1b[31m", false), "answered 502 Bad Gateway: a[31m");
        let (status, _, body) = instead(Call::Ping, "upstream x:\nrefused");
        assert_eq!((status.as_u16(), &body[..]), (502, &b"mote-bridge relay: upstream x: refused\n"[..]));
        let (status, _, body) = instead(Call::Compile, "upstream x");
        let answer = ExecResp::decode(body).unwrap();
        assert_eq!((status.as_u16(), answer.error_message), (200, vec!["mote-bridge relay: upstream x".to_owned()]));
    }
}
