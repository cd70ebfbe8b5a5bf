//! What is shown as `Authorization`, from a file that holds it. Never logged: it has no `Debug` that says it.

use http::HeaderValue;
use std::fmt;

/// A header's value, `Bearer TOKEN` or whatever else a server wants.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(String);

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(..)")
    }
}

impl Authorization {
    /// From a file's text; a token alone is a bearer's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty; it should hold: Bearer TOKEN".to_owned());
        }
        if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err("it should hold one line of ASCII: Bearer TOKEN".to_owned());
        }
        Ok(Self(if text.contains(' ') { text.to_owned() } else { format!("Bearer {text}") }))
    }

    /// As a header.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The token alone, if it is a bearer's.
    pub fn bearer_token(&self) -> Option<&str> {
        self.0.strip_prefix("Bearer ").map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_alone_is_a_bearers() {
        let parse = |text: &str| Authorization::parse(text).unwrap();
        for text in ["t0k\n", "Bearer t0k", " Bearer t0k \n"] {
            assert_eq!(parse(text).header().unwrap(), "Bearer t0k");
            assert_eq!(parse(text).bearer_token(), Some("t0k"));
        }
        let basic = parse("Basic abc=");
        assert_eq!((basic.header().unwrap().to_str().unwrap(), basic.bearer_token()), ("Basic abc=", None));
        for bad in ["", " \n", "a\nb", "\u{fc}"] {
            assert!(Authorization::parse(bad).is_err(), "{bad:?}");
        }
        assert!(!format!("{:?}", parse("t0k")).contains("t0k"));
    }
}
