//! How people write where a REAPI server is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `grpc://host:port`, or `host:port` alone: HTTP/2 in the clear.
    Clear(String),
    /// `grpcs://host:port`.
    Tls(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host_port = |rest: &str| {
            let rest = rest.trim_end_matches('/');
            motefarm_net::dial::split_address(rest).map_err(|error| error.to_string())?;
            Ok(rest.to_owned())
        };
        match text.split_once(':') {
            Some(("unix", path)) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.starts_with('/') {
                    Ok(Self::Unix(path.into()))
                } else {
                    Err(format!("{path:?} is not absolute"))
                }
            }
            Some((scheme, rest)) if rest.starts_with("//") => match scheme {
                "grpc" | "http" => host_port(&rest[2..]).map(Self::Clear),
                "grpcs" | "https" => host_port(&rest[2..]).map(Self::Tls),
                _ => Err(format!("{scheme}:// is not spoken: grpc://, grpcs:// and unix: are")),
            },
            _ => host_port(text).map(Self::Clear),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear(address) => write!(f, "grpc://{address}"),
            Self::Tls(address) => write!(f, "grpcs://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_read() {
        for (text, expected) in [
            ("127.0.0.1:8980", "grpc://127.0.0.1:8980"),
            ("grpc://build:8980", "grpc://build:8980"),
            ("grpc://build:8980/", "grpc://build:8980"),
            ("http://[::1]:1", "grpc://[::1]:1"),
            ("grpcs://rbe.example:443", "grpcs://rbe.example:443"),
            ("unix:/run/casd.sock", "unix:/run/casd.sock"),
            ("unix:///run/casd.sock", "unix:/run/casd.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
        }
        for bad in ["build", "grpc://build", "ftp://build:1", "unix:run/x", "grpc://a:b:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
