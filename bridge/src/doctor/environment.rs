//! What the client's environment says. Pure: files are read by whoever calls.

use super::{Finding, Severity};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What is looked at besides the variables.
pub struct Facts<'a> {
    /// The variables.
    pub variables: &'a BTreeMap<String, String>,
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Who the client would run as.
    pub uid: u32,
}

/// Where the client would look for its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether by TLS.
    pub tls: bool,
    /// Before `/ping`.
    pub prefix: String,
    /// The `Authorization` that is shown.
    pub authorization: Option<String>,
}

/// Switches, which are read as abseil reads them; anything else ends the client.
const SWITCHES: [&str; 14] = [
    "GOMA_USE_SSL",
    "GOMA_ARBITRARY_TOOLCHAIN_SUPPORT",
    "GOMA_SEND_EXPECTED_OUTPUTS",
    "GOMA_USE_LOCAL",
    "GOMA_FALLBACK",
    "GOMA_STORE_ONLY",
    "GOMA_USE_SUCCESS",
    "GOMA_RETRY",
    "GOMA_FAIL_FAST",
    "GOMA_COMPILER_PROXY_STORE_FILE",
    "GOMA_ENABLE_REMOTE_LINK",
    "GOMA_ENABLE_CWD_NORMALIZATION",
    "GOMA_SEND_USER_INFO",
    "GOMA_PROVIDE_INFO",
];

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

impl Facts<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn is_on(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(switch).unwrap_or(default)
    }

    /// The server that these variables lead to. The client takes every value as it is.
    pub fn server(&self) -> Server {
        let tls = self.is_on("GOMA_USE_SSL", true);
        let authorization =
            self.text("GOMA_HTTP_AUTHORIZATION_FILE").and_then(|path| (self.read)(Path::new(path)).ok());
        Server {
            host: self.text("GOMA_SERVER_HOST").unwrap_or("goma.chromium.org").to_owned(),
            // goma_ctl.py takes 80 without TLS.
            port: self.text("GOMA_SERVER_PORT").and_then(|text| text.parse().ok()).unwrap_or(if tls {
                443
            } else {
                80
            }),
            tls,
            prefix: self.text("GOMA_URL_PATH_PREFIX").unwrap_or(crate::config::DEFAULT_PREFIX).to_owned(),
            authorization: authorization.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()),
        }
    }

    /// Everything that is wrong or doubtful.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |id, severity, problem: String, why, fix: &str| {
            found.push(Finding { id, severity, problem, why, fix: fix.to_owned() });
        };
        use Severity::{Doubtful, Wrong};
        for (name, value) in self.variables.iter().filter(|(name, _)| name.starts_with("GOMA_")) {
            if value.starts_with('~') || value.contains("$HOME") {
                add(
                    "unexpanded-value",
                    Wrong,
                    format!("{name} is {value:?}"),
                    "the client expands neither ~ nor variables: it looks for a file of exactly that name, and ends if there is none",
                    &format!("export {name}=\"{}\"", value.replacen('~', "$HOME", 1)),
                );
            }
            if SWITCHES.contains(&name.as_str()) && !value.is_empty() && switch(value).is_none() {
                add(
                    "bad-switch",
                    Wrong,
                    format!("{name} is {value:?}"),
                    "the client takes true and false (t, yes, y, 1; f, no, n, 0) and ends at anything else",
                    &format!("export {name}=true"),
                );
            }
        }
        if let Some(path) = self.text("GOMA_HTTP_AUTHORIZATION_FILE").filter(|path| !path.starts_with('~')) {
            match (self.read)(Path::new(path)) {
                _ if !path.starts_with('/') => add(
                    "authorization-file",
                    Wrong,
                    format!("GOMA_HTTP_AUTHORIZATION_FILE is the relative path {path:?}"),
                    "compiler_proxy looks for it from whatever directory it was started in, and ends if it is not there",
                    "export GOMA_HTTP_AUTHORIZATION_FILE=/absolute/path",
                ),
                Err(error) => add(
                    "authorization-file",
                    Wrong,
                    format!("GOMA_HTTP_AUTHORIZATION_FILE can not be read: {path}: {error}"),
                    "compiler_proxy ends at once (http_init.cc, \"you need http Authorization header\")",
                    "unset GOMA_HTTP_AUTHORIZATION_FILE   # without a token it is not needed",
                ),
                Ok(bytes) if bytes.trim_ascii_end().iter().any(|byte| matches!(byte, b'\r' | b'\n')) => add(
                    "authorization-file",
                    Wrong,
                    format!("{path} has more than one line"),
                    "it becomes one header of HTTP; a line break in it ends compiler_proxy",
                    "keep one line in it: Bearer TOKEN",
                ),
                Ok(_) => {}
            }
        }
        let host = self.text("GOMA_SERVER_HOST").unwrap_or_default();
        if host.is_empty() {
            add(
                "no-server",
                Wrong,
                "GOMA_SERVER_HOST is not set".to_owned(),
                "the client then calls goma.chromium.org",
                "eval \"$(mote-bridge env)\"",
            );
        } else if host.contains(':') || host.contains('/') {
            add(
                "host-with-port",
                Wrong,
                format!("GOMA_SERVER_HOST is {host:?}"),
                "it is handed to the resolver as it is: neither port nor scheme belongs into it",
                "export GOMA_SERVER_HOST=127.0.0.1 GOMA_SERVER_PORT=5050",
            );
        }
        if let Some(prefix) = self.text("GOMA_URL_PATH_PREFIX")
            && (!prefix.starts_with('/') || prefix.contains([':', ' ', '?']))
        {
            add(
                "path-prefix",
                Wrong,
                format!("GOMA_URL_PATH_PREFIX is {prefix:?}"),
                "it is pasted into every request as it is: it is a path, begins with / and holds no port",
                "unset GOMA_URL_PATH_PREFIX",
            );
        }
        let server = self.server();
        if !server.tls && server.port == 443 || server.tls && server.port == 80 {
            add(
                "scheme-and-port",
                Doubtful,
                format!("GOMA_USE_SSL is {} and the port is {}", server.tls, server.port),
                "443 usually speaks TLS and 80 does not",
                "export GOMA_SERVER_PORT=5050",
            );
        }
        if server.tls
            && !host.is_empty()
            && self.text("GOMA_SSL_EXTRA_CERT").is_none()
            && self.text("GOMA_SSL_EXTRA_CERT_DATA").is_none()
        {
            add(
                "untrusted-certificate",
                Doubtful,
                "GOMA_USE_SSL is on, and no GOMA_SSL_EXTRA_CERT is given".to_owned(),
                "the client trusts its own list of authorities and not the system's",
                "export GOMA_USE_SSL=false   # or GOMA_SSL_EXTRA_CERT=<data dir of the bridge>/tls/ca.pem",
            );
        }
        if self.is_on("GOMACTL_USE_PROXY", true) {
            add(
                "http-proxy",
                Doubtful,
                "GOMACTL_USE_PROXY is not false".to_owned(),
                "newer goma_ctl.py then starts http_proxy on port 19080, which loses the port and speaks TLS to port 443 only: \"bad gateway\"",
                "export GOMACTL_USE_PROXY=false; goma_ctl.py ensure_stop",
            );
        }
        let signed_in = ["LUCI_CONTEXT", "GOMA_SERVICE_ACCOUNT_JSON_FILE", "GOMA_GCE_SERVICE_ACCOUNT"];
        if !self.is_on("GOMACTL_SKIP_AUTH", false) && !signed_in.iter().any(|name| self.text(name).is_some()) {
            add(
                "login",
                Doubtful,
                "GOMACTL_SKIP_AUTH is not true".to_owned(),
                "goma_ctl.py then asks for a login at Google before it starts; nothing need be patched to leave that out",
                "export GOMACTL_SKIP_AUTH=true",
            );
        }
        if !self.is_on("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", false) {
            add(
                "toolchain-support",
                Wrong,
                "GOMA_ARBITRARY_TOOLCHAIN_SUPPORT is not true".to_owned(),
                "without it the client expects the server to know its compiler, and the bridge knows none",
                "export GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true",
            );
        }
        if self.text("GOMA_HERMETIC") == Some("error") && self.is_on("GOMA_FALLBACK", true) {
            add(
                "hermetic",
                Doubtful,
                "GOMA_HERMETIC=error with GOMA_FALLBACK=true".to_owned(),
                "a compile whose compiler does not match fails all the same, and the compiler stays disabled",
                "export GOMA_HERMETIC=fallback",
            );
        }
        for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            if let Some(proxy) = self.text(name).filter(|_| self.text("GOMA_PROXY_HOST").is_none()) {
                add(
                    "proxy",
                    Wrong,
                    format!("{name} is {proxy:?}"),
                    "the client goes through it to every server, 127.0.0.1 included; it does not read no_proxy",
                    &format!("unset {name}   # for the shell that starts compiler_proxy"),
                );
            }
        }
        if self.uid == 0 {
            add(
                "root",
                Wrong,
                "you are root".to_owned(),
                "gomacc then compiles locally without a word, and the server is never asked",
                "build as another user",
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pairs: &[(&str, &str)], uid: u32) -> Vec<&'static str> {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let read = |path: &Path| match path.to_str() {
            Some("/token") => Ok(b"Bearer x\n".to_vec()),
            Some("/lines") => Ok(b"Bearer x\nmore".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Facts { variables: &variables, read: &read, uid }.findings().into_iter().map(|finding| finding.id).collect()
    }

    /// What `mote-bridge env` prints, to change one thing at a time.
    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            ("GOMA_SERVER_HOST", "127.0.0.1"),
            ("GOMA_SERVER_PORT", "5050"),
            ("GOMA_USE_SSL", "false"),
            ("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", "true"),
            ("GOMACTL_SKIP_AUTH", "true"),
            ("GOMACTL_USE_PROXY", "false"),
        ]
    }

    #[test]
    fn what_env_prints_is_in_order_and_every_change_of_it_is_found() {
        assert_eq!(ids(&good(), 1000), Vec::<&str>::new());
        assert_eq!(ids(&good(), 0), ["root"]);
        for (name, value, expected) in [
            ("GOMA_HTTP_AUTHORIZATION_FILE", "~/.debug_goma_auth_file", "unexpanded-value"),
            ("GOMA_HTTP_AUTHORIZATION_FILE", "/none", "authorization-file"),
            ("GOMA_HTTP_AUTHORIZATION_FILE", "token", "authorization-file"),
            ("GOMA_HTTP_AUTHORIZATION_FILE", "/lines", "authorization-file"),
            ("GOMA_SERVER_HOST", "localhost:5050", "host-with-port"),
            ("GOMA_SERVER_HOST", "http://localhost", "host-with-port"),
            ("GOMA_SERVER_HOST", "", "no-server"),
            ("GOMA_URL_PATH_PREFIX", ":5050/cxx-compiler-service", "path-prefix"),
            ("GOMA_URL_PATH_PREFIX", "cxx-compiler-service", "path-prefix"),
            ("GOMA_SERVER_PORT", "443", "scheme-and-port"),
            ("GOMA_USE_SSL", "true", "untrusted-certificate"),
            ("GOMA_FALLBACK", "maybe", "bad-switch"),
            ("GOMACTL_USE_PROXY", "", "http-proxy"),
            ("GOMACTL_SKIP_AUTH", "", "login"),
            ("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", "false", "toolchain-support"),
            ("GOMA_HERMETIC", "error", "hermetic"),
            ("https_proxy", "http://proxy:3128", "proxy"),
        ] {
            let mut changed = good();
            changed.retain(|(other, _)| *other != name);
            changed.push((name, value));
            assert_eq!(ids(&changed, 1000), [expected], "{name}={value}");
        }
        let token_file = Some("/token".into());
        let env =
            crate::client_env::ClientEnv { host: "h".into(), port: 1, token_file, strict: true, ..Default::default() };
        let printed = env.variables();
        let printed: Vec<(&str, &str)> = printed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(ids(&printed, 1000), Vec::<&str>::new());
        let mut with_token = good();
        with_token.push(("GOMA_HTTP_AUTHORIZATION_FILE", "/token"));
        assert_eq!(ids(&with_token, 1000), Vec::<&str>::new());
    }

    #[test]
    fn the_server_is_the_one_that_the_client_would_call() {
        let variables: BTreeMap<String, String> =
            good().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let read = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        let server = Facts { variables: &variables, read: &read, uid: 1 }.server();
        assert_eq!((server.host.as_str(), server.port, server.tls), ("127.0.0.1", 5050, false));
        let none = BTreeMap::new();
        let server = Facts { variables: &none, read: &read, uid: 1 }.server();
        assert_eq!((server.host.as_str(), server.port, server.tls), ("goma.chromium.org", 443, true));
    }
}
