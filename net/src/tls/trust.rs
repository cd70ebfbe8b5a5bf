//! The caller's side: which servers are believed.

use super::{ROLE_NAME, TlsError, damaged, parse_ca, provider, role_authority};
use crate::dial::Target;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};

/// A caller's side that trusts this CA and nothing else. ALPN is left to [`crate::dial`].
pub fn client_config(ca_pem: &str) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(parse_ca(ca_pem)?.into_owned())?;
    let hints = roots.subjects();
    with_verifier(Verifier::new(Belief::Ca(FarmCa::new(roots)?), hints))
}

/// A caller's side that trusts what this system trusts, if the certificate is for the dialled name.
pub fn client_config_system() -> Result<ClientConfig, TlsError> {
    client_config_system_and(None)
}

/// The same, and what this CA vouches for. Unlike [`client_config`] it knows no role: as other people's
/// clients, it believes no certificate that is not for the dialled name.
pub fn client_config_system_and(ca_pem: Option<&str>) -> Result<ClientConfig, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if let Some(pem) = ca_pem {
        roots.add(parse_ca(pem)?.into_owned())?;
    }
    if roots.is_empty() {
        let why = found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
        return Err(TlsError::SystemRoots(why));
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The CA (PEM) that a farm shows as its own to somebody who does not know it yet. Trusts nothing and
/// proves nothing: whoever uses it must compare its fingerprint ([`super::ca_hash`]) first.
pub async fn presented_ca(address: &str) -> Result<String, TlsError> {
    let shown = Arc::new(Mutex::new(None));
    let config = with_verifier(Verifier::new(Belief::Nothing { shown: shown.clone() }, vec![role_authority()]))?;
    let target = Target::Tls { address: address.to_owned(), tls: Arc::new(config) };
    let met = target.connect(&[b"h2"]).await.map(drop);
    let ca = shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    match (ca, met) {
        (Some(ca), _) => Ok(super::to_pem(&ca)),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => Err(TlsError::NoAuthority { address: address.to_owned() }),
    }
}

/// A caller's side that knows only the CA's hash: the CA must be in the chain the server sends.
pub fn client_config_pinned(ca_hash: &str) -> Result<ClientConfig, TlsError> {
    let mut hash = [0; 32];
    hex::decode_to_slice(ca_hash, &mut hash).map_err(|e| damaged("the CA hash", e))?;
    with_verifier(Verifier::new(Belief::Pin(hash), vec![role_authority()]))
}

fn with_verifier(verifier: Verifier) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// What a caller knows of the farm it dials.
#[derive(Debug)]
enum Belief {
    /// Its CA.
    Ca(FarmCa),
    /// Its CA's SHA-256: it must be in the chain that the server sends.
    Pin([u8; 32]),
    /// Nothing yet. The last certificate of the chain is noted, and nothing is sent to who is not known.
    Nothing { shown: Arc<Mutex<Option<CertificateDer<'static>>>> },
}

/// A CA whose certificates are good for the dialled name and for the farm's role.
#[derive(Debug)]
struct FarmCa(Arc<WebPkiServerVerifier>);

impl FarmCa {
    fn new(roots: RootCertStore) -> Result<Self, TlsError> {
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self(inner.map_err(|e| damaged("the CA certificate", e))?))
    }

    /// One that a server showed.
    fn shown(ca: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        Self::new(roots).map_err(|e| rustls::Error::General(e.to_string()))
    }

    fn verify(&self, chain: &Chain<'_>) -> Result<ServerCertVerified, rustls::Error> {
        let role = ServerName::try_from(ROLE_NAME).map_err(|_| rustls::Error::General("bad role name".to_owned()))?;
        let verify = |name| {
            self.0.verify_server_cert(chain.end_entity, chain.intermediates, name, chain.ocsp_response, chain.now)
        };
        verify(&role).or_else(|_| verify(chain.dialled))
    }
}

/// What a server shows, and what it was asked as.
struct Chain<'a> {
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    dialled: &'a ServerName<'a>,
    ocsp_response: &'a [u8],
    now: UnixTime,
}

/// A [`Belief`] as rustls asks for it.
#[derive(Debug)]
struct Verifier {
    belief: Belief,
    /// Names of authorities, which the server is told.
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(belief: Belief, hints: Vec<DistinguishedName>) -> Self {
        Self { belief, hints, provider: provider() }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = Chain { end_entity, intermediates, dialled, ocsp_response, now };
        match &self.belief {
            Belief::Ca(ca) => ca.verify(&chain),
            Belief::Pin(hash) => {
                let ca = intermediates.iter().find(|cert| Sha256::digest(cert)[..] == *hash).ok_or_else(|| {
                    let why = "this is another farm: its CA is not the one whose hash is in the token";
                    rustls::Error::General(why.to_owned())
                })?;
                FarmCa::shown(ca)?.verify(&Chain { intermediates: &[], ..chain })
            }
            Belief::Nothing { shown } => {
                // Worth showing only if the server's certificate is really this CA's.
                if let Some(ca) = intermediates.last() {
                    FarmCa::shown(ca)?.verify(&chain)?;
                    *shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(ca.clone().into_owned());
                }
                Err(rustls::Error::General("only to look at its certificate".to_owned()))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.hints)
    }
}
