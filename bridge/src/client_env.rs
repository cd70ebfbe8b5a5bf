//! What a Goma client's environment must hold, in a shell's words. Pure.
//!
//! Only names that the client knows: it ends at any other `GOMA_` variable. Nothing is left to the shell, as
//! the client expands neither `~` nor variables.

use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// And every other Bourne shell.
    Bash,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
}

impl Shell {
    /// By the path of a login shell.
    pub fn named(path: &str) -> Self {
        match Path::new(path).file_name().and_then(|name| name.to_str()) {
            Some("fish") => Self::Fish,
            Some("pwsh") => Self::Powershell,
            _ => Self::Bash,
        }
    }
}

/// What the variables say.
#[derive(Debug, Clone, Default)]
pub struct ClientEnv {
    /// Without a port: the client hands it to the resolver as it is.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Absolute.
    pub token_file: Option<PathBuf>,
    /// Absolute; not together with a token file.
    pub local_auth: Option<PathBuf>,
    /// The path on the bridge where the client asks for settings.
    pub settings: Option<String>,
    /// No local compiles.
    pub strict: bool,
}

/// Variables that undo ours where they are set.
const IN_THE_WAY: [&str; 4] =
    ["GOMA_URL_PATH_PREFIX", "GOMA_RPC_EXTRA_PARAMS", "GOMA_PROXY_HOST", "GOMA_SETTINGS_SERVER"];
/// Those that win over `LUCI_CONTEXT`.
const BEFORE_LOCAL_AUTH: [&str; 4] = [
    "GOMA_HTTP_AUTHORIZATION_FILE",
    "GOMA_OAUTH2_CONFIG_FILE",
    "GOMA_SERVICE_ACCOUNT_JSON_FILE",
    "GOMA_GCE_SERVICE_ACCOUNT",
];

impl ClientEnv {
    /// Name and value, in order.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let word = |yes: bool| if yes { "true" } else { "false" }.to_owned();
        let mut all = vec![
            ("GOMA_SERVER_HOST", self.host.clone()),
            ("GOMA_SERVER_PORT", self.port.to_string()),
            ("GOMA_USE_SSL", word(false)),
            // The request names the whole compiler; without it a server must know it beforehand.
            ("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", word(true)),
            ("GOMA_USE_LOCAL", word(false)),
            ("GOMA_FALLBACK", word(!self.strict)),
            // Both are goma_ctl's: no login at Google, and no proxy that speaks TLS to port 443 only.
            ("GOMACTL_SKIP_AUTH", word(true)),
            ("GOMACTL_USE_PROXY", word(false)),
        ];
        if self.strict {
            all.push(("GOMA_FAIL_FAST", word(true)));
        }
        let settings = |path: &String| format!("http://{}:{}{path}", self.host, self.port);
        all.extend(self.settings.as_ref().map(|path| ("GOMA_SETTINGS_SERVER", settings(path))));
        all.extend(self.local_auth.as_deref().map(|file| ("LUCI_CONTEXT", file.display().to_string())));
        all.extend(self.token_file.as_deref().map(|file| ("GOMA_HTTP_AUTHORIZATION_FILE", file.display().to_string())));
        all
    }

    /// Lines for the shell.
    pub fn lines(&self, shell: Shell) -> String {
        let before = if self.local_auth.is_some() { &BEFORE_LOCAL_AUTH[..] } else { &[] };
        let unset =
            IN_THE_WAY.iter().chain(before).filter(|name| !self.variables().iter().any(|(other, _)| other == *name));
        let unset = unset.map(|name| match shell {
            Shell::Bash => format!("unset {name}\n"),
            Shell::Fish => format!("set --erase {name}\n"),
            Shell::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue\n"),
        });
        let set = self.variables().into_iter().map(|(name, value)| match shell {
            Shell::Bash => format!("export {name}='{}'\n", value.replace('\'', "'\\''")),
            Shell::Fish => {
                format!("set --export --global {name} '{}'\n", value.replace('\\', "\\\\").replace('\'', "\\'"))
            }
            Shell::Powershell => format!("$env:{name} = '{}'\n", value.replace('\'', "''")),
        });
        unset.chain(set).collect()
    }
}

/// Makes a path absolute without asking whether it is there.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(token_file: &str) -> ClientEnv {
        ClientEnv {
            host: "localhost".into(),
            port: 5050,
            token_file: Some(token_file.into()),
            local_auth: None,
            settings: None,
            strict: true,
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_said_and_what_wins_over_it_is_unset() {
        let plain = env("/t").lines(Shell::Bash);
        assert!(plain.contains("unset GOMA_SETTINGS_SERVER\n") && !plain.contains("LUCI_CONTEXT"), "{plain}");
        let asked = ClientEnv {
            token_file: None,
            local_auth: Some("/run/luci".into()),
            settings: Some("/settings".into()),
            ..env("/t")
        };
        let lines = asked.lines(Shell::Bash);
        assert!(lines.contains("export GOMA_SETTINGS_SERVER='http://localhost:5050/settings'\n"), "{lines}");
        assert!(!lines.contains("unset GOMA_SETTINGS_SERVER"), "{lines}");
        assert!(lines.contains("export LUCI_CONTEXT='/run/luci'\n"), "{lines}");
        assert!(lines.contains("unset GOMA_HTTP_AUTHORIZATION_FILE\n"), "{lines}");
    }

    #[test]
    fn every_shell_gets_its_own_quotes() {
        let env = env("/home/o'brien/token");
        for (shell, expected) in [
            (Shell::Bash, "export GOMA_HTTP_AUTHORIZATION_FILE='/home/o'\\''brien/token'\n"),
            (Shell::Fish, "set --export --global GOMA_HTTP_AUTHORIZATION_FILE '/home/o\\'brien/token'\n"),
            (Shell::Powershell, "$env:GOMA_HTTP_AUTHORIZATION_FILE = '/home/o''brien/token'\n"),
        ] {
            assert!(env.lines(shell).ends_with(expected), "{}", env.lines(shell));
        }
        assert!(env.lines(Shell::Bash).contains("export GOMA_SERVER_PORT='5050'\n"));
        assert!(env.lines(Shell::Bash).starts_with("unset GOMA_URL_PATH_PREFIX\n"));
    }

    /// What /bin/sh makes of the lines is what was meant.
    #[test]
    fn a_real_shell_reads_it_back() {
        let env = env("/tmp/a b$HOME'~\"");
        for (name, value) in env.variables() {
            let script = format!("{}printf %s \"${name}\"", env.lines(Shell::Bash));
            let output = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{name}");
        }
    }
}
