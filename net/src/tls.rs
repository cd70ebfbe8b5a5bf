//! The farm's private TLS.
//!
//! A farm has a certificate authority of its own, made at first start; whoever has its certificate
//! (client profiles) or its hash (join tokens) knows the farm, by whatever address it is reached.
//! So a server certificate names its *role* besides the machine's names, and a caller that trusts
//! this CA and no other accepts either. Server keys live in memory only: a fresh one each start.
//!
//! An operator may give a certificate of another CA besides (`faces`), for programs that know
//! nothing of farms. Who knows the farm by its own CA says so in the handshake and sees its own
//! certificate as before. `trust` is the caller's side.

mod faces;
mod problem;
mod trust;

pub use faces::{OperatorCertificate, show_certificate};
pub use problem::PeerProblem;
pub use rustls::ClientConfig;
pub use trust::{client_config, client_config_pinned, client_config_system, client_config_system_and, presented_ca};

use crate::private_file;
use base64::Engine as _;
use faces::Faces;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

/// The name in every server certificate that stands for "the server this CA was made for".
pub const ROLE_NAME: &str = "server.motefarm.internal";

/// What went wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("can not use {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key is damaged; restoring the folder from a backup is the way back.
    #[error("the certificate or key in {place} is damaged: {problem}")]
    Damaged {
        /// Where it is.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Making a certificate failed.
    #[error("can not make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The system's root certificates could not be read.
    #[error("can not read this system's root certificates: {0}")]
    SystemRoots(String),
    /// The peer shows no CA that could be pinned.
    #[error("{address} shows no certificate authority of its own that could be trusted by its fingerprint")]
    NoAuthority {
        /// Where.
        address: String,
    },
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] crate::dial::DialError),
    /// rustls refused the pieces.
    #[error("can not set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// How a caller asks for the certificate of the farm's own CA when it does not know its name: as a
/// distinguished name of a `certificate_authorities` extension (RFC 8446, section 4.2.4).
fn role_authority() -> DistinguishedName {
    // CN=ROLE_NAME in DER (X.690): SET { SEQUENCE { OID 2.5.4.3, UTF8String } }; the name is shorter than 100 bytes.
    let name = ROLE_NAME.as_bytes();
    let short = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    let mut der = vec![0x31, short(name.len() + 9), 0x30, short(name.len() + 7), 0x06, 3, 0x55, 0x04, 0x03, 0x0c];
    der.push(short(name.len()));
    der.extend_from_slice(name);
    DistinguishedName::in_sequence(&der)
}

/// The CA's own name, for the same.
fn authority_name(ca: CertificateDer<'static>) -> Result<DistinguishedName, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca)?;
    roots.subjects().pop().ok_or_else(|| damaged("the CA certificate", "it has no name"))
}

fn damaged(place: impl Into<String>, problem: impl ToString) -> TlsError {
    TlsError::Damaged { place: place.into(), problem: problem.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A farm's certificate authority.
pub struct Authority {
    ca_pem: String,
    key_pem: String,
}

impl Authority {
    /// Loads `ca.pem` and `ca.key` from `dir`, or makes them (0600) if there are none. Half a pair
    /// is an error: making a new one would lock every client out.
    pub fn load_or_create(dir: &Path) -> Result<Self, TlsError> {
        let (pem_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        match (pem_path.exists(), key_path.exists()) {
            (true, true) => {
                let ca_pem = fs::read_to_string(&pem_path).map_err(file_error(&pem_path))?;
                let key_pem = fs::read_to_string(&key_path).map_err(file_error(&key_path))?;
                let authority = Self { ca_pem, key_pem };
                authority.issuer().map_err(|e| damaged(dir.display().to_string(), e))?;
                Ok(authority)
            }
            // The key alone is a first start cut short: nobody can know a CA whose certificate
            // was never written, so a new pair harms no one.
            (false, _) => {
                private_file::create_dir(dir).map_err(file_error(dir))?;
                let authority = Self::create()?;
                private_file::write(&key_path, authority.key_pem.as_bytes()).map_err(file_error(&key_path))?;
                private_file::write(&pem_path, authority.ca_pem.as_bytes()).map_err(file_error(&pem_path))?;
                Ok(authority)
            }
            (true, false) => Err(damaged(dir.display().to_string(), "ca.pem is there but ca.key is missing")),
        }
    }

    fn create() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // A random part tells farms apart where people see the name.
        params.distinguished_name.push(DnType::CommonName, format!("Motefarm CA {:08x}", rand::random::<u32>()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { ca_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_pem(&self.ca_pem, KeyPair::from_pem(&self.key_pem)?)
    }

    /// The CA's certificate, for client profiles.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The CA's hash, for join tokens and people.
    pub fn ca_hash(&self) -> Result<String, TlsError> {
        ca_hash(&self.ca_pem)
    }

    /// A server's side: a fresh certificate for `names` (DNS names and addresses), ALPN `h2` and
    /// `http/1.1`. The CA goes along in the chain, for those who know only its hash.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
        self.server_config_beside(names, None)
    }

    /// The same beside an operator's certificate: that is for whoever does not ask for the farm's own CA.
    pub fn server_config_beside(
        &self,
        names: &[String],
        operators: Option<Arc<OperatorCertificate>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let key = KeyPair::generate()?;
        let mut all: Vec<String> = [ROLE_NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name.push(DnType::CommonName, "Motefarm server");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        let ca = parse_ca(&self.ca_pem)?;
        let chain = vec![certificate.der().clone(), ca.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| damaged("memory", e))?;
        let own = CertifiedKey::from_der(chain, key, &provider())?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Faces::new(own, ca, operators)?));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn parse_ca(pem: &str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| damaged("the CA certificate", e))
}

/// A certificate as PEM text (RFC 7468).
fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// SHA-256 of a CA certificate's DER, as 64 hex digits.
pub fn ca_hash(ca_pem: &str) -> Result<String, TlsError> {
    Ok(hex::encode(Sha256::digest(parse_ca(ca_pem)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn handshake(server: Arc<ServerConfig>, client: ClientConfig, name: &str) -> io::Result<u8> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut tls = tokio_rustls::TlsAcceptor::from(server).accept(far).await?;
            tls.write_all(b"!").await?;
            tls.shutdown().await
        };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let call = async {
            let mut tls = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, near).await?;
            tls.read_u8().await
        };
        tokio::join!(serve, call).1
    }

    #[tokio::test]
    async fn whoever_knows_the_ca_or_its_hash_knows_the_farm_by_any_address() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let again = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(authority.ca_pem(), again.ca_pem());
        let server = again.server_config(&["farm.example".to_owned()]).unwrap();
        for name in ["localhost", "10.1.2.3", "farm.example", "elsewhere.example"] {
            let by_ca = client_config(authority.ca_pem()).unwrap();
            assert_eq!(handshake(server.clone(), by_ca, name).await.unwrap(), b'!', "{name}");
            let by_hash = client_config_pinned(&authority.ca_hash().unwrap()).unwrap();
            assert_eq!(handshake(server.clone(), by_hash, name).await.unwrap(), b'!', "{name}");
        }
    }

    #[tokio::test]
    async fn a_caller_shows_the_certificate_it_was_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&dir.path().join("ca")).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer().unwrap()).unwrap();
        let paths = [dir.path().join("cert.pem"), dir.path().join("key.pem")];
        fs::write(&paths[0], to_pem(certificate.der())).unwrap();
        private_file::write(&paths[1], key.serialize_pem().as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(parse_ca(authority.ca_pem()).unwrap()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        let server = Arc::new(server.unwrap());
        let without = client_config(authority.ca_pem()).unwrap();
        assert!(handshake(server.clone(), without.clone(), "localhost").await.is_err());
        let mut with = without;
        show_certificate(&mut with, &paths[0], &paths[1]).unwrap();
        assert_eq!(handshake(server, with, "localhost").await.unwrap(), b'!');
    }

    #[tokio::test]
    async fn another_farm_is_refused() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = Authority::load_or_create(ours.path()).unwrap();
        let theirs = Authority::load_or_create(theirs.path()).unwrap().server_config(&[]).unwrap();
        assert!(handshake(theirs.clone(), client_config(ours.ca_pem()).unwrap(), "localhost").await.is_err());
        let pinned = client_config_pinned(&ours.ca_hash().unwrap()).unwrap();
        let error = handshake(theirs, pinned, "localhost").await.unwrap_err();
        assert!(error.to_string().contains("another farm"), "{error}");
    }

    #[test]
    fn half_a_pair_is_an_error_not_a_new_farm() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::load_or_create(dir.path()), Err(TlsError::Damaged { .. })));
    }
}
