//! Id tokens: the one that is right, and all that look like it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use motefarm_coordinator::oidc::{Expected, Refusal, Verified, verify};
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

pub(crate) const AUDIENCE: &str = "mote";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn now() -> i64 {
    SystemClock.now().as_millis() / 1000
}

/// A key of an issuer's.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Key {
    pub(crate) fn new(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap(), kid }
    }

    /// Without the leading 4 of an uncompressed point.
    fn public(&self) -> &[u8] {
        &self.pair.public_key().as_ref()[1..]
    }

    pub(crate) fn jwk(&self) -> Value {
        let (x, y) = self.public().split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "use": "sig", "x": encoded(x), "y": encoded(y)})
    }

    pub(crate) fn set(&self) -> JwkSet {
        set(&[self.jwk()])
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "ES256", "kid": self.kid}), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encoded(signature))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()))
}

fn set(keys: &[Value]) -> JwkSet {
    serde_json::from_value(json!({"keys": keys})).unwrap()
}

pub(crate) fn claims(issuer: &str) -> Value {
    json!({"iss": issuer, "aud": AUDIENCE, "sub": "s-1", "iat": now(), "exp": now() + 300, "preferred_username": "Carol"})
}

const ISSUER: &str = "https://id.example";

fn with(name: &str, value: Value) -> Value {
    let mut all = claims(ISSUER);
    match value {
        Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
        value => all[name] = value,
    }
    all
}

fn check(token: &str, keys: &JwkSet) -> Result<Verified, Refusal> {
    verify(token, keys, &Expected { issuer: ISSUER, audience: AUDIENCE }, Timestamp::from_millis(now() * 1000))
}

#[test]
fn the_right_one_says_who_it_is() {
    let key = Key::new("k1");
    let verified = check(&key.sign(&claims(ISSUER)), &key.set()).unwrap();
    assert_eq!((verified.subject.as_str(), verified.claims["preferred_username"].as_str()), ("s-1", Some("Carol")));
    for good in [
        with("exp", json!(now() - 30)),
        with("iat", json!(now() + 30)),
        with("nbf", json!(now() + 30)),
        with("aud", json!([AUDIENCE])),
    ] {
        assert!(check(&key.sign(&good), &key.set()).is_ok(), "clocks may differ a little: {good}");
    }
    let mut several = with("aud", json!([AUDIENCE, "other"]));
    several["azp"] = json!(AUDIENCE);
    assert!(check(&key.sign(&several), &key.set()).is_ok());
    // Without a name for the key, the only one there is.
    assert!(check(&key.sign_as(&json!({"alg": "ES256"}), &claims(ISSUER)), &key.set()).is_ok());
}

#[test]
fn ed25519_is_accepted_too() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let keys = set(&[json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": encoded(pair.public_key().as_ref())})]);
    let message = message(&json!({"alg": "EdDSA", "kid": "e"}), &claims(ISSUER));
    let signature = encoded(pair.sign(message.as_bytes()).as_ref());
    assert!(check(&format!("{message}.{signature}"), &keys).is_ok());
    let other = Key::new("e");
    assert!(check(&other.sign(&claims(ISSUER)), &keys).is_err(), "another kind of key of the same name");
}

#[test]
fn wrong_claims_are_refused() {
    let key = Key::new("k1");
    for (name, value) in [
        ("exp", json!(now() - 120)),
        ("exp", Value::Null),
        ("exp", json!("soon")),
        ("iat", json!(now() + 120)),
        ("iat", json!(now() - 7200)),
        ("iat", Value::Null),
        ("nbf", json!(now() + 120)),
        ("iss", json!("https://id.example/")),
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
        ("aud", json!("another program")),
        ("aud", json!([])),
        ("aud", json!([AUDIENCE, "other"])),
        ("aud", Value::Null),
        ("azp", json!("another program")),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
    ] {
        let answer = check(&key.sign(&with(name, value.clone())), &key.set());
        assert!(answer.is_err(), "{name} = {value} was accepted");
        let told = answer.unwrap_err().to_string();
        assert!(!told.contains("Carol") && !told.contains("s-1"), "{told}");
    }
}

#[test]
fn forged_ones_are_refused() {
    let (key, other) = (Key::new("k1"), Key::new("k1"));
    let good = key.sign(&claims(ISSUER));
    // Another key of the same name.
    assert!(check(&other.sign(&claims(ISSUER)), &key.set()).is_err());
    // A name that no key has; no name where there are two.
    assert!(check(&Key::new("k2").sign(&claims(ISSUER)), &key.set()).is_err());
    let two = set(&[key.jwk(), Key::new("k3").jwk()]);
    assert!(check(&key.sign_as(&json!({"alg": "ES256"}), &claims(ISSUER)), &two).is_err());
    assert!(check(&good, &two).is_ok());
    // Other claims under the same signature.
    let parts: Vec<&str> = good.split('.').collect();
    let changed = format!("{}.{}.{}", parts[0], encoded(with("sub", json!("root")).to_string()), parts[2]);
    assert!(check(&changed, &key.set()).is_err());
    // No signature at all.
    for alg in ["none", "None", "NONE", ""] {
        let unsigned = message(&json!({"alg": alg, "kid": "k1"}), &claims(ISSUER));
        for signature in ["", parts[2]] {
            assert!(matches!(check(&format!("{unsigned}.{signature}"), &key.set()), Err(Refusal::Algorithm)), "{alg}");
        }
    }
    // The public key, which everybody has, as the secret of an HMAC.
    let keys = [key.public().to_vec(), [&[4], key.public()].concat(), key.jwk().to_string().into_bytes()];
    for secret in keys {
        let message = message(&json!({"alg": "HS256", "kid": "k1"}), &claims(ISSUER));
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let forged = format!("{message}.{}", encoded(ring::hmac::sign(&hmac, message.as_bytes())));
        assert!(matches!(check(&forged, &key.set()), Err(Refusal::Algorithm)));
        // Also if the issuer's set held a symmetric key by mistake.
        let oct = set(&[json!({"kty": "oct", "kid": "k1", "k": encoded(&secret)})]);
        assert!(check(&forged, &oct).is_err());
    }
    // A key that is for something else, and one for another algorithm.
    for (name, value) in [("use", "enc"), ("alg", "ES384")] {
        let mut jwk = key.jwk();
        jwk[name] = json!(value);
        assert!(check(&good, &set(&[jwk])).is_err(), "{name}={value}");
    }
    for alg in ["ES384", "RS256", "PS256", "EdDSA"] {
        assert!(check(&key.sign_as(&json!({"alg": alg, "kid": "k1"}), &claims(ISSUER)), &key.set()).is_err(), "{alg}");
    }
}

#[test]
fn rubbish_is_refused() {
    let key = Key::new("k1");
    let good = key.sign(&claims(ISSUER));
    for rubbish in ["", ".", "..", "a.b.c", "a.b", &good[..good.len() - 1], &format!("{good}.x"), &"x".repeat(100_000)]
    {
        assert!(check(rubbish, &key.set()).is_err());
    }
    assert!(check(&good, &set(&[])).is_err());
}
