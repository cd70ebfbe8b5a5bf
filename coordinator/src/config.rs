//! Configuration: one TOML file, defaults that need none, flags over both. Parsing is a function of
//! strings, tested without a process.

mod fetch;
mod oidc;
mod reapi;
mod ssh;

pub use fetch::{Fetch, FetchFile, has_credentials};
pub use oidc::{Oidc, OidcFile, RoleRule, RoleRuleFile, is_safe};
pub use reapi::{Reapi, ReapiFile};
pub use ssh::{DEFAULT_SSH_LISTEN, Ssh, SshFile};

use motefarm_core::HostType;
use motefarm_core::lease::LeaseTerms;
use motefarm_proto::mote;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Port of a coordinator with no configuration, on loopback.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8119";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("can not read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be; the message holds line and column.
    #[error("{path}: {problem}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A value makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// The file as written. Every key may be absent.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `host:port` to listen on.
    pub listen: Option<String>,
    /// Where everything is kept.
    pub data_dir: Option<PathBuf>,
    /// Address other machines reach this coordinator by; what `invite` prints.
    pub advertise: Option<String>,
    /// More names for the server certificate.
    pub names: Vec<String>,
    /// Take buildlets without a sandbox although there are several users or the port is not on loopback.
    pub allow_unsandboxed: bool,
    /// Leases.
    pub leases: LeasesFile,
    /// Host types: `[host_types.linux-amd64]`.
    pub host_types: BTreeMap<String, HostTypeFile>,
    /// The resident buildlet.
    pub local: LocalFile,
    /// Buildlets that listen: `[[static]]`.
    #[serde(rename = "static")]
    pub statics: Vec<StaticFile>,
    /// Bounds.
    pub limits: Limits,
    /// Content store.
    pub cas: CasFile,
    /// What may be fetched for users.
    pub fetch: FetchFile,
    /// A certificate of the operator's.
    pub tls: Option<TlsFile>,
    /// Sign-in by OpenID Connect.
    pub oidc: Option<OidcFile>,
    /// The gateway to instances.
    pub ssh: SshFile,
    /// The Remote Execution API.
    pub reapi: ReapiFile,
}

/// `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// PEM file: the server's certificate, then those that vouch for it.
    pub cert: PathBuf,
    /// PEM file: its key.
    pub key: PathBuf,
}

/// `[leases]`, and the overrides in a host type.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeasesFile {
    /// Idle time after which a lease ends ("30m").
    pub idle_timeout: Option<Text>,
    /// Longest life; absent: none.
    pub max_lifetime: Option<Text>,
    /// How long an execution nobody watches renews ("24h").
    pub unwatched_limit: Option<Text>,
    /// How long past a lease's end a buildlet that is cut off waits ("5m").
    pub grace: Option<Text>,
}

/// `[host_types.NAME]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostTypeFile {
    /// As in `[leases]`.
    pub idle_timeout: Option<Text>,
    /// As in `[leases]`.
    pub max_lifetime: Option<Text>,
    /// As in `[leases]`.
    pub unwatched_limit: Option<Text>,
    /// Address space of each process of an instance, in bytes; 0: no limit.
    pub memory_bytes: u64,
    /// Processes of an instance; 0: no limit.
    pub processes: u64,
    /// Size of a file, in bytes; 0: no limit.
    pub file_bytes: u64,
    /// A Go toolchain on this machine that instances are given as `go1.4` when asked for.
    pub bootstrap: Option<PathBuf>,
}

/// `[local]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalFile {
    /// Whether there is a buildlet on this machine.
    pub enabled: bool,
    /// Its host type; absent: named after the machine.
    pub host_type: Option<String>,
    /// Its lease slots; absent: 4 per CPU, at least 16.
    pub slots: Option<u64>,
    /// Actions it runs at a time, 0: none; absent: 1 per CPU.
    pub action_slots: Option<u64>,
    /// Its program; absent: `mote-buildlet` beside this one, else on PATH.
    pub program: Option<PathBuf>,
    /// Its socket; absent: in its data directory. Where it is a service of its own, this is how to find it.
    pub socket: Option<PathBuf>,
    /// Whether to start it when nobody answers on the socket.
    pub start: bool,
}

impl Default for LocalFile {
    fn default() -> Self {
        Self {
            enabled: true,
            host_type: None,
            slots: None,
            action_slots: None,
            program: None,
            socket: None,
            start: true,
        }
    }
}

/// `[[static]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticFile {
    /// `host:port` where `mote-buildlet listen` answers.
    pub address: String,
    /// File with its token.
    pub token_file: PathBuf,
    /// File with its CA certificate.
    pub ca_file: PathBuf,
    /// What to take it for; absent: what it says.
    pub host_type: Option<String>,
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that may wait for an instance.
    pub queue: u64,
    /// Connections at once.
    pub connections: usize,
    /// Live instances, waiting ones included, that one user may have; 0: any number.
    pub instances_per_user: u64,
    /// Commands running at once on one user's instances; 0: any number.
    pub executions_per_user: u64,
    /// How fast one user may bring content; 0: as fast as it goes.
    pub upload_bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 1000,
            connections: 4096,
            instances_per_user: 0,
            executions_per_user: 0,
            upload_bytes_per_second: 0,
        }
    }
}

/// `[cas]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CasFile {
    /// Bytes kept; absent: 20 GiB.
    pub max_bytes: Option<u64>,
}

/// Text to be parsed as a duration ("90s", "30m", "1h 30m").
pub type Text = String;

/// What flags say.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
}

/// Lease settings, resolved.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// For host types that say nothing else.
    pub terms: LeaseTerms,
    /// See [`LeasesFile::grace`].
    pub grace: Duration,
}

/// A host type, resolved.
#[derive(Debug, Clone)]
struct HostTypeConfig {
    terms: LeaseTerms,
    limits: mote::InstanceLimits,
    bootstrap: Option<PathBuf>,
}

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`.
    pub listen: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What `invite` prints; filled in once the port is known if not configured.
    pub advertised: String,
    /// For the certificate.
    pub names: Vec<String>,
    /// See [`File::allow_unsandboxed`].
    pub allow_unsandboxed: bool,
    /// Leases.
    pub leases: Leases,
    host_types: BTreeMap<HostType, HostTypeConfig>,
    /// The resident buildlet.
    pub local: LocalFile,
    /// Its host type.
    pub local_host_type: HostType,
    /// Buildlets that listen.
    pub statics: Vec<StaticFile>,
    /// Bounds.
    pub limits: Limits,
    /// Bytes the content store keeps.
    pub cas_max_bytes: u64,
    /// What may be fetched for users.
    pub fetch: Fetch,
    /// A certificate of the operator's, besides the farm's own.
    pub tls: Option<TlsFile>,
    /// Sign-in by OpenID Connect.
    pub oidc: Option<Oidc>,
    /// The gateway to instances.
    pub ssh: Ssh,
    /// The Remote Execution API.
    pub reapi: Reapi,
    /// Hash of the farm's CA; filled in at start.
    pub ca_hash: String,
}

fn duration(key: &str, text: &str) -> Result<Duration, ConfigError> {
    let problem = |problem: String| ConfigError::Value { key: key.to_owned(), problem };
    let parsed = humantime::parse_duration(text)
        .map_err(|e| problem(format!("{text:?} is not a duration such as \"30m\" or \"90s\": {e}")))?;
    if parsed < Duration::from_secs(1) {
        return Err(problem(format!("{text:?} is shorter than a second")));
    }
    Ok(parsed)
}

fn terms(
    key: &str,
    base: LeaseTerms,
    idle: Option<&Text>,
    max: Option<&Text>,
    unwatched: Option<&Text>,
) -> Result<LeaseTerms, ConfigError> {
    let parse = |name: &str, text: Option<&Text>| text.map(|t| duration(&format!("{key}.{name}"), t)).transpose();
    Ok(LeaseTerms {
        idle_timeout: parse("idle_timeout", idle)?.unwrap_or(base.idle_timeout),
        max_lifetime: parse("max_lifetime", max)?.or(base.max_lifetime),
        unwatched_limit: parse("unwatched_limit", unwatched)?.unwrap_or(base.unwatched_limit),
    })
}

fn host_type(key: &str, text: &str) -> Result<HostType, ConfigError> {
    text.parse().map_err(|e| ConfigError::Value { key: key.to_owned(), problem: format!("{e}") })
}

impl File {
    /// Reads and parses a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problem| ConfigError::Parse { path: path.to_owned(), problem })
    }

    /// Parses a file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Resolves file and flags. `default_data_dir` is used if neither names one.
    pub fn resolve(self, flags: Overrides, default_data_dir: PathBuf) -> Result<Config, ConfigError> {
        let listen = flags.listen.or(self.listen).unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        motefarm_net::dial::split_address(&listen)
            .map_err(|e| ConfigError::Value { key: "listen".to_owned(), problem: e.to_string() })?;
        let file = &self.leases;
        let base = terms(
            "leases",
            LeaseTerms::default(),
            file.idle_timeout.as_ref(),
            file.max_lifetime.as_ref(),
            file.unwatched_limit.as_ref(),
        )?;
        let grace = match &file.grace {
            Some(text) => duration("leases.grace", text)?,
            None => Duration::from_secs(300),
        };
        let mut host_types = BTreeMap::new();
        for (name, file) in &self.host_types {
            let key = format!("host_types.{name}");
            let terms = terms(
                &key,
                base,
                file.idle_timeout.as_ref(),
                file.max_lifetime.as_ref(),
                file.unwatched_limit.as_ref(),
            )?;
            let limits = mote::InstanceLimits {
                memory_bytes: file.memory_bytes,
                processes: file.processes,
                file_bytes: file.file_bytes,
            };
            let bootstrap = file.bootstrap.clone();
            if bootstrap.as_ref().is_some_and(|dir| !dir.is_absolute()) {
                let problem = "must be an absolute path".to_owned();
                return Err(ConfigError::Value { key: format!("{key}.bootstrap"), problem });
            }
            host_types.insert(host_type(&key, name)?, HostTypeConfig { terms, limits, bootstrap });
        }
        for (at, server) in self.statics.iter().enumerate() {
            let key = format!("static[{at}].address");
            motefarm_net::dial::split_address(&server.address)
                .map_err(|e| ConfigError::Value { key, problem: e.to_string() })?;
            if let Some(name) = &server.host_type {
                host_type(&format!("static[{at}].host_type"), name)?;
            }
        }
        let local_host_type = match &self.local.host_type {
            Some(name) => host_type("local.host_type", name)?,
            None => HostType::of_machine(std::env::consts::OS, std::env::consts::ARCH),
        };
        if self.local.slots == Some(0) {
            return Err(ConfigError::Value {
                key: "local.slots".to_owned(),
                problem: "0 slots serve nobody; set local.enabled = false instead".to_owned(),
            });
        }
        Ok(Config {
            ssh: self.ssh.resolve(&listen)?,
            reapi: self.reapi.resolve()?,
            listen,
            data_dir: flags.data_dir.or(self.data_dir).unwrap_or(default_data_dir),
            advertised: self.advertise.unwrap_or_default(),
            names: self.names,
            allow_unsandboxed: self.allow_unsandboxed,
            leases: Leases { terms: base, grace },
            host_types,
            local: self.local,
            local_host_type,
            statics: self.statics,
            limits: self.limits,
            cas_max_bytes: self.cas.max_bytes.unwrap_or(20 << 30),
            fetch: self.fetch.resolve()?,
            tls: self.tls,
            oidc: self.oidc.map(OidcFile::resolve).transpose()?,
            ca_hash: String::new(),
        })
    }
}

impl Config {
    /// Lease terms of a host type.
    pub fn terms(&self, host_type: &HostType) -> LeaseTerms {
        self.host_types.get(host_type).map_or(self.leases.terms, |found| found.terms)
    }

    /// Limits of a host type's instances.
    pub fn limits_of(&self, host_type: &HostType) -> mote::InstanceLimits {
        self.host_types.get(host_type).map_or_else(mote::InstanceLimits::default, |found| found.limits)
    }

    /// The bootstrap toolchain of a host type.
    pub fn bootstrap_of(&self, host_type: &HostType) -> Option<&Path> {
        self.host_types.get(host_type)?.bootstrap.as_deref()
    }

    /// Whether only this machine can reach the port.
    pub fn listens_on_loopback(&self) -> bool {
        match motefarm_net::dial::split_address(&self.listen) {
            Ok((host, _)) => host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
            Err(_) => false,
        }
    }

    /// What would be used, for people.
    pub fn describe(&self) -> String {
        use humantime::format_duration;
        let terms = |terms: &LeaseTerms| {
            let max = terms.max_lifetime.map_or("none".to_owned(), |max| format_duration(max).to_string());
            let (idle, unwatched) = (format_duration(terms.idle_timeout), format_duration(terms.unwatched_limit));
            format!("idle timeout {idle}, maximum lifetime {max}, unwatched limit {unwatched}")
        };
        let mut lines = vec![
            format!("listen: {}", self.listen),
            format!("data directory: {}", self.data_dir.display()),
            format!("leases: {}, grace {}", terms(&self.leases.terms), format_duration(self.leases.grace)),
            format!("queue: {}, connections: {}", self.limits.queue, self.limits.connections),
            format!(
                "each user: instances {}, commands at once {}, bytes brought a second {} (0: no limit)",
                self.limits.instances_per_user, self.limits.executions_per_user, self.limits.upload_bytes_per_second
            ),
            format!("content store: {} bytes", self.cas_max_bytes),
            self.ssh.describe(),
            self.reapi.describe(),
        ];
        lines.extend(
            self.host_types.iter().map(|(name, t)| format!("host type {name}: {}; {:?}", terms(&t.terms), t.limits)),
        );
        lines.extend(self.host_types.iter().filter_map(|(name, t)| {
            Some(format!("bootstrap toolchain of {name}: {}", t.bootstrap.as_ref()?.display()))
        }));
        lines.push(format!("fetched for users: {}, at most {} bytes", self.fetch.describe(), self.fetch.max_bytes));
        if let Some(tls) = &self.tls {
            lines.push(format!("certificate of the operator's: {}, {}", tls.cert.display(), tls.key.display()));
        }
        if let Some(oidc) = &self.oidc {
            lines.push(oidc.describe());
        }
        if self.local.enabled {
            let slots = self.local.slots.map_or("its own default".to_owned(), |slots| slots.to_string());
            lines.push(format!(
                "local buildlet: host type {}, slots {slots}, started here: {}",
                self.local_host_type, self.local.start
            ));
        }
        lines.extend(self.statics.iter().map(|s| format!("static buildlet: {}", s.address)));
        lines.push(format!(
            "buildlets without a sandbox for several users or other machines: {}",
            self.allow_unsandboxed
        ));
        lines.join("\n")
    }

    /// Host types that are configured.
    pub fn host_types(&self) -> Vec<HostType> {
        let local = self.local.enabled.then(|| self.local_host_type.clone());
        let statics = self.statics.iter().filter_map(|s| s.host_type.as_deref()?.parse().ok());
        self.host_types.keys().cloned().chain(local).chain(statics).collect()
    }

    /// Whether some listening buildlet says itself what it serves, so that only contact tells.
    pub fn has_untyped_statics(&self) -> bool {
        self.statics.iter().any(|s| s.host_type.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Config, ConfigError> {
        let file = File::parse(text).map_err(|problem| ConfigError::Parse { path: PathBuf::from("test"), problem })?;
        file.resolve(Overrides::default(), PathBuf::from("/data"))
    }

    #[test]
    fn nothing_configured_is_a_farm_of_this_machine() {
        let config = resolve("").unwrap();
        assert_eq!(config.listen, DEFAULT_LISTEN);
        assert_eq!(config.data_dir, PathBuf::from("/data"));
        assert_eq!(config.leases.terms.idle_timeout, Duration::from_secs(1800));
        assert_eq!(config.host_types(), vec![config.local_host_type.clone()]);
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        for (listen, loopback) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("localhost:1", true), ("0.0.0.0:1", false), ("farm:1", false)]
        {
            let config = resolve(&format!("listen = '{listen}'")).unwrap();
            assert_eq!(config.listens_on_loopback(), loopback, "{listen}");
            assert!(config.describe().contains(listen));
        }
    }

    #[test]
    fn a_host_type_overrides_the_leases_it_names_and_flags_win() {
        let text = "listen = '0.0.0.0:1'\n[leases]\nidle_timeout = '10m'\nmax_lifetime = '2h'\n\
                    [host_types.big]\nidle_timeout = '1h'\nprocesses = 500\n";
        let config = resolve(text).unwrap();
        let big = "big".parse().unwrap();
        assert_eq!(config.terms(&big).idle_timeout, Duration::from_secs(3600));
        assert_eq!(config.terms(&big).max_lifetime, Some(Duration::from_secs(7200)));
        assert_eq!(config.limits_of(&big).processes, 500);
        assert_eq!(config.terms(&"other".parse().unwrap()).idle_timeout, Duration::from_secs(600));
        let flags = Overrides { listen: Some("127.0.0.1:0".to_owned()), ..Default::default() };
        assert_eq!(File::parse(text).unwrap().resolve(flags, PathBuf::new()).unwrap().listen, "127.0.0.1:0");
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_key() {
        for (text, named) in [
            ("lisen = 'x'", "lisen"),
            ("listen = 'nowhere'", "listen"),
            ("[leases]\nidle_timeout = 'soon'", "leases.idle_timeout"),
            ("[leases]\nidle_timeout = '1ms'", "leases.idle_timeout"),
            ("[host_types.\"No Good\"]", "host_types.No Good"),
            ("[local]\nslots = 0", "local.slots"),
            ("[host_types.a]\nbootstrap = 'go'", "host_types.a.bootstrap"),
            ("[fetch]\nallow = ['go']", "fetch.allow[0]"),
            ("[reapi]\nmax_timeout = '1h'\ndefault_timeout = '2h'", "reapi.default_timeout"),
            ("[[static]]\naddress = 'x'\ntoken_file = 't'\nca_file = 'c'", "static[0].address"),
        ] {
            let error = resolve(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
