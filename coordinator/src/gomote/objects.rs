//! Uploads on their way from a client to an instance: a file each in the data directory, known by
//! an unguessable key, for ten minutes.
//!
//! They live as long as this process: a client that finds its upload gone begins again. What a
//! process before this one left behind is removed at start.

use super::address::Key;
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;
use motefarm_net::private_file;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long room is kept for an upload that does not come, and an upload for a use that does not come.
pub(super) const LIFE: Duration = Duration::from_secs(600);
/// How long it is kept once it was used: for a client that asks for the same again.
const AFTER_USE: Duration = Duration::from_secs(60);

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Uploads at once, expected ones included.
    pub(super) objects: usize,
    /// Bytes of one.
    pub(super) object_bytes: u64,
    /// Bytes of all.
    pub(super) total_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { objects: 1000, object_bytes: 4 << 30, total_bytes: 16 << 30 }
    }
}

/// Why an upload is not taken or not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObjectError {
    /// No such key, or not the caller's, or expired, or not uploaded yet: alike.
    #[error("there is no such upload; it may have expired: uploads are kept for {} minutes", LIFE.as_secs() / 60)]
    NotThere,
    /// The key was used.
    #[error("something was uploaded there already")]
    Taken,
    /// A bound.
    #[error("{0}")]
    Full(String),
    /// Our disk.
    #[error("the farm can not keep uploads: {0}")]
    Io(#[from] io::Error),
}

enum State {
    Expected,
    Arriving,
    Stored,
}

struct Object {
    owner: UserName,
    expires_at: Timestamp,
    state: State,
    bytes: u64,
}

/// All uploads.
pub(super) struct Objects {
    dir: PathBuf,
    bounds: Bounds,
    known: Mutex<HashMap<Key, Object>>,
}

impl Objects {
    /// Uploads in `dir`. Those that a process before this one left there go.
    pub(super) fn new(dir: PathBuf, bounds: Bounds) -> Arc<Self> {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| Key::parse(name).is_some())
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(dir = %dir.display(), %error, "an upload left behind could not be removed");
            }
        }
        Arc::new(Self { dir, bounds, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Object>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(key.as_str())
    }

    /// Makes room for one upload of `owner`'s.
    pub(super) fn expect(&self, owner: UserName, now: Timestamp) -> Result<Key, ObjectError> {
        self.expire(now);
        let mut known = self.known();
        if known.len() >= self.bounds.objects {
            return Err(ObjectError::Full(format!("{} uploads are on their way; try again later", known.len())));
        }
        let key = Key::generate();
        known.insert(key.clone(), Object { owner, expires_at: now + LIFE, state: State::Expected, bytes: 0 });
        Ok(key)
    }

    /// Begins to take the upload with this key: whoever has the key may, once.
    pub(super) fn begin(self: &Arc<Self>, key: &Key, now: Timestamp) -> Result<(Arrival, File), ObjectError> {
        {
            let mut known = self.known();
            let object = known.get_mut(key).filter(|object| object.expires_at > now).ok_or(ObjectError::NotThere)?;
            match object.state {
                State::Expected => object.state = State::Arriving,
                State::Arriving | State::Stored => return Err(ObjectError::Taken),
            }
        }
        let arrival = Arrival { objects: self.clone(), key: key.clone(), whole: false };
        private_file::create_dir(&self.dir)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(key))?;
        Ok((arrival, file))
    }

    /// A stored upload of `owner`'s, open for reading.
    pub(super) fn open(&self, key: &Key, owner: &UserName, now: Timestamp) -> Result<File, ObjectError> {
        let known = self.known();
        let there = known.get(key).is_some_and(|object| {
            object.owner == *owner && object.expires_at > now && matches!(object.state, State::Stored)
        });
        if !there {
            return Err(ObjectError::NotThere);
        }
        Ok(File::open(self.path(key))?)
    }

    /// Says that an upload has reached its instance.
    pub(super) fn used(&self, key: &Key, now: Timestamp) {
        if let Some(object) = self.known().get_mut(key) {
            object.expires_at = object.expires_at.min(now + AFTER_USE);
        }
    }

    /// Removes what nobody came for. What is arriving has a deadline of its own.
    pub(super) fn expire(&self, now: Timestamp) {
        self.known().retain(|key, object| {
            let over = object.expires_at <= now && !matches!(object.state, State::Arriving);
            if over && matches!(object.state, State::Stored) {
                self.unlink(key);
            }
            !over
        });
    }

    fn unlink(&self, key: &Key) {
        if let Err(error) = fs::remove_file(self.path(key))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "an upload could not be removed");
        }
    }
}

/// An upload that is coming in. Dropped before it is whole, it never was.
pub(super) struct Arrival {
    objects: Arc<Objects>,
    key: Key,
    whole: bool,
}

impl Arrival {
    /// Asks for room for `more` bytes, before they are written.
    pub(super) fn grow(&self, more: u64) -> Result<(), ObjectError> {
        let bounds = self.objects.bounds;
        let mut known = self.objects.known();
        let total: u64 = known.values().map(|object| object.bytes).sum();
        let object = known.get_mut(&self.key).ok_or(ObjectError::NotThere)?;
        if object.bytes + more > bounds.object_bytes {
            return Err(ObjectError::Full(format!("an upload may have {} bytes", bounds.object_bytes)));
        }
        if total + more > bounds.total_bytes {
            return Err(ObjectError::Full("there is no room for uploads now; try again later".to_owned()));
        }
        object.bytes += more;
        Ok(())
    }

    /// It is all there.
    pub(super) fn finish(mut self, now: Timestamp) {
        if let Some(object) = self.objects.known().get_mut(&self.key) {
            (object.state, object.expires_at) = (State::Stored, now + LIFE);
        }
        self.whole = true;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.whole {
            self.objects.known().remove(&self.key);
            self.objects.unlink(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn upload(objects: &Arc<Objects>, owner: &str, content: &[u8]) -> Key {
        let key = objects.expect(user(owner), NOW).unwrap();
        let (arrival, mut file) = objects.begin(&key, NOW).unwrap();
        arrival.grow(content.len() as u64).unwrap();
        file.write_all(content).unwrap();
        arrival.finish(NOW);
        key
    }

    #[test]
    fn an_upload_is_its_owners_alone_and_goes_in_time() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("uploads");
        private_file::create_dir(&dir).unwrap();
        let left_behind = dir.join(Key::generate().as_str());
        fs::write(&left_behind, "x").unwrap();
        let objects = Objects::new(dir.clone(), Bounds::default());
        assert!(!left_behind.exists(), "swept at start");

        let key = upload(&objects, "alice", b"content");
        let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(key.as_str()))), (0o700, 0o600));
        let mut text = String::new();
        objects.open(&key, &user("alice"), NOW).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert!(matches!(objects.open(&key, &user("bob"), NOW), Err(ObjectError::NotThere)));
        assert!(matches!(objects.begin(&key, NOW), Err(ObjectError::Taken)));
        assert!(matches!(objects.begin(&Key::generate(), NOW), Err(ObjectError::NotThere)));

        objects.used(&key, NOW);
        objects.expire(NOW + Duration::from_secs(59));
        assert!(objects.open(&key, &user("alice"), NOW + Duration::from_secs(59)).is_ok());
        assert!(objects.open(&key, &user("alice"), NOW + Duration::from_secs(60)).is_err());
        objects.expire(NOW + Duration::from_secs(60));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn what_is_cut_or_never_comes_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let objects = Objects::new(base.path().join("uploads"), Bounds { objects: 1, ..Bounds::default() });
        let key = objects.expect(user("alice"), NOW).unwrap();
        assert!(matches!(objects.expect(user("alice"), NOW), Err(ObjectError::Full(_))));
        let (arrival, file) = objects.begin(&key, NOW).unwrap();
        arrival.grow(1).unwrap();
        // It may take longer than room is kept for it.
        objects.expire(NOW + LIFE);
        assert!(objects.open(&key, &user("alice"), NOW).is_err(), "it is not whole");
        drop((arrival, file));
        assert!(matches!(objects.begin(&key, NOW), Err(ObjectError::NotThere)));
        assert_eq!(fs::read_dir(base.path().join("uploads")).unwrap().count(), 0);
        let key = objects.expect(user("alice"), NOW).unwrap();
        let next = objects.expect(user("alice"), NOW + LIFE).unwrap();
        assert!(key != next && objects.begin(&key, NOW + LIFE).is_err(), "room for it was given to another");
    }

    #[test]
    fn bounds_hold_for_one_and_for_all() {
        let base = tempfile::tempdir().unwrap();
        let bounds = Bounds { objects: 9, object_bytes: 10, total_bytes: 15 };
        let objects = Objects::new(base.path().join("uploads"), bounds);
        upload(&objects, "alice", b"0123456789");
        let key = objects.expect(user("bob"), NOW).unwrap();
        let (arrival, _file) = objects.begin(&key, NOW).unwrap();
        arrival.grow(5).unwrap();
        assert!(matches!(arrival.grow(1), Err(ObjectError::Full(text)) if text.contains("no room")));
        objects.expire(NOW + LIFE);
        arrival.grow(5).unwrap();
        assert!(matches!(arrival.grow(1), Err(ObjectError::Full(text)) if text.contains("may have 10 bytes")));
    }
}
