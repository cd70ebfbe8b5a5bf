//! The farm's ssh keys, stored: what signs users in, what clients know the gateway by.
//!
//! Two authorities. The host's is for ever, as the farm's TLS authority is: clients pin it. The users'
//! can be replaced; certificates by the one before stay good for as long as they would have been.

use super::certificate::{Grant, sign_host, sign_user};
use motefarm_core::Timestamp;
use motefarm_net::private_file;
use russh::keys::ssh_key::{Certificate, Fingerprint, HashAlg, LineEnding, PublicKey};
use russh::keys::{Algorithm, PrivateKey};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HOST_AUTHORITY: &str = "host_ca";
const HOST_KEY: &str = "host_key";
const USER_AUTHORITY: &str = "user_ca";
/// Public keys of former authorities for users, one file each, named after the time until which
/// certificates of theirs may be good.
const FORMER: &str = "former";

/// What went wrong with the farm's ssh keys.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("can not use {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key is damaged; restoring the folder from a backup is the way back.
    #[error("the ssh key in {path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key or certificate could not be made.
    #[error("can not make an ssh key or certificate: {0}")]
    Make(#[from] russh::keys::ssh_key::Error),
}

/// See the module.
pub struct SshAuthority {
    users: PrivateKey,
    /// Fingerprints of all that may have signed a certificate that is good now, and until when.
    trusted: Vec<(Fingerprint, Timestamp)>,
    host_authority: PublicKey,
    host_key: PrivateKey,
    host_certificate: Certificate,
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError + '_ {
    move |source| AuthorityError::File { path: path.to_owned(), source }
}

fn load_or_make(dir: &Path, name: &str) -> Result<PrivateKey, AuthorityError> {
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => PrivateKey::from_openssh(&text)
            .map_err(|e| AuthorityError::Damaged { path: path.clone(), problem: e.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
        Err(error) => Err(file_error(&path)(error)),
    }
}

fn make(path: &Path) -> Result<PrivateKey, AuthorityError> {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
    let text = key.to_openssh(LineEnding::LF)?;
    private_file::write(path, text.as_bytes()).map_err(file_error(path))?;
    Ok(key)
}

fn fingerprint(key: &PublicKey) -> Fingerprint {
    key.fingerprint(HashAlg::Sha256)
}

impl SshAuthority {
    /// Loads the keys from `dir`, or makes those that are not there (0600), and certifies the host for
    /// `names`. Former authorities that nobody can come by any more are removed.
    pub fn load_or_create(dir: &Path, names: &[String], now: Timestamp) -> Result<Self, AuthorityError> {
        private_file::create_dir(dir).map_err(file_error(dir))?;
        let host_authority = load_or_make(dir, HOST_AUTHORITY)?;
        let host_key = load_or_make(dir, HOST_KEY)?;
        let users = load_or_make(dir, USER_AUTHORITY)?;
        let host_certificate = sign_host(&host_authority, host_key.public_key(), names, now)?;
        let path = dir.join(format!("{HOST_KEY}-cert.pub"));
        private_file::write(&path, host_certificate.to_openssh()?.as_bytes()).map_err(file_error(&path))?;
        let mut trusted = former(&dir.join(FORMER), now)?;
        trusted.push((fingerprint(users.public_key()), Timestamp::MAX));
        Ok(Self { users, trusted, host_authority: host_authority.public_key().clone(), host_key, host_certificate })
    }

    /// A line of authorized keys that lets the holder of `key` in as the grant says.
    pub fn sign(
        &self,
        key: &PublicKey,
        grant: &Grant,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, AuthorityError> {
        Ok(sign_user(&self.users, key, grant, now, lifetime)?.to_openssh()?)
    }

    /// What lets somebody in at `now`.
    pub(super) fn trusted(&self, now: Timestamp) -> Vec<Fingerprint> {
        self.trusted.iter().filter(|(_, until)| *until > now).map(|(fingerprint, _)| *fingerprint).collect()
    }

    /// By what clients know the gateway: `ssh-ed25519 AAAA...`.
    pub fn host_authority(&self) -> Result<String, AuthorityError> {
        let bare = PublicKey::new(self.host_authority.key_data().clone(), "");
        Ok(bare.to_openssh()?)
    }

    pub(super) fn host(&self) -> (PrivateKey, Certificate) {
        (self.host_key.clone(), self.host_certificate.clone())
    }
}

/// Former authorities that may have signed something that is good at `now`.
fn former(dir: &Path, now: Timestamp) -> Result<Vec<(Fingerprint, Timestamp)>, AuthorityError> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(file_error(dir))?,
    };
    let mut found = Vec::new();
    for path in listing.flatten().map(|entry| entry.path()) {
        let until = path.file_stem().and_then(|name| name.to_str()?.parse().ok()).map(Timestamp::from_millis);
        match until {
            Some(until) if until > now => {
                let text = fs::read_to_string(&path).map_err(file_error(&path))?;
                let key = PublicKey::from_openssh(&text)
                    .map_err(|e| AuthorityError::Damaged { path: path.clone(), problem: e.to_string() })?;
                found.push((fingerprint(&key), until));
            }
            Some(_) => fs::remove_file(&path).map_err(file_error(&path))?,
            // Somebody's own file.
            None => {}
        }
    }
    Ok(found)
}

/// Replaces the authority for users. Certificates by the old one stay good for `lifetime` at most. A
/// coordinator that runs goes on with the old one until it is restarted.
pub fn rotate(dir: &Path, now: Timestamp, lifetime: Duration) -> Result<(), AuthorityError> {
    private_file::create_dir(dir).map_err(file_error(dir))?;
    let (path, former) = (dir.join(USER_AUTHORITY), dir.join(FORMER));
    let old = load_or_make(dir, USER_AUTHORITY)?;
    private_file::create_dir(&former).map_err(file_error(&former))?;
    let until = (now + lifetime).as_millis();
    let kept = former.join(format!("{until}.pub"));
    // The old one is kept before the new one replaces it: nobody is locked out in between.
    private_file::write(&kept, old.public_key().to_openssh()?.as_bytes()).map_err(file_error(&kept))?;
    make(&path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const LIFETIME: Duration = Duration::from_secs(300);

    #[test]
    fn keys_are_kept_private_and_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, now) = (dir.path().join("ssh"), Timestamp::from_millis(1_700_000_000_000));
        let first = SshAuthority::load_or_create(&dir, &[], now).unwrap();
        let again = SshAuthority::load_or_create(&dir, &["farm".to_owned()], now).unwrap();
        assert_eq!(first.host_authority().unwrap(), again.host_authority().unwrap());
        assert_eq!(first.host_key.public_key(), again.host_key.public_key());
        assert_eq!(first.trusted(now), again.trusted(now));
        for name in [HOST_AUTHORITY, HOST_KEY, USER_AUTHORITY] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        fs::write(dir.join(USER_AUTHORITY), "rubbish").unwrap();
        assert!(matches!(SshAuthority::load_or_create(&dir, &[], now), Err(AuthorityError::Damaged { .. })));
    }

    #[test]
    fn a_former_authority_is_trusted_for_a_lifetime_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let before = SshAuthority::load_or_create(dir.path(), &[], now).unwrap().trusted(now);
        rotate(dir.path(), now, LIFETIME).unwrap();
        rotate(dir.path(), now + Duration::from_secs(1), LIFETIME).unwrap();
        let load = |now| SshAuthority::load_or_create(dir.path(), &[], now).unwrap();
        let after = load(now + Duration::from_secs(2));
        assert_eq!(after.trusted(now).len(), 3);
        assert!(after.trusted(now + Duration::from_secs(299)).contains(&before[0]));
        let later = now + Duration::from_secs(300);
        assert!(!after.trusted(later).contains(&before[0]), "also without a restart");
        assert_eq!(load(later).trusted(later).len(), 2);
        assert_eq!(fs::read_dir(dir.path().join(FORMER)).unwrap().count(), 1);
    }
}
