//! What ssh needs to reach instances of one farm: a key, certificates, how to know the gateway. Files in
//! the config folder; the farm is asked only for what is missing or stale.

mod config_file;

use crate::connection::Farm;
use crate::dirs::Dirs;
use crate::error::Error;
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use motefarm_net::{dial, private_file};
use motefarm_proto::mote;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) use config_file::{Block, include_line, render, with_include};

/// A certificate that ends sooner is renewed: it must last until the gateway has looked at it.
const FRESH: Duration = Duration::from_secs(60);

/// Where the gateway is, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gateway {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// A name in its certificate, whatever its address is.
    pub(crate) alias: String,
}

/// Files of one farm.
pub(crate) struct Keyring {
    /// Holds the key, and a folder a farm.
    root: PathBuf,
    farm: PathBuf,
}

impl Keyring {
    /// Of the farm at `address`. Nothing is made until it is needed.
    pub(crate) fn of(dirs: &Dirs, address: &str) -> Self {
        let name: String = address.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let root = dirs.config.join("ssh");
        Self { farm: root.join("farms").join(name), root }
    }

    /// The user's private key, unless another is named.
    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("id_ed25519")
    }

    /// By what ssh knows the gateway.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.farm.join("known_hosts")
    }

    /// The block a live instance each.
    pub(crate) fn config(&self) -> PathBuf {
        self.farm.join("config")
    }

    /// Every farm's blocks, as ssh's Include takes it.
    pub(crate) fn all_configs(&self) -> PathBuf {
        self.root.join("farms/*/config")
    }

    /// The certificate for an instance, of the user's own key or of another.
    pub(crate) fn certificate(&self, instance: &str, key: Option<&Path>) -> PathBuf {
        let other = key.map(|key| {
            use sha2::{Digest as _, Sha256};
            format!(".{}", &hex::encode(Sha256::digest(key.as_os_str().as_encoded_bytes()))[..12])
        });
        let name: String = instance.chars().filter(|c| c.is_alphanumeric() || "-_.".contains(*c)).collect();
        self.farm.join(format!("{name}{}-cert.pub", other.unwrap_or_default()))
    }

    fn good_until(certificate: &Path) -> PathBuf {
        certificate.with_extension("until")
    }

    /// Where the gateway is, if that was told before.
    pub(crate) fn gateway(&self) -> Option<Gateway> {
        toml::from_str(&fs::read_to_string(self.farm.join("gateway.toml")).ok()?).ok()
    }

    /// Whether there is a certificate that is good for a while.
    pub(crate) fn is_fresh(&self, certificate: &Path, now: Timestamp) -> bool {
        let until = fs::read_to_string(Self::good_until(certificate)).ok();
        let until = until.and_then(|text| text.trim().parse().ok()).map(Timestamp::from_millis);
        certificate.is_file() && self.gateway().is_some() && until.is_some_and(|until| now + FRESH < until)
    }

    /// Forgets the certificates for an instance: one of its name that comes later is another.
    pub(crate) fn forget(&self, instance: &str) {
        let certificate = self.certificate(instance, None);
        let _ = fs::remove_file(Self::good_until(&certificate));
        let _ = fs::remove_file(certificate);
    }

    /// Makes the user's key if there is none.
    pub(crate) fn ensure_key(&self) -> Result<(), Error> {
        let key = self.key();
        if key.is_file() {
            return Ok(());
        }
        make_dir(&self.root)?;
        // Beside its place first: a call cut short leaves no half a key.
        let fresh = self.root.join(format!("id_ed25519.{:08x}", rand::random::<u32>()));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "mote", "-f"])
            .arg(&fresh)
            .stdin(Stdio::null())
            .output()
            .map_err(no_openssh("make a key by ssh-keygen"))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Err(Error::local("make a key by ssh-keygen", io::Error::other(said)));
        }
        let public = |path: &Path| {
            path.with_file_name(format!("{}.pub", path.file_name().unwrap_or_default().to_string_lossy()))
        };
        fs::rename(public(&fresh), public(&key)).map_err(|e| Error::file("keep", &public(&key), e))?;
        fs::rename(&fresh, &key).map_err(|e| Error::file("keep", &key, e))
    }

    /// Makes sure that there is a good certificate for an instance; `force` gets a new one in any case.
    pub(crate) async fn ensure_certificate(
        &self,
        farm: impl AsyncFnOnce() -> Result<Farm, Error>,
        instance: &str,
        key: Option<&Path>,
        force: bool,
    ) -> Result<PathBuf, Error> {
        let certificate = self.certificate(instance, key);
        if !force && self.is_fresh(&certificate, SystemClock.now()) {
            return Ok(certificate);
        }
        let public = match key {
            Some(key) => key.to_owned(),
            None => {
                self.ensure_key()?;
                self.root.join("id_ed25519.pub")
            }
        };
        let public_key = fs::read_to_string(&public).map_err(|e| Error::file("read", &public, e))?;
        let farm = farm().await?;
        let request = mote::SignSshKeyRequest { instance: instance.to_owned(), public_key };
        let doing = format!("have a key signed for {instance}");
        let signed = farm.call(&doing, async |mut c| c.sign_ssh_key(request.clone()).await).await?;
        self.keep(&farm, &certificate, signed)?;
        Ok(certificate)
    }

    fn keep(&self, farm: &Farm, certificate: &Path, signed: mote::SignSshKeyResponse) -> Result<(), Error> {
        let doing = "have a key signed";
        let port = u16::try_from(signed.gateway_port).map_err(|e| Error::protocol(doing, e))?;
        let host = match signed.gateway_host.as_str() {
            "" => dial::split_address(farm.address()).map_err(|e| Error::protocol(doing, e))?.0.to_owned(),
            host => host.to_owned(),
        };
        if signed.host_authority.contains(['\n', '\r']) || signed.certificate.contains(['\n', '\r']) {
            return Err(Error::protocol(doing, "a key of several lines"));
        }
        make_dir(&self.farm)?;
        let gateway = Gateway { host, port, alias: signed.host_alias };
        let text = toml::to_string(&gateway).map_err(|e| Error::protocol(doing, e))?;
        write(&self.farm.join("gateway.toml"), &text)?;
        write(&self.known_hosts(), &format!("@cert-authority * {}\n", signed.host_authority))?;
        let until = Self::good_until(certificate);
        // Never an old certificate with a new end.
        let _ = fs::remove_file(&until);
        write(certificate, &format!("{}\n", signed.certificate))?;
        write(&until, &signed.valid_until_ms.to_string())
    }

    /// Replaces the blocks of this farm.
    pub(crate) fn write_config(&self, text: &str) -> Result<(), Error> {
        make_dir(&self.farm)?;
        write(&self.config(), text)
    }
}

/// For errors of starting a program of OpenSSH.
pub(crate) fn no_openssh(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |cause| {
        let next = (cause.kind() == io::ErrorKind::NotFound)
            .then(|| "install OpenSSH's client (on Debian: openssh-client)".to_owned());
        Error::Local { doing: doing.to_owned(), cause, next }
    }
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    private_file::create_dir(dir).map_err(|e| Error::file("make", dir, e))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    private_file::write(path, text.as_bytes()).map_err(|e| Error::file("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_fresh_while_it_lasts_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs { config: dir.path().to_owned(), cache: dir.path().to_owned() };
        let keyring = Keyring::of(&dirs, "[::1]:8119");
        let certificate = keyring.certificate("alice-x-0", None);
        assert!(certificate.starts_with(dir.path().join("ssh/farms/___1__8119")));
        assert_ne!(certificate, keyring.certificate("alice-x-0", Some(Path::new("/k.pub"))));
        assert_eq!(keyring.certificate("../a/b", None).parent(), certificate.parent(), "a name is no path");
        let now = Timestamp::from_millis(1_000_000);
        assert!(!keyring.is_fresh(&certificate, now));
        make_dir(certificate.parent().unwrap()).unwrap();
        write(&keyring.farm.join("gateway.toml"), "host = 'h'\nport = 1\nalias = 'a'\n").unwrap();
        write(&certificate, "c").unwrap();
        write(&Keyring::good_until(&certificate), "1060001").unwrap();
        assert!(keyring.is_fresh(&certificate, now));
        assert!(!keyring.is_fresh(&certificate, now + Duration::from_millis(1)));
        keyring.forget("alice-x-0");
        assert!(!keyring.is_fresh(&certificate, now) && !certificate.exists());
    }
}
