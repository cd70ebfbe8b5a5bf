//! The environment a command gets.
//!
//! The rules are the Go agent's (reference: golang/build `cmd/buildlet`, `/exec`), less its leak of
//! the agent's own environment: base, then the request's variables in order, then what the farm
//! insists on; for duplicates the last wins.

use std::collections::BTreeMap;

/// The one path element that empties `PATH`, as the Go client means it by `-path EMPTY`; the
/// spelling with `$` is the one its agent accepts.
pub const EMPTY_PATH_WORDS: [&str; 2] = ["EMPTY", "$EMPTY"];

/// What an instance offers to the environment of its commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Variables every command starts from, `PATH` among them.
    pub base: Vec<(String, String)>,
    /// The work directory as the command sees it.
    pub work_dir: String,
    /// The private temporary directory as the command sees it.
    pub tmp_dir: String,
}

/// Why an environment can not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// `NAME=value` without `=`, with an empty name, or with a NUL byte.
    #[error("environment entry {0:?} is not NAME=value")]
    BadEntry(String),
}

/// The whole environment, sorted by name.
///
/// `path` elements have every `$PATH` replaced by the base path and `$WORKDIR` by the work
/// directory; elements that end up empty are dropped; a single `EMPTY` clears `PATH`; no elements
/// leave it. `WORKDIR`, `TMPDIR` and `PWD` (= `dir`) are the farm's and win over the request's.
pub fn build(
    surroundings: &Surroundings,
    requested: &[String],
    path: &[String],
    dir: &str,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut env: BTreeMap<String, String> = surroundings.base.iter().cloned().collect();
    let base_path = env.get("PATH").cloned().unwrap_or_default();
    for entry in requested {
        let (name, value) = entry
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !entry.contains('\0'))
            .ok_or_else(|| EnvironmentError::BadEntry(entry.chars().take(80).collect()))?;
        env.insert(name.to_owned(), value.to_owned());
    }
    match path {
        [] => {}
        [only] if EMPTY_PATH_WORDS.contains(&only.as_str()) => {
            env.insert("PATH".to_owned(), String::new());
        }
        elements => {
            let expanded: Vec<String> = elements
                .iter()
                .map(|e| e.replace("$PATH", &base_path).replace("$WORKDIR", &surroundings.work_dir))
                .filter(|e| !e.is_empty())
                .collect();
            env.insert("PATH".to_owned(), expanded.join(":"));
        }
    }
    for (name, value) in [("WORKDIR", surroundings.work_dir.as_str()), ("TMPDIR", &surroundings.tmp_dir), ("PWD", dir)]
    {
        env.insert(name.to_owned(), value.to_owned());
    }
    Ok(env.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings {
            base: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/home/mote".into())],
            work_dir: "/workdir".into(),
            tmp_dir: "/tmp".into(),
        }
    }

    fn get<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
        env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn with_path(path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|p| (*p).to_owned()).collect();
        let env = build(&surroundings(), &[], &path, "/workdir").unwrap();
        get(&env, "PATH").unwrap().to_owned()
    }

    #[test]
    fn path_elements_expand_as_the_go_agent_expands_them() {
        assert_eq!(with_path(&[]), "/usr/bin:/bin");
        assert_eq!(with_path(&["$PATH", "$WORKDIR/go/bin"]), "/usr/bin:/bin:/workdir/go/bin");
        assert_eq!(with_path(&["", "/x"]), "/x");
        assert_eq!(with_path(&["EMPTY"]), "");
        assert_eq!(with_path(&["$EMPTY"]), "");
    }

    #[test]
    fn the_last_entry_wins_and_the_farms_own_win_over_all() {
        let asked = ["A=1".to_owned(), "A=2=3".to_owned(), "TMPDIR=/evil".to_owned(), "PATH=/p".to_owned()];
        let env = build(&surroundings(), &asked, &[], "/workdir/sub").unwrap();
        assert_eq!(get(&env, "A"), Some("2=3"));
        assert_eq!(get(&env, "TMPDIR"), Some("/tmp"));
        assert_eq!(get(&env, "PWD"), Some("/workdir/sub"));
        assert_eq!(get(&env, "PATH"), Some("/p"));
    }

    #[test]
    fn malformed_entries_are_named() {
        for bad in ["novalue", "=x", "A=\0"] {
            assert!(build(&surroundings(), &[bad.to_owned()], &[], "/").is_err());
        }
    }
}
