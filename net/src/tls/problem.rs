//! Why a server's certificate was not believed, in words for people.

use rustls::CertificateError;
use std::io;

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerProblem {
    /// It is for other names than the one dialled; those, if they are told.
    OtherName(Vec<String>),
    /// Its time is over.
    Expired,
    /// Its time has not come; perhaps a clock is wrong.
    NotYet,
    /// Nobody who is trusted vouches for it.
    UnknownIssuer,
    /// Something else.
    Other(String),
}

impl PeerProblem {
    /// Finds it in the failure of a connection; `None` if that was something else.
    pub fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let rustls::Error::InvalidCertificate(cause) = error else {
            return match error {
                rustls::Error::General(text) => Some(Self::Other(text.clone())),
                _ => None,
            };
        };
        Some(match cause {
            CertificateError::NotValidForName => Self::OtherName(Vec::new()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::OtherName(presented.iter().map(|name| plain(name)).collect())
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYet,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            other => Self::Other(other.to_string()),
        })
    }
}

/// A name as people write it: rustls has `DnsName("farm.example")` and `IpAddress(10.0.0.1)`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_found_in_what_a_connection_failed_with() {
        let of = |cause| {
            PeerProblem::of(&io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(cause)))
        };
        assert_eq!(of(CertificateError::Expired), Some(PeerProblem::Expired));
        assert_eq!(of(CertificateError::UnknownIssuer), Some(PeerProblem::UnknownIssuer));
        assert_eq!(of(CertificateError::NotValidForName), Some(PeerProblem::OtherName(Vec::new())));
        assert_eq!(PeerProblem::of(&io::ErrorKind::ConnectionRefused.into()), None);
        assert_eq!(
            (plain("DnsName(\"a.b\")"), plain("IpAddress(::1)"), plain("x")),
            ("a.b".into(), "::1".into(), "x".into())
        );
    }
}
