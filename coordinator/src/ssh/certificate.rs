//! What a certificate says, and whether it lets its holder in. Pure.

use motefarm_core::name::UserName;
use motefarm_core::{InstanceId, Timestamp};
use motefarm_net::token::SecretHash;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{Certificate, Error, Fingerprint, PublicKey};
use std::time::Duration;

/// For clocks that are not quite right.
const SKEW: Duration = Duration::from_secs(60);
/// A host certificate is made anew at each start; this only has to be longer than anybody runs.
const HOST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// What OpenSSH's clients call the host, whatever its address; see `mote ssh`.
pub const HOST_ALIAS: &str = "motefarm";
/// What a certificate is called, and what it holds besides.
const KEY_ID: &str = "motefarm";
/// Rights OpenSSH's own servers look for; ours gives what it gives.
const EXTENSIONS: [&str; 2] = ["permit-port-forwarding", "permit-pty"];

/// Who may enter what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The one instance.
    pub instance: InstanceId,
    /// Who asked for it: its owner, somebody it is shared with, or an admin.
    pub user: UserName,
    /// The token they asked with, by its hash: when it is revoked, so is this. `None`: the farm's own
    /// user on loopback, who has none.
    pub token: Option<SecretHash>,
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis() / 1000).unwrap_or(0)
}

fn instance_principal(id: InstanceId) -> String {
    format!("instance:{id}")
}

fn user_principal(user: &UserName) -> String {
    format!("user:{user}")
}

/// A certificate for a user's key.
pub(super) fn sign_user(
    authority: &PrivateKey,
    key: &PublicKey,
    grant: &Grant,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Certificate, Error> {
    let mut rng = rand::rng();
    let from = seconds(now).saturating_sub(SKEW.as_secs());
    let to = seconds(now + lifetime);
    let mut builder = Builder::new_with_random_nonce(&mut rng, key, from, to)?;
    builder.serial(rand::random())?.cert_type(CertType::User)?;
    let token = grant.token.as_ref().map_or_else(|| "none".to_owned(), |hash| hex::encode(hash.as_bytes()));
    builder.key_id(format!("{KEY_ID} {} {} {token}", grant.instance, grant.user))?;
    builder.valid_principal(instance_principal(grant.instance))?;
    builder.valid_principal(user_principal(&grant.user))?;
    for extension in EXTENSIONS {
        builder.extension(extension, "")?;
    }
    builder.comment(format!("motefarm {}", grant.user))?;
    builder.sign(authority)
}

/// A certificate for the gateway's key.
pub(super) fn sign_host(
    authority: &PrivateKey,
    key: &PublicKey,
    names: &[String],
    now: Timestamp,
) -> Result<Certificate, Error> {
    let mut rng = rand::rng();
    let from = seconds(now).saturating_sub(SKEW.as_secs());
    let mut builder = Builder::new_with_random_nonce(&mut rng, key, from, seconds(now + HOST_LIFETIME))?;
    builder.serial(rand::random())?.cert_type(CertType::Host)?.key_id("motefarm gateway")?;
    builder.valid_principal(HOST_ALIAS)?;
    for name in names.iter().filter(|name| *name != HOST_ALIAS) {
        builder.valid_principal(name.as_str())?;
    }
    builder.sign(authority)
}

/// What a certificate grants at `now`, if one of the trusted signed it and it is what it must be. That
/// its holder has the key was checked before.
pub(super) fn check(certificate: &Certificate, trusted: &[Fingerprint], now: Timestamp) -> Result<Grant, &'static str> {
    if !certificate.cert_type().is_user() {
        return Err("it is not a user's certificate");
    }
    if certificate.critical_options().iter().next().is_some() {
        return Err("it has critical options, of which none is known here");
    }
    if certificate.validate_at(seconds(now), trusted).is_err() {
        return Err("it is not of this farm, or not good now");
    }
    let grant = read(certificate.key_id()).ok_or("it does not say what it is for")?;
    let principals = certificate.valid_principals();
    // None at all would mean anybody.
    let named = |name: String| principals.contains(&name);
    if !named(instance_principal(grant.instance)) || !named(user_principal(&grant.user)) {
        return Err("its principals are not what it is for");
    }
    Ok(grant)
}

fn read(key_id: &str) -> Option<Grant> {
    let words: Vec<&str> = key_id.split(' ').collect();
    let [KEY_ID, instance, user, token] = words[..] else { return None };
    let token = match token {
        "none" => None,
        hash => Some(SecretHash::from_bytes(&hex::decode(hash).ok()?)?),
    };
    Some(Grant { instance: instance.parse().ok()?, user: user.parse().ok()?, token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::Algorithm;
    use russh::keys::ssh_key::HashAlg;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const LIFETIME: Duration = Duration::from_secs(300);

    fn key() -> PrivateKey {
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
    }

    fn grant() -> Grant {
        let instance = uuid::Uuid::new_v4().to_string().parse().unwrap();
        Grant { instance, user: "alice".parse().unwrap(), token: SecretHash::from_bytes(&[7; 32]) }
    }

    fn trust(authority: &PrivateKey) -> Vec<Fingerprint> {
        vec![authority.public_key().fingerprint(HashAlg::Sha256)]
    }

    #[test]
    fn a_certificate_grants_what_it_was_made_for_while_it_is_good() {
        let (authority, user) = (key(), key());
        for token in [SecretHash::from_bytes(&[7; 32]), None] {
            let grant = Grant { token, ..grant() };
            let made = sign_user(&authority, user.public_key(), &grant, NOW, LIFETIME).unwrap();
            assert_eq!(check(&made, &trust(&authority), NOW), Ok(grant.clone()));
            assert_eq!(check(&made, &trust(&authority), NOW + Duration::from_secs(299)), Ok(grant));
            assert!(check(&made, &trust(&authority), NOW + LIFETIME).is_err(), "too late");
            let before = Timestamp::from_millis(NOW.as_millis() - 61_000);
            assert!(check(&made, &trust(&authority), before).is_err(), "too early");
            assert!(check(&made, &trust(&key()), NOW).is_err(), "another farm's");
            assert!(check(&made, &[], NOW).is_err(), "nobody is trusted");
        }
    }

    #[test]
    fn what_is_almost_a_certificate_lets_nobody_in() {
        let (authority, user, grant) = (key(), key(), grant());
        let host = sign_host(&authority, user.public_key(), &["farm".to_owned()], NOW).unwrap();
        assert!(check(&host, &trust(&authority), NOW).is_err(), "a host's");
        let id = format!("{KEY_ID} {} {} none", grant.instance, grant.user);
        let build = |id: &str, principals: &[String], option: bool| {
            let mut rng = rand::rng();
            let now = seconds(NOW);
            let mut builder = Builder::new_with_random_nonce(&mut rng, user.public_key(), now, now + 300).unwrap();
            builder.cert_type(CertType::User).unwrap().key_id(id).unwrap();
            match principals {
                [] => builder.all_principals_valid().map(drop).unwrap(),
                some => some.iter().for_each(|name| builder.valid_principal(name.as_str()).map(drop).unwrap()),
            }
            if option {
                builder.critical_option("force-command", "true").unwrap();
            }
            builder.sign(&authority).unwrap()
        };
        let right = [instance_principal(grant.instance), user_principal(&grant.user)];
        let check = |made| check(&made, &trust(&authority), NOW);
        assert!(check(build(&id, &right, false)).is_ok());
        assert!(check(build(&id, &right, true)).is_err(), "a critical option");
        assert!(check(build(&id, &[], false)).is_err(), "anybody's");
        assert!(check(build(&id, &right[..1], false)).is_err(), "no user");
        assert!(check(build(&id, &["user:bob".to_owned(), right[0].clone()], false)).is_err(), "another user");
        for id in ["", "motefarm", "other a b c", "motefarm x alice none"] {
            assert!(check(build(id, &right, false)).is_err(), "{id}");
        }
    }
}
