//! Who the client would say it is. Pure, like `environment`.

use super::catalogue::Kind;
use super::environment::{Facts, Looked};
use super::report::Finding;
use std::path::Path;

/// Sources of a token, in the client's order; the first that is set is used.
const SOURCES: [&str; 5] = [
    "GOMA_HTTP_AUTHORIZATION_FILE",
    "GOMA_OAUTH2_CONFIG_FILE",
    "GOMA_SERVICE_ACCOUNT_JSON_FILE",
    "GOMA_GCE_SERVICE_ACCOUNT",
    "LUCI_CONTEXT",
];
/// Where the client keeps what a login at Google gave.
const OWN_CONFIG: &str = ".goma_client_oauth2_config";

/// What is known of it.
#[derive(Debug, Default)]
pub struct Authorization {
    /// The `Authorization` that every request shows, if that is known beforehand.
    pub value: Option<String>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl Authorization {
    /// By the variables, and the files they name.
    pub fn of(facts: &Facts<'_>) -> Self {
        let source = SOURCES.into_iter().find(|name| facts.variables.text(name).is_some());
        let own = facts.variables.text("HOME").map(|home| format!("{home}/{OWN_CONFIG}"));
        let own_login = own.filter(|path| (facts.look)(Path::new(path)).is_ok_and(|looked| has_login(&looked)));
        match source {
            Some("GOMA_HTTP_AUTHORIZATION_FILE") => {
                let path = facts.variables.text("GOMA_HTTP_AUTHORIZATION_FILE").unwrap_or_default();
                file(facts, path)
            }
            Some("LUCI_CONTEXT") => Self { value: None, findings: local_server(facts).into_iter().collect() },
            Some(name) => Self { value: None, findings: vec![other(name)] },
            None => {
                let finding = own_login.map_or_else(slow_start, |path| other(&path));
                Self { value: None, findings: vec![finding] }
            }
        }
    }
}

/// It gives out tokens on this machine; the relay is one.
fn local_server(facts: &Facts<'_>) -> Option<Finding> {
    let path = facts.variables.text("LUCI_CONTEXT")?;
    let error = (facts.look)(Path::new(path)).err()?;
    let problem = format!("LUCI_CONTEXT can not be read: {path}: {error}");
    Some(Finding::new(Kind::MissingFile, problem, "unset LUCI_CONTEXT   # or start again what serves it"))
}

fn other(source: &str) -> Finding {
    Finding::new(
        Kind::OtherLogin,
        format!("the client signs in by {source}"),
        "export GOMA_HTTP_AUTHORIZATION_FILE=/absolute/path   # goes before it, if the server wants a token of its own",
    )
}

fn slow_start() -> Finding {
    Finding::new(
        Kind::SlowStart,
        "no variable names a token, and none is needed where the server lets you in without",
        "export GOMA_HTTP_AUTHORIZATION_FILE=/absolute/path   # any word in that file will do, if no token is wanted",
    )
}

/// A login, not just what the client leaves where it found none.
fn has_login(looked: &Looked) -> bool {
    let word = b"refresh_token";
    let text = String::from_utf8_lossy(&looked.content);
    let value = text.split_once("refresh_token").map(|(_, rest)| rest.trim_start_matches(['"', ' ', ':', '\t']));
    looked.content.len() > word.len() && value.is_some_and(|value| !value.is_empty() && !value.starts_with([',', '}']))
}

fn file(facts: &Facts<'_>, path: &str) -> Authorization {
    // `environment` says what is wrong with such a one.
    if path.starts_with('~') || path.contains('$') {
        return Authorization::default();
    }
    let bad = |problem: String, fix: &str| Authorization {
        value: None,
        findings: vec![Finding::new(Kind::AuthorizationFile, problem, fix)],
    };
    if !path.starts_with('/') {
        let problem = format!("GOMA_HTTP_AUTHORIZATION_FILE is the relative path {path:?}");
        return bad(problem, "export GOMA_HTTP_AUTHORIZATION_FILE=/absolute/path");
    }
    let looked = match (facts.look)(Path::new(path)) {
        Ok(looked) => looked,
        Err(error) => {
            let problem = format!("GOMA_HTTP_AUTHORIZATION_FILE can not be read: {path}: {error}");
            return bad(problem, "unset GOMA_HTTP_AUTHORIZATION_FILE   # where no token is wanted");
        }
    };
    let content = looked.content.trim_ascii_end();
    match std::str::from_utf8(content) {
        Ok("") => bad(format!("{path} is empty"), "write one line into it: Bearer TOKEN"),
        Ok(text) if text.contains(['\r', '\n']) => bad(
            format!("{path} has more than one line, or a carriage return in it"),
            "keep one line in it: Bearer TOKEN",
        ),
        Ok(text) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            let open = (looked.mode & 0o044 != 0).then(|| {
                Finding::new(
                    Kind::OpenTokenFile,
                    format!("{path} can be read by others (mode {:o})", looked.mode & 0o777),
                    format!("chmod 600 '{}'", path.replace('\'', "'\\''")),
                )
            });
            Authorization { value: Some(text.to_owned()), findings: open.into_iter().collect() }
        }
        _ => bad(format!("{path} holds bytes that have no place in a header"), "keep one line in it: Bearer TOKEN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn judge(pairs: &[(&str, &str)]) -> (Option<String>, Vec<&'static str>) {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let look = |path: &Path| {
            let (content, mode): (&[u8], u32) = match path.to_str() {
                Some("/token") => (b"Bearer x\n", 0o600),
                Some("/open") => (b"Bearer x", 0o644),
                Some("/lines") => (b"Bearer x\nmore", 0o600),
                Some("/return") => (b"Bearer x\ry", 0o600),
                Some("/empty") => (b"\n", 0o600),
                Some("/binary") => (b"Bearer \xff", 0o600),
                Some("/in/.goma_client_oauth2_config") => (b"{\"refresh_token\": \"1//x\"}", 0o600),
                Some("/out/.goma_client_oauth2_config") => (b"{\"client_id\": \"c\", \"refresh_token\": \"\"}", 0o600),
                _ => return Err(io::Error::from(io::ErrorKind::NotFound)),
            };
            Ok(Looked { content: content.to_vec(), mode })
        };
        let judged = Authorization::of(&Facts { variables: &variables, look: &look, uid: 1 });
        (judged.value, judged.findings.into_iter().map(|finding| finding.id).collect())
    }

    #[test]
    fn the_file_is_what_every_request_shows_if_the_client_can_read_it() {
        let value = || Some("Bearer x".to_owned());
        for (path, expected) in [
            ("/token", (value(), &[][..])),
            ("/open", (value(), &["open-token-file"])),
            ("/none", (None, &["authorization-file"])),
            ("token", (None, &["authorization-file"])),
            ("/lines", (None, &["authorization-file"])),
            ("/return", (None, &["authorization-file"])),
            ("/empty", (None, &["authorization-file"])),
            ("/binary", (None, &["authorization-file"])),
            ("~/token", (None, &[])),
        ] {
            let (value, ids) = judge(&[("GOMA_HTTP_AUTHORIZATION_FILE", path)]);
            assert_eq!((value, ids.as_slice()), expected, "{path}");
        }
    }

    #[test]
    fn another_login_is_told_and_none_costs_time() {
        assert_eq!(judge(&[]).1, ["slow-start"]);
        assert_eq!(judge(&[("HOME", "/out")]).1, ["slow-start"]);
        assert_eq!(judge(&[("HOME", "/in")]).1, ["other-login"]);
        assert_eq!(judge(&[("LUCI_CONTEXT", "/x")]).1, ["missing-file"]);
        assert_eq!(judge(&[("LUCI_CONTEXT", "/token")]).1, Vec::<&str>::new());
        assert_eq!(judge(&[("HOME", "/in"), ("GOMA_HTTP_AUTHORIZATION_FILE", "/token")]).1, Vec::<&str>::new());
    }
}
