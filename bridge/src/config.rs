//! Configuration: one TOML file, flags over it. Parsing is a function of strings.

use crate::access::Anonymous;
use crate::backend::Address;
use crate::hash_map::DEFAULT_MAX_ENTRIES;
use crate::pipeline::action::ActionRules;
use crate::pipeline::client_path::ClientPath;
use crate::pipeline::compile::CompileRules;
use crate::pipeline::inputs::{InputRules, Root, SystemFiles};
use crate::pipeline::platform::{PlatformRule, PlatformRules};
use crate::relay::config::RelayFile;
use motefarm_core::platform::{MERGED, SYSTEM_FILES};
use motefarm_net::profile::is_farm_name;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a bridge listens with no configuration.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:5050";
/// Below this path clients look for everything, unless told otherwise (`GOMA_URL_PATH_PREFIX`).
pub const DEFAULT_PREFIX: &str = "/cxx-compiler-service";
/// Clients wait 610 s for an answer.
const LONGEST_DEADLINE: Duration = Duration::from_secs(605);

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("can not read {}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be; the message holds line and column.
    #[error("{}: {problem}", .path.display())]
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
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

pub(crate) fn wrong(key: &'static str, problem: impl ToString) -> ConfigError {
    ConfigError::Value { key, problem: problem.to_string() }
}

/// The file as written. Every key may be absent.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `host:port`.
    pub listen: Option<String>,
    /// Where map and keys are kept.
    pub data_dir: Option<PathBuf>,
    /// Paths before `/ping`, `/e` and the others; `""` is one.
    pub path_prefixes: Option<Vec<String>>,
    /// More names for the server's certificate.
    pub names: Vec<String>,
    /// Who does the work.
    pub backend: BackendFile,
    /// `[[platform]]`.
    pub platform: Vec<PlatformFile>,
    /// Properties that clients may set themselves.
    pub client_platform_properties: BTreeSet<String>,
    /// What becomes of inputs.
    pub inputs: InputsFile,
    /// How a compile runs.
    pub action: ActionFile,
    /// Who may use it.
    pub auth: AuthFile,
    /// A certificate of the operator's.
    pub tls: Option<TlsFile>,
    /// What clients are told of where to find it.
    pub settings: SettingsFile,
    /// Of `mote-bridge relay`.
    pub relay: RelayFile,
    /// Bounds.
    pub limits: LimitsFile,
}

/// `[settings]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsFile {
    /// Where clients ask for settings (`GOMA_SETTINGS_SERVER`).
    pub path: String,
    /// The URL that they are told; absent: the one they dialled.
    pub endpoint: Option<String>,
    /// What the settings are called.
    pub name: String,
    /// PEM file of the CA that they are told; absent: the bridge's own, unless it has a certificate of the
    /// operator's.
    pub ca_file: Option<PathBuf>,
}

impl Default for SettingsFile {
    fn default() -> Self {
        Self { path: "/settings".to_owned(), endpoint: None, name: "mote-bridge".to_owned(), ca_file: None }
    }
}

/// `[backend]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendFile {
    /// `grpc://`, `grpcs://` or `unix:`.
    pub address: Option<String>,
    /// Or a farm, by the name of its profile.
    pub farm: Option<String>,
    /// Or a farm, by its profile's file.
    pub profile: Option<PathBuf>,
    /// REAPI's instance name, verbatim.
    pub instance: Option<String>,
    /// PEM file of the CA that vouches for it; absent: what the system trusts.
    pub ca_file: Option<PathBuf>,
    /// File with a token for it.
    pub token_file: Option<PathBuf>,
}

/// `[[platform]]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformFile {
    /// What it is for.
    pub dimensions: BTreeSet<String>,
    /// What actions ask for.
    pub properties: BTreeMap<String, String>,
}

/// `[inputs]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputsFile {
    /// `filesystem` or `common`.
    pub root: Option<RootWord>,
    /// `ship`, `worker-provided` or `reject`.
    pub system_files: Option<SystemFilesWord>,
    /// What counts as the system's.
    pub system_prefixes: Option<Vec<String>>,
    /// Whether the bridge reads its own user's files itself.
    pub read_local: Option<bool>,
}

/// See [`Root`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootWord {
    /// The worker takes the input root for `/`.
    Filesystem,
    /// It does not.
    Common,
}

/// See [`SystemFiles`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemFilesWord {
    /// Inputs like others.
    Ship,
    /// The worker's own.
    WorkerProvided,
    /// Not served.
    Reject,
}

/// `[action]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActionFile {
    /// Longest run ("15m").
    pub timeout: Option<String>,
    /// `PATH` of every compile.
    pub path: Option<String>,
    /// What becomes of a compile whose client left: `detach` or `cancel`.
    pub on_disconnect: Option<OnDisconnect>,
}

/// `on_disconnect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDisconnect {
    /// It goes on.
    Detach,
    /// It is left to the server.
    Cancel,
}

/// `[auth]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthFile {
    /// `nobody`, `own-user` or `anyone`.
    pub anonymous: Option<AnonymousWord>,
    /// Lines of NAME TOKEN.
    pub token_file: Option<PathBuf>,
    /// `LUCI_CONTEXT` file to write, by which clients of the bridge's own user get tokens.
    pub local_auth: Option<PathBuf>,
}

/// See [`Anonymous`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnonymousWord {
    /// Only tokens.
    Nobody,
    /// The bridge's user on this machine.
    OwnUser,
    /// Everybody.
    Anyone,
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

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Largest request, unpacked.
    pub request_bytes: usize,
    /// Memory for requests and answers together.
    pub memory_bytes: u64,
    /// Content in one answer; more is looked up.
    pub response_bytes: u64,
    /// Connections at once.
    pub connections: usize,
    /// Entries of the hash map.
    pub map_entries: usize,
    /// Longest time for an answer ("590s").
    pub deadline: String,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            request_bytes: 64 << 20,
            memory_bytes: 96 << 20,
            response_bytes: 6 << 20,
            connections: 4096,
            map_entries: DEFAULT_MAX_ENTRIES,
            deadline: "590s".to_owned(),
        }
    }
}

/// What flags say.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--backend`.
    pub backend: Option<String>,
    /// `--farm`.
    pub farm: Option<String>,
    /// `--profile`.
    pub profile: Option<PathBuf>,
    /// `--instance`.
    pub instance: Option<String>,
    /// `--platform`.
    pub platform: Vec<(String, String)>,
    /// `--local-auth`.
    pub local_auth: Option<PathBuf>,
}

/// The REAPI server that does the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Any.
    At {
        /// Where it is.
        address: Address,
        /// See [`BackendFile`].
        ca_file: Option<PathBuf>,
        /// See [`BackendFile`].
        token_file: Option<PathBuf>,
    },
    /// A farm of ours, by the name of its profile; `None`: the one `mote` would take.
    Farm(Option<String>),
    /// A farm of ours, by its profile's file.
    FarmOf(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { address, .. } => address.fmt(f),
            Self::Farm(None) => f.write_str("this machine's farm"),
            Self::Farm(Some(name)) => write!(f, "the farm {name}"),
            Self::FarmOf(profile) => write!(f, "the farm of {}", profile.display()),
        }
    }
}

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`.
    pub listen: String,
    /// Where map and keys are kept.
    pub data_dir: PathBuf,
    /// Each empty, or beginning and not ending with `/`.
    pub path_prefixes: Vec<String>,
    /// For the certificate.
    pub names: Vec<String>,
    /// Who does the work.
    pub server: Server,
    /// REAPI's instance name.
    pub instance: String,
    /// How compiles are made.
    pub compile: CompileRules,
    /// Who may use it.
    pub anonymous: Anonymous,
    /// Lines of NAME TOKEN.
    pub token_file: Option<PathBuf>,
    /// `LUCI_CONTEXT` file to write.
    pub local_auth: Option<PathBuf>,
    /// A certificate of the operator's.
    pub tls: Option<TlsFile>,
    /// What clients are told of where to find it.
    pub settings: SettingsFile,
    /// Bounds.
    pub limits: LimitsFile,
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

    /// Resolves file and flags.
    pub fn resolve(self, flags: Overrides, default_data_dir: PathBuf) -> Result<Config, ConfigError> {
        let server = server(&flags, &self.backend)?;
        let listen = flags.listen.or(self.listen).unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        motefarm_net::dial::split_address(&listen).map_err(|error| wrong("listen", error))?;
        let anonymous = match (self.auth.anonymous, &self.auth.token_file) {
            (Some(AnonymousWord::Anyone), _) => Anonymous::Anyone,
            (Some(AnonymousWord::OwnUser), _) => Anonymous::OwnUser,
            (Some(AnonymousWord::Nobody), None) => {
                return Err(wrong("auth.anonymous", "\"nobody\" without a token_file lets nobody in at all"));
            }
            (Some(AnonymousWord::Nobody), Some(_)) => Anonymous::Nobody,
            (None, _) => Anonymous::OwnUser,
        };
        let local_auth = flags.local_auth.or(self.auth.local_auth);
        if local_auth.is_some() && anonymous == Anonymous::Nobody {
            return Err(wrong(
                "auth.local_auth",
                "its clients are known as the bridge's own user, and \"nobody\" is anonymous",
            ));
        }
        let on_loopback = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if !on_loopback && self.auth.anonymous.is_none() && self.auth.token_file.is_none() {
            return Err(wrong(
                "auth",
                format!("{listen} is not on loopback: say who may use it (token_file, or anonymous = \"anyone\")"),
            ));
        }
        let prefixes = self.path_prefixes.unwrap_or_else(|| vec![DEFAULT_PREFIX.to_owned()]);
        if let Some(bad) = prefixes.iter().find(|p| !p.is_empty() && (!p.starts_with('/') || p.ends_with('/'))) {
            return Err(wrong("path_prefixes", format!("{bad:?} must begin, and must not end, with '/'")));
        }
        if !self.settings.path.starts_with('/') {
            return Err(wrong("settings.path", format!("{:?} must begin with '/'", self.settings.path)));
        }
        if let Some(url) = self.settings.endpoint.as_ref().filter(|url| !is_http_url(url)) {
            return Err(wrong("settings.endpoint", format!("{url:?} is not http[s]://HOST[:PORT]/PREFIX")));
        }
        let inputs = inputs(&self.inputs)?;
        let mut properties = BTreeMap::new();
        if matches!(server, Server::Farm(_) | Server::FarmOf(_))
            && (inputs.root, inputs.system_files) == (Root::Filesystem, SystemFiles::Ship)
        {
            // Only what clients send of /usr goes before the worker's: the rest of their compilers is there.
            properties.insert(SYSTEM_FILES.to_owned(), MERGED.to_owned());
        }
        let platforms = platforms(self.platform, properties, &flags.platform, self.client_platform_properties);
        let deadline = duration("limits.deadline", &self.limits.deadline)?;
        if deadline > LONGEST_DEADLINE {
            return Err(wrong("limits.deadline", "clients wait 610 s; at most 605 s leave them an answer"));
        }
        let timeout = self.action.timeout.as_deref().map(|text| duration("action.timeout", text)).transpose()?;
        let compile = CompileRules {
            action: ActionRules {
                inputs,
                platforms,
                timeout: timeout.unwrap_or(Duration::from_secs(900)),
                path: self.action.path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned()),
            },
            response_bytes: self.limits.response_bytes,
            deadline,
            detach: self.action.on_disconnect != Some(OnDisconnect::Cancel),
            read_local: self.inputs.read_local.unwrap_or(true),
        };
        Ok(Config {
            listen,
            data_dir: flags.data_dir.or(self.data_dir).unwrap_or(default_data_dir),
            path_prefixes: prefixes,
            names: self.names,
            server,
            instance: flags.instance.or(self.backend.instance).unwrap_or_default(),
            compile,
            anonymous,
            token_file: self.auth.token_file,
            local_auth,
            tls: self.tls,
            settings: self.settings,
            limits: self.limits,
        })
    }
}

impl Config {
    /// What would be used, for people.
    pub fn describe(&self) -> String {
        let rules = &self.compile.action;
        let platforms: Vec<String> = rules.platforms.rules.iter().map(|rule| format!("{rule:?}")).collect();
        format!(
            "listen: {}\ndata_dir: {}\npath_prefixes: {:?}\nbackend: {} instance {:?}\nanonymous: {:?}\n\
             system files: {:?}, root: {:?}\nplatforms: {}",
            self.listen,
            self.data_dir.display(),
            self.path_prefixes,
            self.server,
            self.instance,
            self.anonymous,
            rules.inputs.system_files,
            rules.inputs.root,
            platforms.join("; ")
        )
    }
}

/// Flags over the file, a server over a farm, and this machine's farm if nothing is named.
fn server(flags: &Overrides, file: &BackendFile) -> Result<Server, ConfigError> {
    let at = |text: &String| {
        let address = text.parse().map_err(|problem| wrong("backend.address", format!("{text:?}: {problem}")))?;
        Ok(Server::At { address, ca_file: file.ca_file.clone(), token_file: file.token_file.clone() })
    };
    let choose =
        |address: &Option<String>, profile: &Option<PathBuf>, farm: &Option<String>| match (address, profile, farm) {
            (Some(address), _, _) => Some(at(address)),
            (None, Some(profile), _) => Some(Ok(Server::FarmOf(profile.clone()))),
            (None, None, Some(name)) if is_farm_name(name) => Some(Ok(Server::Farm(Some(name.clone())))),
            (None, None, Some(name)) => {
                Some(Err(wrong("backend.farm", format!("{name:?} can not be the name of a farm"))))
            }
            (None, None, None) => None,
        };
    if let Some(chosen) = choose(&flags.backend, &flags.profile, &flags.farm) {
        return chosen;
    }
    if [file.address.is_some(), file.farm.is_some(), file.profile.is_some()].iter().filter(|set| **set).count() > 1 {
        return Err(wrong("backend", "one of address, farm and profile, not several"));
    }
    choose(&file.address, &file.profile, &file.farm).unwrap_or(Ok(Server::Farm(None)))
}

/// The file's rules, else one for Linux with `properties`; flags' properties belong to every rule.
fn platforms(
    file: Vec<PlatformFile>,
    properties: BTreeMap<String, String>,
    flags: &[(String, String)],
    client_may_set: BTreeSet<String>,
) -> PlatformRules {
    let mut rules: Vec<PlatformRule> = file
        .into_iter()
        .map(|rule| PlatformRule { dimensions: rule.dimensions, properties: rule.properties })
        .collect();
    if rules.is_empty() {
        let dimensions = ["os:linux", "os:linux-hermetic"].map(str::to_owned).into();
        rules.push(PlatformRule { dimensions, properties });
    }
    for rule in &mut rules {
        rule.properties.extend(flags.iter().cloned());
    }
    PlatformRules { rules, client_may_set }
}

fn inputs(file: &InputsFile) -> Result<InputRules, ConfigError> {
    let usual = ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc"].map(str::to_owned).to_vec();
    let prefixes = file.system_prefixes.clone().unwrap_or(usual);
    let prefixes = prefixes.iter().map(|text| {
        ClientPath::absolute(text).map_err(|error| wrong("inputs.system_prefixes", format!("{text:?} {error}")))
    });
    Ok(InputRules {
        root: match file.root {
            None | Some(RootWord::Filesystem) => Root::Filesystem,
            Some(RootWord::Common) => Root::Common,
        },
        system_files: match file.system_files {
            None | Some(SystemFilesWord::Ship) => SystemFiles::Ship,
            Some(SystemFilesWord::WorkerProvided) => SystemFiles::WorkerProvided,
            Some(SystemFilesWord::Reject) => SystemFiles::Reject,
        },
        system_prefixes: prefixes.collect::<Result<_, _>>()?,
    })
}

fn is_http_url(text: &str) -> bool {
    text.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

fn duration(key: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let parsed = humantime::parse_duration(text)
        .map_err(|error| wrong(key, format!("{text:?} is not a duration such as \"15m\": {error}")))?;
    if parsed < Duration::from_secs(1) {
        Err(wrong(key, format!("{text:?} is shorter than a second")))
    } else {
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, flags: Overrides) -> Result<Config, String> {
        File::parse(text)?.resolve(flags, PathBuf::from("/default")).map_err(|error| error.to_string())
    }

    const BACKEND: &str = "backend.address = \"grpc://farm:8980\"\n";

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = resolve(BACKEND, Overrides::default()).unwrap();
        assert_eq!((config.listen.as_str(), config.instance.as_str()), (DEFAULT_LISTEN, ""));
        assert!(config.compile.read_local);
        assert_eq!(
            (config.path_prefixes.as_slice(), config.anonymous),
            (&[DEFAULT_PREFIX.to_owned()][..], Anonymous::OwnUser)
        );
        let flags = Overrides {
            backend: Some("other:1".into()),
            instance: Some("a/b".into()),
            platform: vec![("OSFamily".into(), "linux".into())],
            ..Overrides::default()
        };
        let config = resolve(&format!("{BACKEND}[inputs]\nsystem_files = \"worker-provided\"\n"), flags).unwrap();
        assert_eq!((config.server.to_string().as_str(), config.instance.as_str()), ("grpc://other:1", "a/b"));
        let rules = config.compile.action;
        assert_eq!(rules.inputs.system_files, SystemFiles::WorkerProvided);
        assert_eq!(rules.platforms.rules[0].properties["OSFamily"], "linux");
    }

    #[test]
    fn without_a_server_it_is_a_farm_whose_workers_lay_what_is_shipped_over_their_own() {
        let merged = |config: &Config| config.compile.action.platforms.rules[0].properties.contains_key(SYSTEM_FILES);
        let config = resolve("", Overrides::default()).unwrap();
        assert_eq!(config.server, Server::Farm(None));
        assert!(merged(&config));
        let config =
            resolve("inputs.system_files = \"worker-provided\"\nbackend.farm = \"work\"", Overrides::default());
        let config = config.unwrap();
        assert_eq!(config.server, Server::Farm(Some("work".to_owned())));
        assert!(!merged(&config));
        let flags = Overrides { profile: Some("/p.toml".into()), ..Overrides::default() };
        let config = resolve(BACKEND, flags).unwrap();
        assert_eq!(config.server, Server::FarmOf("/p.toml".into()));
        assert!(merged(&config));
        assert!(!merged(&resolve(BACKEND, Overrides::default()).unwrap()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, expected) in [
            ("backend.farm = \"../x\"", "name of a farm"),
            ("backend.farm = \"x\"\nbackend.address = \"a:1\"", "not several"),
            ("backend.address = \"ftp://x:1\"", "ftp"),
            ("listen = \"0.0.0.0:5050\"\nbackend.address = \"a:1\"", "not on loopback"),
            ("backend.address = \"a:1\"\nauth.anonymous = \"nobody\"", "nobody"),
            ("backend.address = \"a:1\"\npath_prefixes = [\"x\"]", "path_prefixes"),
            ("backend.address = \"a:1\"\nlimits.deadline = \"20m\"", "610 s"),
            ("backend.address = \"a:1\"\naction.timeout = \"5\"", "action.timeout"),
            ("backend.address = \"a:1\"\nsettings.endpoint = \"goma.example:5050\"", "settings.endpoint"),
            ("backend.adress = \"a:1\"", "unknown field"),
        ] {
            let problem = resolve(text, Overrides::default()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        let open = "listen = \"0.0.0.0:5050\"\nbackend.address = \"a:1\"\nauth.anonymous = \"anyone\"";
        assert_eq!(resolve(open, Overrides::default()).unwrap().anonymous, Anonymous::Anyone);
    }
}
