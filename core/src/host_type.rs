//! Classes of machine.

use std::fmt;
use std::str::FromStr;

/// A class of machine that instances are leased by, such as `linux-amd64` or
/// `linux-amd64-deb12`: 1 to 63 of `a-z`, `0-9`, `-`, `.` and `_`, first and last a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostType(String);

/// Why a text is no host type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host type {0:?} must be 1 to 63 of a-z, 0-9, '-', '.' and '_', starting and ending with a letter or digit")]
pub struct ParseHostTypeError(String);

impl HostType {
    /// The type named after a machine, in Go's words for systems and processors, as builders
    /// have always been named: `("linux", "x86_64")` is `linux-amd64`.
    pub fn of_machine(os: &str, arch: &str) -> Self {
        let os = match os {
            "macos" => "darwin",
            other => other,
        };
        let arch = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self(format!("{os}-{arch}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostType {
    type Err = ParseHostTypeError;
    fn from_str(text: &str) -> Result<Self, ParseHostTypeError> {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inner =
            bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'));
        if bytes.len() <= 63 && inner && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseHostTypeError(text.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_in_gos_words() {
        assert_eq!(HostType::of_machine("linux", "x86_64").as_str(), "linux-amd64");
        assert_eq!(HostType::of_machine("macos", "aarch64").as_str(), "darwin-arm64");
        assert_eq!(HostType::of_machine("linux", "riscv64").as_str(), "linux-riscv64");
    }

    #[test]
    fn names_that_could_mislead_a_path_or_a_shell_are_refused() {
        for bad in ["", "-a", "a-", "A", "a/b", "a b", "..", &"a".repeat(64), "a\n"] {
            assert!(bad.parse::<HostType>().is_err(), "{bad:?}");
        }
        assert!("linux-amd64-deb12.1_x".parse::<HostType>().is_ok());
    }
}
