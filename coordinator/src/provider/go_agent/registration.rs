//! What a Go agent says when it registers. Pure.
//!
//! It has two ways. In "swarming" mode it shows a token that we made, so that is how agents come here. In
//! pool mode it shows a key that, against any coordinator but Go's own, is made from a secret in its
//! source: that proves nothing and is refused.

use http::HeaderMap;
use motefarm_core::{Digest, HostType};
use motefarm_net::token::JoinToken;
use uuid::Uuid;

/// Where the agent says which it is (`$GOMOTEID`).
const ID: &str = "x-go-gomote-id";
/// Where it shows its token (`$GO_BUILDLET_TOKEN`).
const TOKEN: &str = "x-go-swarming-auth-token";
/// Where it names its machine.
const HOSTNAME: &str = "x-go-hostname";
/// What only pool mode sends.
const POOL_KEY: &str = "x-go-builder-key";
/// Longest name of an agent or machine.
const MAX_NAME: usize = 200;

/// See the module.
#[derive(Debug)]
pub struct Registration {
    /// What it serves; the token must allow it.
    pub host_type: HostType,
    /// What tells it from others that come with the same token: the second part of `$GOMOTEID`, or its
    /// machine's name.
    pub name: String,
    /// Its machine's name.
    pub hostname: String,
    /// By what right.
    pub token: JoinToken,
}

/// Why a registration is none. The text is short, since agents put it into lines of bounded length.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Pool mode.
    #[error(
        "-reverse-type proves nothing here; run the agent with -swarming-bot -gomote-server-addr=NAME:443, \
         GOMOTEID=HOST-TYPE and GO_BUILDLET_TOKEN=TOKEN; see docs/go-agents.md"
    )]
    Pool,
    /// A header is missing or can not be read.
    #[error("{0}")]
    Header(String),
}

impl Registration {
    /// Reads the headers of `GET /reverse`.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, RegistrationError> {
        let bad = |problem: String| RegistrationError::Header(problem);
        let get = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
            value.ok_or_else(|| bad(format!("the header {name} is missing")))
        };
        if headers.contains_key(POOL_KEY) {
            return Err(RegistrationError::Pool);
        }
        let (id, hostname) = (get(ID)?, get(HOSTNAME)?);
        let (host_type, name) = id.split_once('/').unwrap_or((id, hostname));
        for (what, text) in [("$GOMOTEID's second part", name), ("the host name", hostname)] {
            if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
                return Err(bad(format!("{what} is not 1 to {MAX_NAME} printable characters")));
            }
        }
        Ok(Self {
            host_type: host_type
                .parse()
                .map_err(|error| bad(format!("GOMOTEID is not HOST-TYPE or HOST-TYPE/NAME: {error}")))?,
            name: name.to_owned(),
            hostname: hostname.to_owned(),
            token: get(TOKEN)?.parse().map_err(|error| bad(format!("GO_BUILDLET_TOKEN: {error}")))?,
        })
    }

    /// The id its rows have: the same whenever this agent comes with this token, so that what it had is
    /// found and seen to be gone when it comes back empty.
    pub fn buildlet_id(&self) -> Uuid {
        let text = ["mote go agent", &self.token.id, self.host_type.as_str(), &self.name].join("\0");
        let digest = Digest::of(text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.hash()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap())).collect()
    }

    fn read(id: &str, hostname: &str, token: &str) -> Result<Registration, RegistrationError> {
        Registration::from_headers(&headers(&[
            ("x-go-gomote-id", id),
            ("x-go-hostname", hostname),
            ("x-go-swarming-auth-token", token),
        ]))
    }

    #[test]
    fn an_agent_is_known_by_its_token_its_type_and_its_name() {
        let token = JoinToken::generate(&"0".repeat(64));
        let mac = read("darwin-arm64", "mac1", &token.reveal()).unwrap();
        assert_eq!(
            (mac.host_type.as_str(), mac.name.as_str(), mac.hostname.as_str()),
            ("darwin-arm64", "mac1", "mac1")
        );
        let second = read("darwin-arm64/second", "mac1", &token.reveal()).unwrap();
        assert_eq!((second.name.as_str(), second.hostname.as_str()), ("second", "mac1"));
        let again = read("darwin-arm64/mac1", "renamed", &token.reveal()).unwrap();
        assert_eq!(mac.buildlet_id(), again.buildlet_id());
        assert_ne!(mac.buildlet_id(), second.buildlet_id());
        let other = JoinToken::generate(&"0".repeat(64));
        assert_ne!(mac.buildlet_id(), read("darwin-arm64", "mac1", &other.reveal()).unwrap().buildlet_id());
    }

    #[test]
    fn pool_mode_is_told_what_to_do() {
        // As the Go agent writes it, with the key of that host type under the master key in its source.
        let refused = Registration::from_headers(&headers(&[
            ("user-agent", "Go-http-client/1.1"),
            ("x-go-builder-hostname", "myhost"),
            ("x-go-builder-key", "bcf798775e29660e5e44a4f43647f0c5"),
            ("x-go-builder-version", "29"),
            ("x-go-host-type", "host-linux-x"),
            ("x-revdial-version", "2"),
        ]));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("-swarming-bot") && text.contains("GO_BUILDLET_TOKEN") && text.len() < 300, "{text}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_no_secret_repeated() {
        let token = JoinToken::generate(&"0".repeat(64)).reveal();
        let problem = |id: &str, hostname: &str, token: &str| read(id, hostname, token).unwrap_err().to_string();
        assert!(problem("", "h", &token).contains("x-go-gomote-id"));
        assert!(problem("t", "", &token).contains("x-go-hostname"));
        assert!(problem("t", "h", "").contains("x-go-swarming-auth-token"));
        assert!(problem("Not A Type", "h", &token).contains("HOST-TYPE"));
        assert!(problem("t/", "h", &token).contains("second part"));
        let wrong = problem("t", "h", "secret-with-a-typing-error");
        assert!(wrong.contains("GO_BUILDLET_TOKEN") && !wrong.contains("typing-error"));
    }
}
