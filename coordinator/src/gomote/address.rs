//! Where a client reaches the farm's uploads and archives, and which addresses are those. Pure.

use std::net::{IpAddr, SocketAddr};

/// Below this a client POSTs an upload: key, slash.
pub(super) const UPLOADS: &str = "/gomote/uploads/";
/// Below this a client GETs an archive: key, suffix.
pub(super) const ARCHIVES: &str = "/gomote/archives/";
/// What an upload's address ends in when it is named later on. The client joins the two itself.
pub(super) const OBJECT: &str = "object";
/// What an archive's address ends in: for people who look at it.
const ARCHIVE_SUFFIX: &str = ".tar.gz";

/// An unguessable name: 128 random bits in hex. Who knows it may use what it names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    /// A fresh one.
    pub(super) fn generate() -> Self {
        Self(hex::encode(rand::random::<[u8; 16]>()))
    }

    /// From its text; `None` if no key reads so.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a caller came in: by which name, and at which of our addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    /// `:authority` of the call: host and port as the client was told them.
    pub(super) authority: String,
    /// Our end of the connection.
    pub(super) local: SocketAddr,
}

impl Door {
    /// Scheme, host and port that work for this caller's plain HTTP client.
    ///
    /// By gRPC the Go client takes any certificate of `localhost:...`, by HTTP it takes none of
    /// ours unless it was told of the farm's CA. So one that came to loopback by a loopback name
    /// goes on in the clear there, with the key as its right; the port is the client's, which may
    /// be the near end of a tunnel. Everybody else stays with TLS.
    pub(super) fn base(&self) -> String {
        let local = self.local.ip().to_canonical();
        match self.loopback_port() {
            Some(port) if local.is_loopback() => {
                let host = if local.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                format!("http://{host}:{port}")
            }
            _ => format!("https://{}", self.authority),
        }
    }

    /// The authority's port, if its host is a name of loopback.
    fn loopback_port(&self) -> Option<u16> {
        let authority: http::uri::Authority = self.authority.parse().ok()?;
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let loopback = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback());
        loopback.then(|| authority.port_u16().unwrap_or(443))
    }

    /// Where to POST an upload.
    pub(super) fn upload(&self, key: &Key) -> String {
        format!("{}{UPLOADS}{}/", self.base(), key.as_str())
    }

    /// Where to GET an archive.
    pub(super) fn archive(&self, key: &Key) -> String {
        format!("{}{ARCHIVES}{}{ARCHIVE_SUFFIX}", self.base(), key.as_str())
    }
}

/// What a URL in a request means.
#[derive(PartialEq, Eq)]
pub(super) enum Source {
    /// An upload to this farm, to be read from its spool: we never fetch from ourselves.
    Upload(Key),
    /// Somebody else's.
    Elsewhere,
}

/// Tells an upload's address by its path, whatever name of the farm is before it.
pub(super) fn source(url: &str) -> Source {
    let path = url.parse::<http::Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
    let key = path.strip_prefix(UPLOADS).and_then(|rest| rest.strip_suffix(OBJECT)?.strip_suffix('/'));
    key.and_then(Key::parse).map_or(Source::Elsewhere, Source::Upload)
}

/// The key in an archive's last path part.
pub(super) fn archive_key(name: &str) -> Option<Key> {
    name.strip_suffix(ARCHIVE_SUFFIX).and_then(Key::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(authority: &str, local: &str) -> String {
        Door { authority: authority.into(), local: local.parse().unwrap() }.base()
    }

    #[test]
    fn loopback_goes_on_in_the_clear_and_the_rest_does_not() {
        assert_eq!(base("localhost:8119", "127.0.0.1:8119"), "http://127.0.0.1:8119");
        assert_eq!(base("LOCALHOST:8119", "[::1]:8119"), "http://[::1]:8119");
        assert_eq!(base("localhost:8119", "[::ffff:127.0.0.1]:8119"), "http://127.0.0.1:8119");
        assert_eq!(base("127.0.0.1:8119", "127.0.0.1:8119"), "http://127.0.0.1:8119");
        assert_eq!(base("[::1]:8119", "[::1]:8119"), "http://[::1]:8119");
        // The near end of a tunnel.
        assert_eq!(base("localhost:9000", "127.0.0.1:8119"), "http://127.0.0.1:9000");
        // A port handed on from the host into a container is not loopback here.
        assert_eq!(base("localhost:8119", "172.17.0.2:8119"), "https://localhost:8119");
        assert_eq!(base("farm.example:443", "10.0.0.1:8119"), "https://farm.example:443");
        assert_eq!(base("farm.example:443", "127.0.0.1:8119"), "https://farm.example:443");
        assert_eq!(base("localhost.evil:1", "127.0.0.1:8119"), "https://localhost.evil:1");
        assert_eq!(base("", "127.0.0.1:8119"), "https://");
    }

    #[test]
    fn an_upload_is_known_again_by_what_the_client_makes_of_it() {
        let door = Door { authority: "localhost:1".into(), local: "127.0.0.1:1".parse().unwrap() };
        let key = Key::generate();
        assert!(source(&format!("{}{OBJECT}", door.upload(&key))) == Source::Upload(key.clone()));
        assert!(source(&format!("https://any.name/gomote/uploads/{}/object", key.as_str())) == Source::Upload(key));
        for foreign in [
            "",
            "https://go.googlesource.com/go/+archive/abc.tar.gz",
            "http://127.0.0.1:1/gomote/uploads/short/object",
            "http://127.0.0.1:1/gomote/uploads//object",
            "http://127.0.0.1:1/x/gomote/uploads/00000000000000000000000000000000/object",
            "not a url",
        ] {
            assert!(source(foreign) == Source::Elsewhere, "{foreign}");
        }
    }

    #[test]
    fn keys_are_128_bits_of_hex() {
        let key = Key::generate();
        assert_eq!(archive_key(&format!("{}.tar.gz", key.as_str())).unwrap().as_str(), key.as_str());
        for bad in ["", "g0000000000000000000000000000000", "0000000000000000000000000000000", "../../../etc/passwd"] {
            assert!(Key::parse(bad).is_none() && archive_key(bad).is_none());
        }
    }
}
