//! `[ssh]`: the gateway to instances.

use super::{ConfigError, Text, duration};
use serde::Deserialize;
use std::time::Duration;

/// Where the gateway listens if nothing says otherwise.
pub const DEFAULT_SSH_LISTEN: &str = "127.0.0.1:2222";
/// How long a user certificate lets somebody in.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// More would outlive what people remember of it.
const MOST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// `[ssh]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshFile {
    /// Whether there is a gateway.
    pub enabled: bool,
    /// `host:port`; port 0 picks one.
    pub listen: Option<String>,
    /// `host:port` by which clients reach it, if not as they reach the farm.
    pub advertise: Option<String>,
    /// How long a user certificate lets somebody in ("5m").
    pub certificate_lifetime: Option<Text>,
    /// Signed-in connections at once.
    pub connections: usize,
}

impl Default for SshFile {
    fn default() -> Self {
        Self { enabled: true, listen: None, advertise: None, certificate_lifetime: None, connections: 1024 }
    }
}

/// `[ssh]`, resolved.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// `host:port`; `None`: no gateway.
    pub listen: Option<String>,
    /// Whether the address was chosen by nobody, so that a port in use is no reason not to start.
    pub by_default: bool,
    /// Host and port for clients; `None`: the farm's host, and the port it listens on.
    pub advertise: Option<(String, u16)>,
    /// See [`SshFile::certificate_lifetime`].
    pub certificate_lifetime: Duration,
    /// See [`SshFile::connections`].
    pub connections: usize,
}

impl SshFile {
    /// Resolves it for a farm that listens on `farm`.
    pub(super) fn resolve(self, farm: &str) -> Result<Ssh, ConfigError> {
        let value = |key: &str, problem: String| ConfigError::Value { key: format!("ssh.{key}"), problem };
        let by_default = self.listen.is_none();
        // Whoever lets a port be picked for the farm wants no fixed one here.
        let usual = if farm.ends_with(":0") { "127.0.0.1:0" } else { DEFAULT_SSH_LISTEN };
        let listen = self.listen.unwrap_or_else(|| usual.to_owned());
        motefarm_net::dial::split_address(&listen).map_err(|e| value("listen", e.to_string()))?;
        let advertise = match &self.advertise {
            Some(address) => {
                let (host, port) =
                    motefarm_net::dial::split_address(address).map_err(|e| value("advertise", e.to_string()))?;
                Some((host.to_owned(), port))
            }
            None => None,
        };
        let lifetime = match &self.certificate_lifetime {
            Some(text) => duration("ssh.certificate_lifetime", text)?,
            None => DEFAULT_LIFETIME,
        };
        if lifetime > MOST_LIFETIME {
            return Err(value("certificate_lifetime", "longer than a day".to_owned()));
        }
        Ok(Ssh {
            listen: self.enabled.then_some(listen),
            by_default,
            advertise,
            certificate_lifetime: lifetime,
            connections: self.connections.max(1),
        })
    }
}

impl Ssh {
    /// For people.
    pub fn describe(&self) -> String {
        let lifetime = humantime::format_duration(self.certificate_lifetime);
        match &self.listen {
            Some(listen) => {
                format!("ssh gateway: {listen}, certificates for {lifetime}, {} connections", self.connections)
            }
            None => "ssh gateway: none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_follows_the_farm_unless_it_is_told() {
        let resolve = |file: SshFile, farm| file.resolve(farm);
        let usual = resolve(SshFile::default(), "0.0.0.0:8119").unwrap();
        assert_eq!((usual.listen.as_deref(), usual.by_default), (Some(DEFAULT_SSH_LISTEN), true));
        assert_eq!(resolve(SshFile::default(), "127.0.0.1:0").unwrap().listen.as_deref(), Some("127.0.0.1:0"));
        let off = SshFile { enabled: false, ..Default::default() };
        assert_eq!(resolve(off, "x:1").unwrap().listen, None);
        let told = SshFile {
            listen: Some("[::]:22".to_owned()),
            advertise: Some("farm.example:2200".to_owned()),
            certificate_lifetime: Some("1m".to_owned()),
            ..Default::default()
        };
        let told = resolve(told, "x:1").unwrap();
        assert_eq!(told.advertise, Some(("farm.example".to_owned(), 2200)));
        assert_eq!(told.certificate_lifetime, Duration::from_secs(60));
        assert!(!told.by_default && told.describe().contains("[::]:22"));
        for (file, named) in [
            (SshFile { listen: Some("x".to_owned()), ..Default::default() }, "ssh.listen"),
            (SshFile { advertise: Some("x".to_owned()), ..Default::default() }, "ssh.advertise"),
            (
                SshFile { certificate_lifetime: Some("2days".to_owned()), ..Default::default() },
                "ssh.certificate_lifetime",
            ),
        ] {
            assert!(resolve(file, "x:1").unwrap_err().to_string().contains(named));
        }
    }
}
