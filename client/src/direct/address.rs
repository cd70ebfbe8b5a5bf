//! `TYPE@host[:port]`, as a value.

use crate::error::Error;
use motefarm_core::HostType;
use std::fmt;

/// Where buildlets listen unless told otherwise.
const DEFAULT_PORT: u16 = 5936;
/// Longest name of a host there is.
const MAX_HOST_BYTES: usize = 253;

/// A buildlet that listens, and what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) host_type: HostType,
    /// Without brackets.
    host: String,
    port: u16,
}

impl Address {
    /// Whether a word in an instance's place is meant to be one: no instance's name has an `@`.
    pub(super) fn is_meant(word: &str) -> bool {
        word.contains('@')
    }

    /// Reads one; the error says how it is written.
    pub(super) fn parse(word: &str) -> Result<Self, Error> {
        let bad = |problem: String| {
            Error::usage(
                format!("{word:?} is no address of a buildlet: {problem}"),
                "write TYPE@HOST, TYPE@HOST:PORT or TYPE@[IPV6]:PORT, such as linux-amd64@10.1.5.3",
            )
        };
        let (host_type, place) = word.split_once('@').ok_or_else(|| bad("there is no @".to_owned()))?;
        let host_type = host_type.parse().map_err(|error| bad(format!("{error}")))?;
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => {
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad(format!("{host:?} is no IPv6 address")))?;
                let port = match rest.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if rest.is_empty() => None,
                    None => return Err(bad(format!("{rest:?} behind the bracket"))),
                };
                (host, port)
            }
            None => match place.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(bad("an IPv6 address stands in brackets".to_owned()));
                }
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.chars().all(plain) {
            return Err(bad(format!("{:?} is no host", host.chars().take(80).collect::<String>())));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad(format!("port {port:?}")))?,
        };
        Ok(Self { host_type, host: host.to_owned(), port })
    }

    /// `host:port`, with brackets where they are needed.
    pub(super) fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// With its port, whichever it is.
    pub(super) fn full(&self) -> String {
        format!("{}@{}", self.host_type, self.place())
    }

    /// What a file about the place is called, on every system.
    pub(super) fn file_name(&self) -> String {
        format!("{}_{}.toml", self.host.replace(':', "-"), self.port)
    }
}

/// As a person would write it: the port only if it is not the usual one.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.full();
        let usual = format!(":{DEFAULT_PORT}");
        f.write_str(full.strip_suffix(&usual).unwrap_or(&full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_one_is_read() {
        for (word, place, short) in [
            ("linux-amd64@10.1.5.3", "10.1.5.3:5936", "linux-amd64@10.1.5.3"),
            ("linux-amd64@10.1.5.3:5936", "10.1.5.3:5936", "linux-amd64@10.1.5.3"),
            ("linux-amd64@box.example:81", "box.example:81", "linux-amd64@box.example:81"),
            ("linux-amd64@[::1]", "[::1]:5936", "linux-amd64@[::1]"),
            ("linux-amd64@[fe80::1]:7", "[fe80::1]:7", "linux-amd64@[fe80::1]:7"),
        ] {
            let address = Address::parse(word).unwrap();
            assert_eq!((address.place().as_str(), address.to_string().as_str()), (place, short));
            assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
            assert_eq!(Address::parse(&address.full()).unwrap(), address);
            assert!(motefarm_net::dial::split_address(&address.place()).is_ok());
        }
        assert_eq!(Address::parse("a@[::1]:81").unwrap().file_name(), "--1_81.toml");
    }

    #[test]
    fn what_is_none_says_how_to_write_it() {
        for word in [
            "linux-amd64",
            "@host",
            "Linux@host",
            "a@",
            "a@:5936",
            "a@::1",
            "a@[::1",
            "a@[::1]x",
            "a@[host]:1",
            "a@host:0",
            "a@host:70000",
            "a@b@c",
            "a@../x",
            "a@h h",
        ] {
            let error = Address::parse(word).unwrap_err();
            assert!(error.next_step().is_some_and(|next| next.contains("TYPE@HOST:PORT")), "{word}");
        }
    }
}
