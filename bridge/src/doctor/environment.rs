//! What the client's variables say, but for who it is. Pure: files are looked at by whoever calls.

use super::catalogue::{Kind, Severity};
use super::report::{EVAL_ENV, Finding};
use super::server::{PROXY_VARIABLES, Server};
use super::variables::{Reading, Variables, reading, similar, switch};
use std::io;
use std::path::Path;

/// A file that was looked at.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Its content, or the start of it.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// What is looked at besides the variables.
pub struct Facts<'a> {
    /// The variables.
    pub variables: &'a Variables,
    /// Looks at a file.
    pub look: &'a dyn Fn(&Path) -> io::Result<Looked>,
    /// Who the client would run as.
    pub uid: u32,
}

impl Facts<'_> {
    /// The CA that the client would trust besides its own list.
    pub fn ca_pem(&self) -> Option<String> {
        let file = || {
            let path = self.variables.text("GOMA_SSL_EXTRA_CERT")?;
            let looked = (self.look)(Path::new(path)).ok()?;
            String::from_utf8(looked.content).ok()
        };
        self.variables.text("GOMA_SSL_EXTRA_CERT_DATA").map(str::to_owned).or_else(file)
    }

    /// Everything that is wrong or doubtful.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (name, value) in self.variables.goma() {
            found.extend(self.value(name, value));
        }
        let server = Server::of(self.variables, None, None);
        found.extend(self.address(&server));
        found.extend(self.between(&server));
        found.extend(self.modes());
        if self.uid == 0 {
            found.push(Finding::new(Kind::Root, "you are root", "build as another user"));
        }
        found
    }

    /// One variable by itself.
    fn value(&self, name: &str, value: &str) -> Option<Finding> {
        let Some(reading) = reading(name) else {
            let meant = similar(name).map(|meant| format!("   # {meant} may be meant")).unwrap_or_default();
            return Some(Finding::new(
                Kind::UnknownVariable,
                format!("no client knows {name}"),
                format!("unset {name}{meant}"),
            ));
        };
        let is = || format!("{name} is {value:?}");
        if value.starts_with('~') || (value.contains("$HOME") || reading == Reading::Path && value.contains('$')) {
            return Some(Finding::new(Kind::UnexpandedValue, is(), format!("export {name}={}", expanded(value))));
        }
        match reading {
            _ if value.is_empty() => None,
            Reading::Switch if switch(value).is_none() => {
                Some(Finding::new(Kind::BadSwitch, is(), format!("export {name}=true   # or false")))
            }
            Reading::Number if !is_number(name, value) => {
                Some(Finding::new(Kind::BadNumber, is(), format!("unset {name}   # or give it a number")))
            }
            Reading::Path if name == "GOMA_HTTP_AUTHORIZATION_FILE" => None,
            Reading::Path => self.path(name, value),
            Reading::Switch | Reading::Number | Reading::Text => None,
        }
    }

    fn path(&self, name: &str, value: &str) -> Option<Finding> {
        if !value.starts_with('/') {
            let problem = format!("{name} is the relative path {value:?}");
            return Some(Finding::new(Kind::RelativePath, problem, format!("export {name}=\"$PWD/{value}\"")));
        }
        let must_be_there = matches!(name, "GOMA_SSL_EXTRA_CERT" | "GOMA_SERVICE_ACCOUNT_JSON_FILE");
        match (self.look)(Path::new(value)) {
            Err(error) if must_be_there => {
                let problem = format!("{name} can not be read: {value}: {error}");
                Some(Finding::new(
                    Kind::MissingFile,
                    problem,
                    format!("unset {name}   # or give it a file that is there"),
                ))
            }
            Ok(looked) if name == "GOMA_SSL_EXTRA_CERT" && !is_pem(&looked.content) => Some(Finding::new(
                Kind::NotACertificate,
                format!("{value} (GOMA_SSL_EXTRA_CERT) holds no certificate in PEM"),
                "export GOMA_SSL_EXTRA_CERT=<data dir of the bridge>/tls/ca.pem",
            )),
            _ => None,
        }
    }

    /// Where the client would go.
    fn address(&self, server: &Server) -> Vec<Finding> {
        let mut found = Vec::new();
        let host = self.variables.text("GOMA_SERVER_HOST").unwrap_or_default();
        if host.is_empty() {
            found.push(Finding::new(Kind::NoServer, "GOMA_SERVER_HOST is not set", EVAL_ENV));
        } else if host.contains([':', '/']) {
            found.push(Finding::new(Kind::HostWithPort, format!("GOMA_SERVER_HOST is {host:?}"), apart(host)));
        } else if self.variables.text("GOMA_SERVER_PORT").is_none() {
            found.push(Finding::new(
                Kind::NoPort,
                format!("GOMA_SERVER_PORT is not set: what is called is {}", server.url("")),
                "export GOMA_SERVER_PORT=5050",
            ));
        }
        if let Some(prefix) = self.variables.text("GOMA_URL_PATH_PREFIX")
            && (!prefix.starts_with('/') || prefix.contains([':', ' ', '?']))
        {
            let problem = format!("GOMA_URL_PATH_PREFIX is {prefix:?}");
            found.push(Finding::new(Kind::PathPrefix, problem, "unset GOMA_URL_PATH_PREFIX"));
        }
        if let Some(extra) = self.variables.text("GOMA_RPC_EXTRA_PARAMS").filter(|extra| !extra.starts_with('?')) {
            let problem = format!("GOMA_RPC_EXTRA_PARAMS is {extra:?}");
            found.push(Finding::new(Kind::ExtraParameters, problem, "unset GOMA_RPC_EXTRA_PARAMS"));
        }
        if let Some(url) = self.variables.text("GOMA_SETTINGS_SERVER") {
            let problem = format!("GOMA_SETTINGS_SERVER is {url:?}");
            found.push(Finding::new(Kind::SettingsServer, problem, "unset GOMA_SETTINGS_SERVER"));
        }
        if (!server.tls && server.port == 443) || (server.tls && server.port == 80) {
            found.push(Finding::new(
                Kind::SchemeAndPort,
                format!("GOMA_USE_SSL is {} and the port is {}", server.tls, server.port),
                "export GOMA_SERVER_PORT=5050",
            ));
        }
        let has_extra = self.variables.first(&["GOMA_SSL_EXTRA_CERT", "GOMA_SSL_EXTRA_CERT_DATA"]).is_some();
        if server.tls && !host.is_empty() && !has_extra {
            found.push(Finding::new(
                Kind::UntrustedCertificate,
                "GOMA_USE_SSL is on (it is unless it says false), and no GOMA_SSL_EXTRA_CERT is given",
                super::probe::TRUST_OR_CLEARTEXT,
            ));
        }
        found
    }

    /// What may come in between.
    fn between(&self, server: &Server) -> Vec<Finding> {
        let mut found = Vec::new();
        let severity = if server.is_local() { Severity::Wrong } else { Severity::Doubtful };
        let named = self.variables.text("GOMA_PROXY_HOST").map(|_| "GOMA_PROXY_HOST");
        let name = named.or_else(|| PROXY_VARIABLES.into_iter().find(|name| self.variables.text(name).is_some()));
        if let (Some(name), Some((host, port))) = (name, &server.proxy) {
            let problem = format!("{name} puts the proxy {host}:{port} before {}", server.address());
            let fix = format!("unset {name}   # for the shell that starts compiler_proxy");
            found.push(Finding::new(Kind::Proxy, problem, fix).but(severity));
        }
        let signed_in = ["LUCI_CONTEXT", "GOMA_SERVICE_ACCOUNT_JSON_FILE", "GOMA_GCE_SERVICE_ACCOUNT"];
        if !self.variables.is_on("GOMACTL_SKIP_AUTH", false) && self.variables.first(&signed_in).is_none() {
            found.push(Finding::new(Kind::Login, "GOMACTL_SKIP_AUTH is not true", "export GOMACTL_SKIP_AUTH=true"));
        }
        found
    }

    /// How the client compiles.
    fn modes(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |kind, problem: &str, fix: &str| found.push(Finding::new(kind, problem, fix));
        if self.variables.is_on("GOMA_DISABLED", false) {
            add(Kind::Disabled, "GOMA_DISABLED is true", "unset GOMA_DISABLED");
        }
        if !self.variables.is_on("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", false) {
            let fix = "export GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true";
            add(Kind::ToolchainSupport, "GOMA_ARBITRARY_TOOLCHAIN_SUPPORT is not true", fix);
        }
        let fallback = self.variables.is_on("GOMA_FALLBACK", true);
        match self.variables.text("GOMA_HERMETIC") {
            None | Some("off" | "fallback") => {}
            Some("error") if !fallback => {}
            Some("error") => {
                let problem = "GOMA_HERMETIC=error with GOMA_FALLBACK=true";
                add(Kind::Hermetic, problem, "export GOMA_HERMETIC=fallback");
            }
            Some(other) => {
                let problem = format!("GOMA_HERMETIC is {other:?}, and not off, fallback or error");
                add(Kind::Hermetic, &problem, "export GOMA_HERMETIC=fallback");
            }
        }
        if self.variables.is_on("GOMA_STORE_ONLY", false) && self.variables.is_on("GOMA_USE_SUCCESS", false) {
            add(Kind::CachePolicy, "GOMA_STORE_ONLY and GOMA_USE_SUCCESS are both true", "unset GOMA_USE_SUCCESS");
        }
        if fallback && self.variables.is_on("GOMA_USE_LOCAL", true) {
            add(Kind::LocalRace, "GOMA_USE_LOCAL is not false", "export GOMA_USE_LOCAL=false");
        }
        found
    }
}

fn is_number(name: &str, value: &str) -> bool {
    let is_port = matches!(name, "GOMA_SERVER_PORT" | "GOMA_PROXY_PORT" | "GOMA_COMPILER_PROXY_PORT");
    if is_port { value.parse::<u16>().is_ok_and(|port| port != 0) } else { value.parse::<i32>().is_ok() }
}

fn is_pem(content: &[u8]) -> bool {
    let marker = b"-----BEGIN CERTIFICATE-----";
    content.windows(marker.len()).any(|window| window == marker)
}

/// As the shell should be told, if nothing in it could be taken for anything else.
fn expanded(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-${}~".contains(c);
    match value.chars().all(plain) {
        true if value == "~" || value.starts_with("~/") => format!("\"{}\"", value.replacen('~', "$HOME", 1)),
        true if !value.starts_with('~') => format!("\"{value}\""),
        _ => "/absolute/path".to_owned(),
    }
}

/// Host and port each where it belongs.
fn apart(host: &str) -> String {
    let bare = host.split_once("://").map_or(host, |(_, rest)| rest).trim_end_matches('/');
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    match bare.split_once(':') {
        Some((name, port)) if plain(name) && port.parse::<u16>().is_ok() => {
            format!("export GOMA_SERVER_HOST={name} GOMA_SERVER_PORT={port}")
        }
        None if plain(bare) => format!("export GOMA_SERVER_HOST={bare}"),
        _ => "export GOMA_SERVER_HOST=127.0.0.1 GOMA_SERVER_PORT=5050".to_owned(),
    }
}

#[cfg(test)]
mod tests;
