//! Names users give to what is theirs: groups and snapshots.

use std::fmt;
use std::str::FromStr;

/// The longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 64;

/// What a user calls a group or a snapshot: 1 to [`MAX_LABEL_BYTES`] ASCII letters, digits, `-`, `_`
/// and `.`, not beginning with `-` or `.`, so that none can be taken for an option, a hidden file or
/// a list of several. Case counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// Why a text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name {0:?} must be 1 to {MAX_LABEL_BYTES} letters, digits, '-', '_' and '.', not beginning with '-' or '.'")]
pub struct ParseLabelError(String);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = ParseLabelError;
    fn from_str(text: &str) -> Result<Self, ParseLabelError> {
        let first = text.bytes().next().is_some_and(|b| b != b'-' && b != b'.');
        let all = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if first && all && text.len() <= MAX_LABEL_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseLabelError(text.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_taken_for_something_else_is_refused() {
        for bad in ["", "-a", ".a", "..", "a b", "a/b", "a,b", "ä", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        for good in ["a", "_", "0", "My-group_1.x", &"a".repeat(64)] {
            assert_eq!(good.parse::<Label>().map(|label| label.to_string()), Ok(good.to_owned()));
        }
    }
}
