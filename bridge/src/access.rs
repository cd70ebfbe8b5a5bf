//! Who may use the bridge: whoever shows a token of the file, and, unless that is forbidden, the bridge's own
//! user on this machine. A client's `Authorization` is free text, so the token counts with and without
//! `Bearer`. Values are hashed as they are read and never said again.

use crate::secret_file::{SecretFile, SecretFileError};
use motefarm_net::token::SecretHash;
use std::fmt;
use std::path::Path;

/// Set by a relay on the calls of users that are not its own: its socket is its user's, and they are not.
/// It only takes away, so anybody may set it.
pub const OTHER_USER: &str = "mote-other-user";

/// Who is let in without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Nobody,
    /// The user that the bridge runs as, over loopback.
    OwnUser,
    /// Everybody who can connect.
    Anyone,
}

/// Who called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever has this name's token, wherever he is.
    Token(String),
    /// The user that the bridge runs as, on this machine: what he may read the bridge may read, and sees.
    OwnUser,
    /// Anybody.
    Anyone,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(name) => name,
            Self::OwnUser => "own user",
            Self::Anyone => "anonymous",
        })
    }
}

/// See the module.
pub struct Access {
    anonymous: Anonymous,
    tokens: Option<SecretFile<Tokens>>,
}

/// Whose each is.
type Tokens = Vec<(String, SecretHash)>;

impl Access {
    /// These rules; the file is read now.
    pub fn new(anonymous: Anonymous, token_file: Option<&Path>) -> Result<Self, SecretFileError> {
        Ok(Self { anonymous, tokens: token_file.map(|path| SecretFile::open(path, parse)).transpose()? })
    }

    /// Who called, if he may.
    pub fn admit(&self, is_own_user: bool, authorization: Option<&[u8]>) -> Option<Who> {
        let shown = authorization.and_then(|value| std::str::from_utf8(value).ok());
        let named = shown.and_then(|shown| owner(&self.tokens.as_ref()?.get(), shown.trim()));
        named.map(Who::Token).or(match self.anonymous {
            Anonymous::Anyone => Some(Who::Anyone),
            Anonymous::OwnUser if is_own_user => Some(Who::OwnUser),
            Anonymous::OwnUser | Anonymous::Nobody => None,
        })
    }
}

/// For `/ping` and people.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.anonymous, self.tokens.is_some()) {
            (Anonymous::Anyone, _) => "anyone",
            (Anonymous::OwnUser, false) => "own-user",
            (Anonymous::OwnUser, true) => "own-user,token",
            (Anonymous::Nobody, _) => "token",
        })
    }
}

fn owner(tokens: &Tokens, shown: &str) -> Option<String> {
    let bare = shown.strip_prefix("Bearer ").map_or(shown, str::trim);
    let mine = |(_, hash): &&(String, SecretHash)| hash.matches(bare) | hash.matches(shown);
    tokens.iter().find(mine).map(|(name, _)| name.clone())
}

fn parse(text: &str) -> Result<Tokens, String> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let tokens = lines.map(|(n, line)| match line.split_once(char::is_whitespace) {
        Some((name, token)) => Ok((name.to_owned(), SecretHash::of(token.trim()))),
        None => Err(format!("line {}: expected NAME TOKEN", n + 1)),
    });
    tokens.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_file::LOOK_EVERY;
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        motefarm_net::private_file::write(&path, text.as_bytes()).unwrap();
        (dir, path)
    }

    #[test]
    fn tokens_name_their_owners_in_either_spelling() {
        let (_dir, path) = file("# who may\nalice secret-1\nci  Basic abc=\n");
        let access = Access::new(Anonymous::OwnUser, Some(&path)).unwrap();
        for (own, shown, expected) in [
            (false, Some("Bearer secret-1"), Some("alice")),
            (false, Some("secret-1"), Some("alice")),
            (false, Some("Basic abc="), Some("ci")),
            (true, Some("wrong"), Some("own user")),
            (true, None, Some("own user")),
            (false, Some("Bearer wrong"), None),
            (false, Some("Bearer "), None),
            (false, None, None),
        ] {
            let who = access.admit(own, shown.map(str::as_bytes)).map(|who| who.to_string());
            assert_eq!(who.as_deref(), expected, "{own} {shown:?}");
        }
        assert_eq!(access.to_string(), "own-user,token");
        assert_eq!(access.admit(false, Some(&[0xff])), None);
        let nobody = Access::new(Anonymous::Nobody, Some(&path)).unwrap();
        assert_eq!(nobody.admit(true, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_when_it_changed_and_kept_when_it_broke() {
        let (_dir, path) = file("alice one\n");
        let access = Access::new(Anonymous::Nobody, Some(&path)).unwrap();
        let change = |text: &str, seconds: u64| {
            motefarm_net::private_file::write(&path, text.as_bytes()).unwrap();
            let when = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options().write(true).open(&path).unwrap().set_modified(when).unwrap();
        };
        change("bob two\n", 1000);
        tokio::time::advance(LOOK_EVERY).await;
        let bob = Some(Who::Token("bob".to_owned()));
        assert_eq!((access.admit(false, Some(b"one")), access.admit(false, Some(b"two"))), (None, bob.clone()));
        change("nonsense\n", 2000);
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(access.admit(false, Some(b"two")), bob);
    }

    #[test]
    fn a_file_that_is_open_or_wrong_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, path) = file("alice one\nbob\n");
        let problem = Access::new(Anonymous::Nobody, Some(&path)).err().unwrap().to_string();
        assert!(problem.contains("tokens, line 2: expected NAME TOKEN"), "{problem}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Access::new(Anonymous::Nobody, Some(&path)), Err(SecretFileError::Open(_))));
    }
}
