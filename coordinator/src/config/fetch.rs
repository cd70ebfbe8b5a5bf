//! Which addresses the farm may fetch from on a user's word.

use super::ConfigError;
use serde::Deserialize;
use url::Url;

/// `[fetch]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchFile {
    /// Prefixes of what may be fetched; absent: nothing may.
    pub allow: Vec<String>,
    /// Bytes of one archive; absent: 4 GiB.
    pub max_bytes: Option<u64>,
}

/// The same, resolved.
#[derive(Debug, Clone)]
pub struct Fetch {
    allow: Vec<Url>,
    /// Bytes of one archive.
    pub max_bytes: u64,
}

impl FetchFile {
    /// Parses the prefixes.
    pub(super) fn resolve(self) -> Result<Fetch, ConfigError> {
        let allow = self.allow.iter().enumerate().map(|(at, text)| {
            let problem = |problem: String| ConfigError::Value { key: format!("fetch.allow[{at}]"), problem };
            let url = Url::parse(text).map_err(|e| problem(format!("{text:?} is not an address: {e}")))?;
            let plain = url.query().is_none() && url.fragment().is_none() && !has_credentials(&url);
            match matches!(url.scheme(), "http" | "https") && url.host().is_some() && plain {
                true => Ok(url),
                false => Err(problem(format!("{text:?} is not http or https, a host, perhaps a port, and a path"))),
            }
        });
        Ok(Fetch { allow: allow.collect::<Result<_, _>>()?, max_bytes: self.max_bytes.unwrap_or(4 << 30) })
    }
}

/// Whether an address carries a user name or password.
pub fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

impl Fetch {
    /// Whether an address may be fetched: scheme, host and port are a prefix's, and the path is it or
    /// lies below it. Parsing has resolved `..` already; a slash or dot hidden by an escape, which a
    /// server may see where we do not, is refused.
    pub fn allows(&self, url: &Url) -> bool {
        let path = url.path();
        let hidden = ["%2f", "%5c", "%2e"].iter().any(|escape| path.to_ascii_lowercase().contains(escape));
        !hidden
            && !has_credentials(url)
            && self.allow.iter().any(|prefix| {
                let same_place = prefix.scheme() == url.scheme()
                    && prefix.host() == url.host()
                    && prefix.port_or_known_default() == url.port_or_known_default();
                let below = path
                    .strip_prefix(prefix.path())
                    .is_some_and(|rest| rest.is_empty() || prefix.path().ends_with('/') || rest.starts_with('/'));
                same_place && below
            })
    }

    /// The prefixes, for people.
    pub fn describe(&self) -> String {
        match self.allow.is_empty() {
            true => "nothing".to_owned(),
            false => self.allow.iter().map(Url::as_str).collect::<Vec<_>>().join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(allow: &[&str]) -> Result<Fetch, ConfigError> {
        FetchFile { allow: allow.iter().map(|text| (*text).to_owned()).collect(), max_bytes: None }.resolve()
    }

    #[test]
    fn only_what_lies_below_a_prefix_is_allowed() {
        let fetch =
            fetch(&["https://go.example/", "https://data.example:8443/builder/", "http://plain.example/x"]).unwrap();
        for good in [
            "https://go.example/a/b.tar.gz?x=1",
            "https://GO.example:443/",
            "https://data.example:8443/builder/x",
            "http://plain.example/x",
            "http://plain.example/x/y",
        ] {
            assert!(fetch.allows(&good.parse().unwrap()), "{good}");
        }
        for bad in [
            "http://go.example/a",
            "https://go.example:8443/a",
            "https://go.example.evil/a",
            "https://go.example@evil/",
            "https://user@go.example/a",
            "https://evil/https://go.example/",
            "https://data.example:8443/builder",
            "https://data.example:8443/builder/../secret",
            "https://data.example:8443/builder/%2e%2e/secret",
            "https://data.example:8443/builder/..%2fsecret",
            "https://data.example:8443/builder/%2e%2e%2Fsecret",
            "https://data.example/builder/x",
            "http://plain.example/xy",
            "file:///etc/passwd",
        ] {
            assert!(!fetch.allows(&bad.parse().unwrap()), "{bad}");
        }
        assert!(!FetchFile::default().resolve().unwrap().allows(&"https://go.example/".parse().unwrap()));
    }

    #[test]
    fn a_prefix_that_is_none_is_named() {
        for bad in ["go.example", "file:///x", "https://u:p@h/", "https://h/?q", "ftp://h/"] {
            let error = fetch(&["https://ok/", bad]).unwrap_err().to_string();
            assert!(error.starts_with("fetch.allow[1]: "), "{error}");
        }
    }
}
