//! Configuration: one TOML file (`file`), flags over it. Resolving is a function of strings.

mod file;
mod server;

pub use file::*;
pub use server::Server;

use crate::access::Anonymous;
use crate::pipeline::action::ActionRules;
use crate::pipeline::client_path::ClientPath;
use crate::pipeline::compile::CompileRules;
use crate::pipeline::inputs::{InputRules, Root, SystemFiles};
use crate::pipeline::platform::{PlatformRule, PlatformRules};
use motefarm_core::platform::{MERGED, SYSTEM_FILES};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
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
    /// Resolves file and flags.
    pub fn resolve(self, flags: Overrides, default_data_dir: PathBuf) -> Result<Config, ConfigError> {
        let server = Server::choose(&flags, &self.backend)?;
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
