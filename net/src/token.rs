//! Secrets by which callers prove who they are. Only hashes are ever stored.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq as _;

/// SHA-256 of a secret, as stored. A fast hash is right here: the secrets are 256 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl SecretHash {
    /// Hashes a secret's text.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// From the bytes of a stored hash; `None` if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `secret` is the one, in constant time.
    pub fn matches(&self, secret: &str) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }
}

fn random_hex() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// An API token: `mote_` and 64 hex digits. Shown once; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

/// Why a text is no token. The text is not repeated: it may be a secret with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// Not an API token.
    #[error("not an API token: expected mote_ and 64 hex digits")]
    Api,
    /// Not a join token.
    #[error("not a join token: expected id.secret.cahash as `mote admin join-token create` prints it")]
    Join,
}

impl ApiToken {
    /// A fresh token of 256 random bits.
    pub fn generate() -> Self {
        Self(format!("mote_{}", random_hex()))
    }

    /// The secret text.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What to store.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl FromStr for ApiToken {
    type Err = ParseTokenError;
    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let text = text.trim();
        match text.strip_prefix("mote_") {
            Some(digits) if is_hex(digits, 64) => Ok(Self(text.to_owned())),
            _ => Err(ParseTokenError::Api),
        }
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

/// What lets a machine join: an id to find the record by, a secret, and the hash of the farm's CA,
/// by which the machine knows the farm before it says the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// 16 hex digits; not secret.
    pub id: String,
    /// 64 hex digits.
    pub secret: String,
    /// [`crate::tls::ca_hash`] of the farm's CA.
    pub ca_hash: String,
}

impl JoinToken {
    /// A fresh one for the farm with this CA.
    pub fn generate(ca_hash: &str) -> Self {
        Self { id: hex::encode(rand::random::<[u8; 8]>()), secret: random_hex(), ca_hash: ca_hash.to_owned() }
    }

    /// What to store of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.secret)
    }

    /// The whole token, to be shown once.
    pub fn reveal(&self) -> String {
        format!("{}.{}.{}", self.id, self.secret, self.ca_hash)
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;
    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let mut parts = text.trim().split('.');
        let mut part =
            |digits| parts.next().filter(|p| is_hex(p, digits)).map(str::to_owned).ok_or(ParseTokenError::Join);
        let token = Self { id: part(16)?, secret: part(64)?, ca_hash: part(64)? };
        if parts.next().is_some() { Err(ParseTokenError::Join) } else { Ok(token) }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}..)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_text_and_hide_in_debug() {
        let token = ApiToken::generate();
        assert_eq!(token.secret().parse::<ApiToken>().unwrap(), token);
        assert!(token.hash().matches(token.secret()));
        assert!(!token.hash().matches("mote_"));
        assert!(!format!("{token:?}").contains(&token.secret()[5..]));
        let join = JoinToken::generate(&"a".repeat(64));
        assert_eq!(format!("{}\n", join.reveal()).parse::<JoinToken>().unwrap(), join);
        assert!(!format!("{join:?}").contains(&join.secret));
    }

    #[test]
    fn other_texts_are_refused_without_being_repeated() {
        for bad in ["", "mote_", "mote_xyz", &"a".repeat(69)] {
            assert_eq!(bad.parse::<ApiToken>(), Err(ParseTokenError::Api));
        }
        for bad in ["", "a.b.c", "a.b", &format!("{}.x", JoinToken::generate(&"a".repeat(64)).reveal())] {
            assert_eq!(bad.parse::<JoinToken>(), Err(ParseTokenError::Join));
        }
    }
}
