//! Who may use the bridge: whoever shows a token of the file, and, unless that is forbidden, the bridge's own
//! user on this machine. A client's `Authorization` is free text, so the token counts with and without
//! `Bearer`. Values are hashed as they are read and never said again.

use motefarm_net::token::SecretHash;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use std::{fs, io};
use tokio::time::Instant;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

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

/// See the module.
pub struct Access {
    anonymous: Anonymous,
    tokens: Option<TokenFile>,
}

/// Why a token file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It can not be read.
    #[error("can not read the token file {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the token file {0} is open to others: chmod 600 {0}")]
    Open(String),
    /// A line is not a name and a token.
    #[error("the token file {}, line {line}: expected NAME TOKEN", .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1 on.
        line: usize,
    },
}

struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

/// Whose each is.
type Tokens = Vec<(String, SecretHash)>;

struct State {
    tokens: Tokens,
    stamp: Option<SystemTime>,
    looked: Instant,
}

impl Access {
    /// These rules; the file is read now.
    pub fn new(anonymous: Anonymous, token_file: Option<&Path>) -> Result<Self, TokenFileError> {
        let tokens = token_file.map(|path| {
            let (tokens, stamp) = read(path)?;
            let state = Mutex::new(State { tokens, stamp, looked: Instant::now() });
            Ok::<_, TokenFileError>(TokenFile { path: path.to_owned(), state })
        });
        Ok(Self { anonymous, tokens: tokens.transpose()? })
    }

    /// The name of who called, or nobody.
    pub fn admit(&self, is_own_user: bool, authorization: Option<&[u8]>) -> Option<String> {
        let shown = authorization.and_then(|value| std::str::from_utf8(value).ok());
        let named = shown.and_then(|shown| self.tokens.as_ref()?.owner(shown.trim()));
        named.or(match self.anonymous {
            Anonymous::Anyone => Some("anonymous".to_owned()),
            Anonymous::OwnUser if is_own_user => Some("own user".to_owned()),
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

impl TokenFile {
    fn owner(&self, shown: &str) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            if stamp(&self.path) != state.stamp {
                match read(&self.path) {
                    Ok((tokens, stamp)) => {
                        tracing::info!(path = %self.path.display(), tokens = tokens.len(), "the token file was read again");
                        (state.tokens, state.stamp) = (tokens, stamp);
                    }
                    Err(error) => tracing::error!(%error, "the token file is no use now; the tokens before stay good"),
                }
            }
        }
        let bare = shown.strip_prefix("Bearer ").map_or(shown, str::trim);
        let mine = |(_, hash): &&(String, SecretHash)| hash.matches(bare) | hash.matches(shown);
        state.tokens.iter().find(mine).map(|(name, _)| name.clone())
    }
}

fn stamp(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn read(path: &Path) -> Result<(Tokens, Option<SystemTime>), TokenFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| TokenFileError::Read { path: path.to_owned(), source };
    let stamp = stamp(path);
    if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(TokenFileError::Open(path.display().to_string()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let tokens = lines.map(|(n, line)| match line.split_once(char::is_whitespace) {
        Some((name, token)) => Ok((name.to_owned(), SecretHash::of(token.trim()))),
        None => Err(TokenFileError::Line { path: path.to_owned(), line: n + 1 }),
    });
    Ok((tokens.collect::<Result<_, _>>()?, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(access.admit(own, shown.map(str::as_bytes)).as_deref(), expected, "{own} {shown:?}");
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
        assert_eq!((access.admit(false, Some(b"one")), access.admit(false, Some(b"two"))), (None, Some("bob".into())));
        change("nonsense\n", 2000);
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(access.admit(false, Some(b"two")).as_deref(), Some("bob"));
    }

    #[test]
    fn a_file_that_is_open_or_wrong_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, path) = file("alice one\nbob\n");
        assert!(matches!(Access::new(Anonymous::Nobody, Some(&path)), Err(TokenFileError::Line { line: 2, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Access::new(Anonymous::Nobody, Some(&path)), Err(TokenFileError::Open(_))));
    }
}
