//! Where the relay's server is, as people write it: a host, perhaps a port, perhaps a scheme. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// Its name in a URL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A server, with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What it speaks.
    pub scheme: Scheme,
    /// A name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Endpoint {
    /// `host:port`.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The same place, spoken to the other way.
    pub fn other_scheme(&self) -> Self {
        let scheme = match self.scheme {
            Scheme::Http => Scheme::Https,
            Scheme::Https => Scheme::Http,
        };
        Self { scheme, ..self.clone() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.address())
    }
}

/// A server as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    scheme: Option<Scheme>,
    host: String,
    port: Option<u16>,
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.trim().split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some((other, _)) => return Err(format!("{other}:// is not spoken; http:// and https:// are")),
            None => (None, text.trim()),
        };
        // A path is the client's to say, on every call.
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest))),
            None => match authority.split_once(':') {
                // More colons: an IPv6 address without brackets.
                Some((_, rest)) if rest.contains(':') => (authority, None),
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map(|port| match port.parse() {
            Ok(0) | Err(_) => Err(format!("{port:?} is no port")),
            Ok(port) => Ok(port),
        });
        let port = port.transpose()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(format!("{text:?} names no host: expected HOST, HOST:PORT or http[s]://HOST[:PORT]"));
        }
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

impl Upstream {
    /// Whether only a host was written. Goma's control script says no more, whatever it was told.
    pub const fn is_bare(&self) -> bool {
        self.scheme.is_none() && self.port.is_none()
    }

    /// What it may mean, in the order in which that is tried. Cleartext that nobody asked for is tried on this
    /// machine only, unless `may_switch`: elsewhere whoever is in between could ask for it.
    pub fn meanings(&self, default_port: u16, may_switch: bool) -> Vec<Endpoint> {
        let at = |scheme: Scheme, port: u16| Endpoint { scheme, host: self.host.clone(), port };
        let may_be_clear = may_switch || self.is_loopback();
        let clear = |port: u16| may_be_clear.then(|| at(Scheme::Http, port));
        match (self.scheme, self.port) {
            (Some(scheme), port) => vec![at(scheme, port.unwrap_or(scheme.port()))],
            (None, Some(port)) => [at(Scheme::Https, port)].into_iter().chain(clear(port)).collect(),
            (None, None) => {
                let tls = [at(Scheme::Https, Scheme::Https.port()), at(Scheme::Https, default_port)];
                tls.into_iter().chain(clear(default_port)).collect()
            }
        }
    }

    /// Whether it is this port of this machine.
    pub fn is_own(&self, port: u16) -> bool {
        self.is_loopback() && self.port == Some(port)
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://", scheme.name())?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meanings(text: &str, may_switch: bool) -> Vec<String> {
        let upstream: Upstream = text.parse().unwrap();
        upstream.meanings(5050, may_switch).iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn what_was_written_is_kept_and_the_rest_is_tried_in_order() {
        for (text, expected) in [
            ("https://b.example", &["https://b.example:443"][..]),
            ("http://b.example:5050/cxx-compiler-service", &["http://b.example:5050"]),
            ("b.example:5050", &["https://b.example:5050"]),
            ("b.example", &["https://b.example:443", "https://b.example:5050"]),
            ("127.0.0.1:5050", &["https://127.0.0.1:5050", "http://127.0.0.1:5050"]),
            ("localhost", &["https://localhost:443", "https://localhost:5050", "http://localhost:5050"]),
            ("[::1]:81", &["https://[::1]:81", "http://[::1]:81"]),
            ("::1", &["https://[::1]:443", "https://[::1]:5050", "http://[::1]:5050"]),
        ] {
            assert_eq!(meanings(text, false), expected, "{text}");
        }
        assert_eq!(meanings("b.example:1", true), ["https://b.example:1", "http://b.example:1"]);
        assert_eq!(meanings("https://b.example:1", true), ["https://b.example:1"]);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, expected) in [
            ("", "names no host"),
            ("http://", "names no host"),
            ("http://user@h", "names no host"),
            ("ftp://h", "ftp:// is not spoken"),
            ("h:99999", "is no port"),
            ("h:0", "is no port"),
            ("[::1]x", "is no port"),
        ] {
            let problem = text.parse::<Upstream>().unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        let own: Upstream = "localhost:19080".parse().unwrap();
        assert!(own.is_own(19080) && !own.is_own(5050) && !own.is_bare());
        for text in ["localhost:19080", "https://[::1]:5", "b.example"] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
    }
}
