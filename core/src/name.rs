//! Names people read: users and instances.

use crate::host_type::HostType;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Who owns things. 1 to 32 of `a-z`, `0-9`, `-`, `_` and `.`, starting with a letter or digit, so
/// that it is safe as part of a file name and of an ssh user name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// Why a text is no user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user name {0:?} must be 1 to 32 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit")]
pub struct ParseUserNameError(String);

impl UserName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest user name to what the operating system calls somebody: lower case, anything
    /// else replaced by `-`; `user` if nothing is left.
    pub fn nearest(system_name: &str) -> Self {
        let mapped: String = system_name
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c) { c } else { '-' })
            .take(32)
            .collect();
        let trimmed = mapped.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        trimmed.parse().unwrap_or_else(|_| Self("user".to_owned()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = ParseUserNameError;
    fn from_str(text: &str) -> Result<Self, ParseUserNameError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if first && rest && text.len() <= 32 {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseUserNameError(text.chars().take(48).collect()))
        }
    }
}

/// `<user>-<type>-<n>`, with the smallest `n` for which nothing in `taken` has the name.
pub fn next_instance_name(user: &UserName, host_type: &HostType, taken: &BTreeSet<String>) -> String {
    (0u32..)
        .map(|n| format!("{user}-{host_type}-{n}"))
        .find(|name| !taken.contains(name))
        .expect("a finite set leaves a number free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_free_number_is_taken() {
        let user = "alice".parse().unwrap();
        let host_type = "linux-amd64".parse().unwrap();
        let mut taken = BTreeSet::new();
        assert_eq!(next_instance_name(&user, &host_type, &taken), "alice-linux-amd64-0");
        taken.insert("alice-linux-amd64-0".to_owned());
        taken.insert("alice-linux-amd64-2".to_owned());
        assert_eq!(next_instance_name(&user, &host_type, &taken), "alice-linux-amd64-1");
    }

    #[test]
    fn any_system_name_has_a_nearest_user_name() {
        for (system, ours) in
            [("Alice", "alice"), ("alice smith", "alice-smith"), ("..", "user"), ("", "user"), ("Ü", "user")]
        {
            assert_eq!(UserName::nearest(system).as_str(), ours);
        }
    }
}
