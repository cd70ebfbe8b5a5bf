//! What a keeper is told on its command line: `name=value` words, so that an old program ignores
//! what a newer one adds. Nothing secret: commands can read it.

use crate::supervisor::Limits;
use motefarm_core::Timestamp;
use motefarm_proto::mote::InstanceLimits;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// When the instance ends unless this is renewed.
    pub(crate) ends_at: Timestamp,
    /// Bounds of every command.
    pub(crate) limits: Limits,
}

impl Arguments {
    pub(crate) fn new(ends_at: Timestamp, limits: &InstanceLimits) -> Self {
        let limits =
            Limits { memory_bytes: limits.memory_bytes, processes: limits.processes, file_bytes: limits.file_bytes };
        Self { ends_at, limits }
    }

    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self { ends_at: Timestamp::MAX, limits: Limits::default() };
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not name=value"))?;
            let number = || value.parse::<u64>().map_err(|e| format!("{word:?}: {e}"));
            match name {
                "ends-at-ms" => {
                    parsed.ends_at = Timestamp::from_millis(value.parse().map_err(|e| format!("{word:?}: {e}"))?);
                }
                "memory-bytes" => parsed.limits.memory_bytes = number()?,
                "processes" => parsed.limits.processes = number()?,
                "file-bytes" => parsed.limits.file_bytes = number()?,
                _ => {}
            }
        }
        Ok(parsed)
    }

    pub(crate) fn words(&self) -> Vec<String> {
        vec![
            format!("ends-at-ms={}", self.ends_at.as_millis()),
            format!("memory-bytes={}", self.limits.memory_bytes),
            format!("processes={}", self.limits.processes),
            format!("file-bytes={}", self.limits.file_bytes),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_and_unknown_ones_are_ignored() {
        let limits = InstanceLimits { memory_bytes: 1, processes: 2, file_bytes: 3 };
        let arguments = Arguments::new(Timestamp::from_millis(-5), &limits);
        let mut words = arguments.words();
        words.push("from-the-future=yes".to_owned());
        assert_eq!(Arguments::parse(words.into_iter()), Ok(arguments));
        assert!(Arguments::parse(["x".to_owned()].into_iter()).is_err());
        assert!(Arguments::parse(["processes=many".to_owned()].into_iter()).is_err());
    }
}
