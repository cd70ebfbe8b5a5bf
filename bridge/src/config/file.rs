//! The configuration file as it is written.

use super::ConfigError;
use crate::hash_map::DEFAULT_MAX_ENTRIES;
use crate::relay::config::RelayFile;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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

/// See [`Root`](crate::pipeline::inputs::Root).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootWord {
    /// The worker takes the input root for `/`.
    Filesystem,
    /// It does not.
    Common,
}

/// See [`SystemFiles`](crate::pipeline::inputs::SystemFiles).
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

/// See [`Anonymous`](crate::access::Anonymous).
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
}
