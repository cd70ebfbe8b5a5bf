//! `[oidc]`: who vouches for users, and what their claims make of them.

use super::{ConfigError, Text, duration};
use crate::identity::Role;
use motefarm_core::name::UserName;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::{Host, Url};

/// `[oidc]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcFile {
    /// The issuer's address, exactly as it writes it into tokens.
    pub issuer: String,
    /// What it knows this farm as; the tokens' audience.
    pub client_id: String,
    /// File with the secret it gave this farm, if any.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for; absent: `openid profile email`.
    pub scopes: Option<Vec<String>>,
    /// The claim that names the user; absent: `preferred_username`.
    pub user_claim: Option<String>,
    /// How long a token made by signing in is good; absent: a day.
    pub token_lifetime: Option<Text>,
    /// PEM file with the CA of the issuer's certificate; absent: those this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// `[[oidc.roles]]`: the first that fits decides; who fits none is refused.
    pub roles: Vec<RoleRuleFile>,
}

/// One of `[[oidc.roles]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRuleFile {
    /// `admin` or `user`.
    pub role: String,
    /// The claim it goes by, with dots into objects; absent: everybody fits.
    pub claim: Option<String>,
    /// Values that fit: of a text, a truth, or any element of a list.
    #[serde(default)]
    pub values: Vec<String>,
}

/// The same, resolved.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// See [`OidcFile::issuer`].
    pub issuer: String,
    /// See [`OidcFile::client_id`].
    pub client_id: String,
    /// See [`OidcFile::client_secret_file`].
    pub client_secret_file: Option<PathBuf>,
    /// Separated by blanks.
    pub scope: String,
    /// See [`OidcFile::user_claim`].
    pub user_claim: String,
    /// See [`OidcFile::token_lifetime`].
    pub token_lifetime: Duration,
    /// See [`OidcFile::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`OidcFile::roles`].
    pub roles: Vec<RoleRule>,
}

/// One rule from claims to a role.
#[derive(Debug, Clone)]
pub struct RoleRule {
    role: Role,
    claim: Option<String>,
    values: Vec<String>,
}

/// Whether an address is safe to send secrets to: https, or loopback.
pub fn is_safe(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

impl OidcFile {
    pub(super) fn resolve(self) -> Result<Oidc, ConfigError> {
        let wrong = |key: &str, problem: String| ConfigError::Value { key: format!("oidc.{key}"), problem };
        let url = Url::parse(&self.issuer).map_err(|e| wrong("issuer", format!("{:?}: {e}", self.issuer)))?;
        if !is_safe(&url) || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("issuer", format!("{:?} is no https address", self.issuer)));
        }
        if self.client_id.is_empty() {
            return Err(wrong("client_id", "is empty".to_owned()));
        }
        if self.roles.is_empty() {
            let problem = "without [[oidc.roles]] nobody could sign in; { role = \"user\" } lets everybody in";
            return Err(wrong("roles", problem.to_owned()));
        }
        let roles = self.roles.into_iter().enumerate().map(|(at, rule)| {
            let role = Role::from_word(&rule.role).ok_or_else(|| {
                wrong(&format!("roles[{at}].role"), format!("{:?} is neither admin nor user", rule.role))
            })?;
            if rule.claim.is_some() == rule.values.is_empty() {
                return Err(wrong(&format!("roles[{at}]"), "a claim and its values go together".to_owned()));
            }
            if rule.claim.is_none() && role == Role::Admin {
                return Err(wrong(&format!("roles[{at}]"), "without a claim everybody would be an admin".to_owned()));
            }
            Ok(RoleRule { role, claim: rule.claim, values: rule.values })
        });
        let roles = roles.collect::<Result<_, _>>()?;
        let mut scopes = self.scopes.unwrap_or_else(|| ["profile", "email"].map(str::to_owned).to_vec());
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        Ok(Oidc {
            issuer: self.issuer,
            client_id: self.client_id,
            client_secret_file: self.client_secret_file,
            scope: scopes.join(" "),
            user_claim: self.user_claim.unwrap_or_else(|| "preferred_username".to_owned()),
            token_lifetime: match &self.token_lifetime {
                Some(text) => duration("oidc.token_lifetime", text)?,
                None => Duration::from_secs(24 * 3600),
            },
            ca_file: self.ca_file,
            roles,
        })
    }
}

/// A claim by its name or, with dots, inside of objects.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |inside, part| inside.get(part)))
}

impl RoleRule {
    fn fits(&self, claims: &Value) -> bool {
        let Some(name) = &self.claim else { return true };
        let is_one = |value: &Value| match value {
            Value::String(text) => self.values.contains(text),
            Value::Bool(truth) => self.values.iter().any(|wanted| wanted == if *truth { "true" } else { "false" }),
            _ => false,
        };
        match claim(claims, name) {
            Some(Value::Array(all)) => all.iter().any(is_one),
            Some(one) => is_one(one),
            None => false,
        }
    }
}

impl Oidc {
    /// The role that these claims make; `None`: none, so no way in.
    pub fn role_of(&self, claims: &Value) -> Option<Role> {
        self.roles.iter().find(|rule| rule.fits(claims)).map(|rule| rule.role)
    }

    /// What to call the user of these claims: the part before an `@`. `None` if the claim is missing or empty.
    pub fn user_of(&self, claims: &Value) -> Option<UserName> {
        let text = claim(claims, &self.user_claim)?.as_str()?;
        let name = text.split('@').next().filter(|name| !name.is_empty())?;
        Some(UserName::nearest(name))
    }

    /// Whether the files that are named can be read.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let files = [("oidc.client_secret_file", &self.client_secret_file), ("oidc.ca_file", &self.ca_file)];
        for (key, path) in files.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?))) {
            std::fs::File::open(path)
                .map_err(|e| ConfigError::Value { key: key.to_owned(), problem: format!("{}: {e}", path.display()) })?;
        }
        Ok(())
    }

    /// What would be used, for people.
    pub(super) fn describe(&self) -> String {
        let roles: Vec<String> = self
            .roles
            .iter()
            .map(|rule| match &rule.claim {
                Some(claim) => format!("{} if {claim} has one of {:?}", rule.role.as_str(), rule.values),
                None => format!("{} for everybody", rule.role.as_str()),
            })
            .collect();
        let life = humantime::format_duration(self.token_lifetime);
        format!("sign-in by {} as {}, for {life}: {}", self.issuer, self.client_id, roles.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Oidc, String> {
        let file: OidcFile = toml::from_str(text).map_err(|e| e.to_string())?;
        file.resolve().map_err(|e| e.to_string())
    }

    const GOOD: &str = "issuer = 'https://id.example/farm'\nclient_id = 'mote'\n\
        roles = [{ role = 'admin', claim = 'realm.roles', values = ['ops'] }, \
        { role = 'user', claim = 'email_verified', values = ['true'] }]";

    #[test]
    fn the_first_rule_that_fits_makes_the_role() {
        let oidc = parse(GOOD).unwrap();
        assert_eq!(oidc.scope, "openid profile email");
        let both = json!({"realm": {"roles": ["dev", "ops"]}, "email_verified": true});
        assert_eq!(oidc.role_of(&both), Some(Role::Admin));
        assert_eq!(oidc.role_of(&json!({"realm": {"roles": "dev"}, "email_verified": true})), Some(Role::User));
        for nobody in [json!({}), json!({"email_verified": false}), json!({"realm": "ops"}), json!([])] {
            assert_eq!(oidc.role_of(&nobody), None, "{nobody}");
        }
    }

    #[test]
    fn users_are_called_what_comes_before_the_at_sign() {
        let oidc = parse(GOOD).unwrap();
        let name = |text: &str| oidc.user_of(&json!({"preferred_username": text})).map(|name| name.to_string());
        assert_eq!(name("Alice.B@example.com").as_deref(), Some("alice.b"));
        assert_eq!((name(""), name("@x"), oidc.user_of(&json!({"preferred_username": 7}))), (None, None, None));
    }

    #[test]
    fn what_would_let_the_wrong_in_is_refused() {
        for (text, named) in [
            (GOOD.replace("https", "http"), "oidc.issuer"),
            (GOOD.replace("'mote'", "''"), "oidc.client_id"),
            ("issuer = 'https://x'\nclient_id = 'm'\nroles = []".to_owned(), "oidc.roles"),
            ("issuer = 'https://x'\nclient_id = 'm'\nroles = [{ role = 'admin' }]".to_owned(), "everybody"),
            ("issuer = 'https://x'\nclient_id = 'm'\nroles = [{ role = 'root' }]".to_owned(), "oidc.roles[0].role"),
            (
                "issuer = 'https://x'\nclient_id = 'm'\nroles = [{ role = 'user', claim = 'x' }]".to_owned(),
                "go together",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        assert!(parse(&GOOD.replace("https://id.example", "http://127.0.0.1:3000")).is_ok(), "loopback needs no TLS");
    }
}
