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
    with_verifier(Arc::new(FarmVerifier::of_ca(parse_ca(ca_pem)?)?))
}

/// A caller's side that trusts what this system trusts, if the certificate is for the dialled name.
pub fn client_config_system() -> Result<ClientConfig, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
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
    let shown = Arc::new(Shown { ca: Mutex::default(), hints: vec![role_authority()], provider: provider() });
    let config = with_verifier(shown.clone())?;
    let target = Target::Tls { address: address.to_owned(), tls: Arc::new(config) };
    let met = target.connect(&[b"h2"]).await.map(drop);
    let ca = shown.ca.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
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
    with_verifier(Arc::new(PinnedVerifier { hash, hints: vec![role_authority()], provider: provider() }))
}

fn with_verifier(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Accepts a certificate of the one CA for the dialled name or for the role.
#[derive(Debug)]
struct FarmVerifier {
    inner: Arc<WebPkiServerVerifier>,
    /// The CA's name, which the server is told.
    hints: Vec<DistinguishedName>,
}

impl FarmVerifier {
    fn of_ca(ca: CertificateDer<'_>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.into_owned())?;
        let hints = roots.subjects();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| damaged("the CA certificate", e))?;
        Ok(Self { inner, hints })
    }
}

impl ServerCertVerifier for FarmVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let role = ServerName::try_from(ROLE_NAME).map_err(|_| rustls::Error::General("bad role name".to_owned()))?;
        let verify = |name| self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        verify(&role).or_else(|_| verify(server_name))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.hints)
    }
}

/// Finds the CA of the known hash in the chain, then verifies as [`FarmVerifier`].
#[derive(Debug)]
struct PinnedVerifier {
    hash: [u8; 32],
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates.iter().find(|cert| Sha256::digest(cert)[..] == self.hash).ok_or_else(|| {
            rustls::Error::General("this is another farm: its CA is not the one whose hash is in the token".to_owned())
        })?;
        FarmVerifier::of_ca(ca.clone()).map_err(|e| rustls::Error::General(e.to_string()))?.verify_server_cert(
            end_entity,
            &[],
            server_name,
            ocsp_response,
            now,
        )
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

/// Notes the last certificate of the chain, and then goes no further: nothing is sent to who is not known.
#[derive(Debug)]
struct Shown {
    ca: Mutex<Option<CertificateDer<'static>>>,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Worth showing only if the server's certificate is really this CA's.
        if let Some(ca) = intermediates.last() {
            let verifier = FarmVerifier::of_ca(ca.clone()).map_err(|e| rustls::Error::General(e.to_string()))?;
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
            *self.ca.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(ca.clone().into_owned());
        }
        Err(rustls::Error::General("only to look at its certificate".to_owned()))
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
