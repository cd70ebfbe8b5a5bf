//! Identities that stay true for ever, unlike names.

use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// What was wrong with the text of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not a UUID")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made at an edge (this crate makes none: that needs randomness).
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID within.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                // Only the canonical spelling: an id is also a directory name.
                match Uuid::try_parse(text) {
                    Ok(id) if id.hyphenated().to_string() == text => Ok(Self(id)),
                    _ => Err(ParseIdError { what: $what, text: text.chars().take(64).collect() }),
                }
            }
        }
    };
}

uuid_id!(
    /// One environment given to one owner. Its *name* is reused after it has gone; this is not.
    InstanceId,
    "instance id"
);
uuid_id!(
    /// One execution of a command. Made by the client, so that asking twice starts once.
    ExecId,
    "execution id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let text = "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
        assert_eq!(text.parse::<ExecId>().unwrap().to_string(), text);
        for bad in ["", "..", &text.to_uppercase(), &text.replace('-', ""), "{0193a1b2}"] {
            assert!(bad.parse::<ExecId>().is_err(), "{bad}");
        }
    }
}
