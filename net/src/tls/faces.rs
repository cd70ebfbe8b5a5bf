//! Which certificate a server shows to whom.
//!
//! With nothing configured, the farm's own. With an operator's certificate, that one, but to callers
//! who name the farm's own CA among those they trust: profiles and join tokens keep working.

use super::{TlsError, authority_name, damaged, provider, role_authority};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DistinguishedName};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

/// A certificate with its key that an operator keeps in two files and replaces there.
#[derive(Debug)]
pub struct OperatorCertificate {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    /// How the files were when they were last read, well or not.
    read: Mutex<Stamp>,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

fn stamp(paths: [&Path; 2]) -> Stamp {
    paths.map(|path| fs::metadata(path).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len()))))
}

fn read(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let bytes = |path: &Path| fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source });
    let place = |path: &Path| path.display().to_string();
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&bytes(cert)?).collect::<Result<_, _>>().map_err(|e| damaged(place(cert), e))?;
    if chain.is_empty() {
        return Err(damaged(place(cert), "there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(|e| damaged(place(key), e))?;
    let certified = CertifiedKey::from_der(chain, private, &provider())
        .map_err(|e| damaged(format!("{} and {}", place(cert), place(key)), e))?;
    Ok(Arc::new(certified))
}

/// Has a caller show a certificate: the chain (PEM, its own first) with its key (PEM).
pub fn show_certificate(config: &mut ClientConfig, cert: &Path, key: &Path) -> Result<(), TlsError> {
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(read(cert, key)?));
    Ok(())
}

impl OperatorCertificate {
    /// Reads the chain (PEM, the server's own first) and its key (PEM).
    pub fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let before = stamp([cert, key]);
        let current = RwLock::new(read(cert, key)?);
        Ok(Arc::new(Self { cert: cert.to_owned(), key: key.to_owned(), current, read: Mutex::new(before) }))
    }

    /// Reads the files again if they have changed, or in any case with `force`; whether there was
    /// something new. On an error the old certificate stays, and the same files are not tried again.
    pub fn reload(&self, force: bool) -> Result<bool, TlsError> {
        let now = stamp([&self.cert, &self.key]);
        let before = {
            let mut read = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            std::mem::replace(&mut *read, now)
        };
        if now == before && !force {
            return Ok(false);
        }
        let fresh = read(&self.cert, &self.key)?;
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = fresh;
        Ok(true)
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Faces {
    own: Arc<CertifiedKey>,
    own_names: [DistinguishedName; 2],
    operators: Option<Arc<OperatorCertificate>>,
}

impl Faces {
    pub(super) fn new(
        own: CertifiedKey,
        ca: CertificateDer<'static>,
        operators: Option<Arc<OperatorCertificate>>,
    ) -> Result<Self, TlsError> {
        Ok(Self { own: Arc::new(own), own_names: [authority_name(ca)?, role_authority()], operators })
    }
}

impl ResolvesServerCert for Faces {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.certificate_authorities().unwrap_or_default();
        let for_own = asked.iter().any(|name| self.own_names.iter().any(|own| own.as_ref() == name.as_ref()));
        match &self.operators {
            Some(operators) if !for_own => Some(operators.current()),
            _ => Some(self.own.clone()),
        }
    }
}
