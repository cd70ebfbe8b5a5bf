//! What is configured of the relay: `[relay]` of the bridge's file, flags over it. Parsing is a function of
//! values.

use super::upstream::Upstream;
use crate::config::{ConfigError, wrong};
use anyhow::Context as _;
use motefarm_net::tls;
use rustls::ClientConfig;
use serde::Deserialize;
use std::path::PathBuf;

/// Where `http_proxy` listens, and Goma's control script sends its client.
pub const DEFAULT_PORT: u16 = 19_080;
/// Looked at where only a host is known, and nobody answers on 443.
const DEFAULT_UPSTREAM_PORT: u16 = 5050;

/// `[relay]`. Every key may be absent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayFile {
    /// The server: `http://HOST:PORT`, `https://HOST:PORT`, or less.
    pub upstream: Option<String>,
    /// Port of 127.0.0.1 to listen on.
    pub port: Option<u16>,
    /// Looked at where only a host is known, and nobody answers on 443.
    pub default_port: u16,
    /// Whether the other scheme is used when the server turns out to speak that.
    pub switch_scheme: bool,
    /// PEM file of the CA that vouches for the server; absent: what the system trusts.
    pub ca_file: Option<PathBuf>,
    /// PEM file of a certificate to show to the server.
    pub cert: Option<PathBuf>,
    /// PEM file: its key.
    pub key: Option<PathBuf>,
    /// File with what is shown as `Authorization`.
    pub token_file: Option<PathBuf>,
    /// `LUCI_CONTEXT` file to write, by which clients get tokens here.
    pub local_auth: Option<PathBuf>,
    /// Connections at once.
    pub connections: usize,
}

impl Default for RelayFile {
    fn default() -> Self {
        Self {
            upstream: None,
            port: None,
            default_port: DEFAULT_UPSTREAM_PORT,
            switch_scheme: false,
            ca_file: None,
            cert: None,
            key: None,
            token_file: None,
            local_auth: None,
            connections: 1024,
        }
    }
}

/// What flags and the environment say.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    /// `--upstream`, `MOTE_BRIDGE_UPSTREAM`.
    pub upstream: Option<String>,
    /// `--server-host`.
    pub server_host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `--local-auth`.
    pub local_auth: Option<PathBuf>,
    /// `--switch-scheme`.
    pub switch_scheme: bool,
}

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// The server.
    pub upstream: Upstream,
    /// Port of 127.0.0.1 to listen on; 0 picks one.
    pub port: u16,
    /// See [`RelayFile`].
    pub default_port: u16,
    /// See [`RelayFile`].
    pub switch_scheme: bool,
    ca_file: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    /// See [`RelayFile`].
    pub token_file: Option<PathBuf>,
    /// See [`RelayFile`].
    pub local_auth: Option<PathBuf>,
    /// See [`RelayFile`].
    pub connections: usize,
}

impl RelayFile {
    /// Resolves file and flags.
    pub fn resolve(self, flags: Flags) -> Result<RelayConfig, ConfigError> {
        let upstream = choose(flags.server_host.as_deref(), flags.upstream.as_deref().or(self.upstream.as_deref()))?;
        let port = flags.port.or(self.port).unwrap_or(DEFAULT_PORT);
        if upstream.is_own(port) {
            return Err(wrong("relay.upstream", format!("{upstream} is the relay itself")));
        }
        let certificate = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(wrong("relay.cert", "cert and key belong together")),
        };
        if self.connections == 0 {
            return Err(wrong("relay.connections", "0 lets nobody in"));
        }
        Ok(RelayConfig {
            upstream,
            port,
            default_port: self.default_port,
            switch_scheme: flags.switch_scheme || self.switch_scheme,
            ca_file: flags.ca_file.or(self.ca_file),
            certificate,
            token_file: flags.token_file.or(self.token_file),
            local_auth: flags.local_auth.or(self.local_auth),
            connections: self.connections,
        })
    }
}

/// Goma's control script cuts off the port, so a host alone says less than our own configuration does.
fn choose(server_host: Option<&str>, own: Option<&str>) -> Result<Upstream, ConfigError> {
    let parse = |key: &'static str, text: Option<&str>| {
        text.map(|text| text.parse::<Upstream>().map_err(|problem| wrong(key, problem))).transpose()
    };
    let (said, own) = (parse("--server-host", server_host)?, parse("relay.upstream", own)?);
    match (said, own) {
        (Some(said), Some(own)) if said.is_bare() => Ok(own),
        (Some(said), _) => Ok(said),
        (None, Some(own)) => Ok(own),
        (None, None) => {
            Err(wrong("relay.upstream", "no server is named: --server-host HOST:PORT, or MOTE_BRIDGE_UPSTREAM"))
        }
    }
}

impl RelayConfig {
    /// How the server is known, and what it is shown.
    pub fn client_tls(&self) -> anyhow::Result<ClientConfig> {
        let mut config = match &self.ca_file {
            Some(path) => {
                let pem = std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
                tls::client_config(&pem).with_context(|| format!("{} is no use", path.display()))?
            }
            None => tls::client_config_system()?,
        };
        if let Some((cert, key)) = &self.certificate {
            tls::show_certificate(&mut config, cert, key)?;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    fn resolve(text: &str, server_host: Option<&str>) -> Result<RelayConfig, String> {
        let flags = Flags { server_host: server_host.map(str::to_owned), ..Flags::default() };
        File::parse(text)?.relay.resolve(flags).map_err(|error| error.to_string())
    }

    #[test]
    fn our_own_word_wins_over_a_host_whose_port_was_cut_off() {
        const OWN: &str = "relay.upstream = \"https://build.example:5050\"\n";
        for (text, server_host, expected) in [
            (OWN, Some("build.example"), "https://build.example:5050"),
            (OWN, Some("other.example:81"), "other.example:81"),
            (OWN, Some("http://other.example"), "http://other.example"),
            (OWN, None, "https://build.example:5050"),
            ("", Some("build.example"), "build.example"),
        ] {
            assert_eq!(resolve(text, server_host).unwrap().upstream.to_string(), expected, "{server_host:?}");
        }
        assert_eq!(resolve("", Some("h")).unwrap().port, 19_080);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, server_host, expected) in [
            ("", None, "no server is named"),
            ("", Some("ftp://x"), "--server-host: ftp:// is not spoken"),
            ("", Some("127.0.0.1:19080"), "is the relay itself"),
            ("relay.cert = \"/c\"", Some("h"), "cert and key belong together"),
            ("relay.connections = 0", Some("h"), "lets nobody in"),
            ("relay.upsteam = \"h\"", Some("h"), "unknown field"),
        ] {
            let problem = resolve(text, server_host).unwrap_err();
            assert!(problem.contains(expected), "{text} {server_host:?}: {problem}");
        }
        let gone = resolve("relay.ca_file = \"/nowhere/ca.pem\"", Some("h")).unwrap();
        assert!(gone.client_tls().unwrap_err().to_string().contains("can not read /nowhere/ca.pem"));
    }
}
