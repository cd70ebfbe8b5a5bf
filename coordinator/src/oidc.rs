//! Signing in by OpenID Connect, with the device flow of RFC 8628.
//!
//! The farm drives it, not the client: so the client's secret stays here, an id token never leaves this
//! process (there is no call that takes one, so nobody can hand in somebody else's), and `mote` needs
//! neither HTTP nor a way to the issuer. The client holds one secret, the id of its sign-in, and polls.
//! What comes of it is a token of the farm's own: named, expiring, revocable like any other.
//!
//! Sign-ins under way are in memory only: after a restart one begins again.

mod crypto;
mod id_token;
mod issuer;

pub use id_token::{Expected, Refusal, Verified, verify};

use crate::app::App;
use crate::config::Oidc;
use crate::farm::{FarmError, admin};
use crate::store::{NewSignIn, StoreError};
use issuer::{Granted, Issuer};
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;
use motefarm_net::token::{ApiToken, SecretHash};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Sign-ins under way, of everybody and of one address.
const MOST: usize = 500;
const MOST_OF_ADDRESS: usize = 10;
/// A sign-in stands at most this long, whatever the issuer says.
const MOST_LIFE: Duration = Duration::from_secs(1800);

/// What somebody who wants to sign in is told.
#[derive(Debug)]
pub struct Begun {
    /// Secret: who knows it gets the token.
    pub sign_in_id: String,
    /// What the page shows or asks for.
    pub user_code: String,
    /// The page.
    pub verification_uri: String,
    /// The page with the code filled in; may be empty.
    pub verification_uri_complete: String,
    /// How long to wait between polls.
    pub interval: Duration,
    /// How long it stands.
    pub expires_in: Duration,
}

/// How a sign-in goes.
#[derive(Debug)]
pub enum Progress {
    /// Nobody has agreed yet; ask again after this.
    Waiting(Duration),
    /// Done.
    SignedIn {
        /// The farm's token, shown once.
        token: ApiToken,
        /// What it is called.
        name: String,
        /// Whose it is.
        user: UserName,
        /// Until when it is good.
        expires_at: Timestamp,
    },
}

struct Pending {
    /// For the issuer.
    device_code: String,
    /// What the token is to be called.
    device: String,
    address: Option<IpAddr>,
    interval: Duration,
    next_poll_at: Timestamp,
    expires_at: Timestamp,
    /// Somebody asks the issuer just now.
    busy: bool,
}

/// What to do after the issuer's answer.
enum Next {
    Wait(Duration),
    Admit { id_token: String },
}

/// The sign-ins of one farm.
pub struct SignIns {
    config: Oidc,
    issuer: Issuer,
    pending: Mutex<HashMap<[u8; 32], Pending>>,
}

fn unknown() -> FarmError {
    FarmError::NotFound { what: "sign-in", name: "that is under way; begin again".to_owned() }
}

impl SignIns {
    /// For this configuration.
    pub fn new(config: Oidc) -> Arc<Self> {
        crypto::install();
        Arc::new(Self { issuer: Issuer::new(config.clone()), config, pending: Mutex::default() })
    }

    /// Who vouches.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Pending>> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Begins one for somebody at `address`; `device` names the token to be.
    pub async fn begin(&self, app: &App, device: &str, address: Option<IpAddr>) -> Result<Begun, FarmError> {
        {
            let mut pending = self.lock();
            let now = app.now();
            pending.retain(|_, one| one.expires_at > now);
            let of_address = pending.values().filter(|one| one.address == address).count();
            if pending.len() >= MOST || of_address >= MOST_OF_ADDRESS {
                let text = "too many sign-ins are under way; finish one, or wait until they run out";
                return Err(FarmError::Exhausted(text.to_owned()));
            }
        }
        let begun = self.issuer.begin().await?;
        let sign_in_id = ApiToken::generate().secret().replacen("mote_", "signin_", 1);
        let expires_in = begun.expires_in.min(MOST_LIFE);
        let now = app.now();
        let one = Pending {
            device_code: begun.device_code,
            device: device.chars().filter(|c| c.is_ascii_graphic()).take(40).collect(),
            address,
            interval: begun.interval,
            next_poll_at: now + begun.interval,
            expires_at: now + expires_in,
            busy: false,
        };
        self.lock().insert(*SecretHash::of(&sign_in_id).as_bytes(), one);
        Ok(Begun {
            sign_in_id,
            user_code: begun.user_code,
            verification_uri: begun.verification_uri,
            verification_uri_complete: begun.verification_uri_complete,
            interval: begun.interval,
            expires_in,
        })
    }

    /// Asks how one goes. Polls that come too soon are answered without asking the issuer.
    pub async fn poll(&self, app: &Arc<App>, sign_in_id: &str) -> Result<Progress, FarmError> {
        let key = *SecretHash::of(sign_in_id).as_bytes();
        let (device_code, device, address) = {
            let mut pending = self.lock();
            let now = app.now();
            let one = pending.get_mut(&key).filter(|one| one.expires_at > now).ok_or_else(unknown)?;
            if one.busy || now < one.next_poll_at {
                return Ok(Progress::Waiting(one.next_poll_at.since(now).max(Duration::from_millis(200))));
            }
            one.busy = true;
            (one.device_code.clone(), one.device.clone(), one.address)
        };
        // The caller may leave; the issuer's answer comes once, so it is seen to whoever waits.
        let asked = self.issuer.ask(&device_code).await;
        match self.note(&key, asked, app.now())? {
            Next::Wait(interval) => Ok(Progress::Waiting(interval)),
            Next::Admit { id_token } => self.admit(app, &id_token, &device, address).await,
        }
    }

    /// Keeps what the issuer said of a sign-in. Unless it waits on, it ends here.
    fn note(&self, key: &[u8; 32], asked: Result<Granted, FarmError>, now: Timestamp) -> Result<Next, FarmError> {
        let mut pending = self.lock();
        let one = pending.get_mut(key).ok_or_else(unknown)?;
        one.busy = false;
        if let Ok(Granted::NotYet { slower }) = &asked {
            one.interval += *slower;
        }
        one.next_poll_at = now + one.interval;
        let interval = one.interval;
        match asked {
            Ok(Granted::NotYet { .. }) => Ok(Next::Wait(interval)),
            // The issuer may be back in a moment.
            Err(error @ FarmError::Unavailable(_)) => Err(error),
            Ok(Granted::Yes { id_token }) => {
                pending.remove(key);
                Ok(Next::Admit { id_token })
            }
            Err(error) => {
                pending.remove(key);
                Err(error)
            }
        }
    }

    /// Makes a token for whom the issuer vouches.
    async fn admit(
        &self,
        app: &Arc<App>,
        id_token: &str,
        device: &str,
        address: Option<IpAddr>,
    ) -> Result<Progress, FarmError> {
        let origin = address.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        let admitted = self.admit_from(app, id_token, device, &origin).await;
        if let Err(FarmError::Forbidden(why)) = &admitted {
            tracing::warn!(issuer = self.config.issuer, address = origin, why, "a sign-in was refused");
            app.audit("", "sign-in refused", &origin, why).await;
        }
        admitted
    }

    async fn admit_from(
        &self,
        app: &Arc<App>,
        id_token: &str,
        device: &str,
        origin: &str,
    ) -> Result<Progress, FarmError> {
        let keys = self.issuer.keys().await?;
        let expected = Expected { issuer: &self.config.issuer, audience: &self.config.client_id };
        let now = app.now();
        let refused =
            |why: String| FarmError::Forbidden(format!("{} vouches for nobody here: {why}", self.config.issuer));
        let verified = verify(id_token, &keys, &expected, now).map_err(|refusal| refused(refusal.to_string()))?;
        let role = self
            .config
            .role_of(&verified.claims)
            .ok_or_else(|| refused("none of the farm's rules gives this user a role".to_owned()))?;
        let user = self
            .config
            .user_of(&verified.claims)
            .ok_or_else(|| refused(format!("the claim {} names no user", self.config.user_claim)))?;
        let token = ApiToken::generate();
        let device = if device.is_empty() { "device" } else { device };
        let name = format!("{device}-{}", hex::encode(rand::random::<[u8; 4]>()));
        let expires_at = now + self.config.token_lifetime;
        if !app.store.knows_subject(&self.config.issuer, &verified.subject).await? {
            admin::check_another_user(app)?;
        }
        let sign_in = NewSignIn {
            issuer: &self.config.issuer,
            subject: &verified.subject,
            id_token: &SecretHash::of(id_token),
            id_token_expires_at: verified.expires_at,
            user: &user,
            role,
            token: &token.hash(),
            token_name: &name,
            expires_at,
            origin,
        };
        let user = app.store.sign_in(&sign_in, now).await.map_err(|error| match error {
            StoreError::Exists { what: "id token", .. } => refused("this id token was used before".to_owned()),
            StoreError::Exists { what: "user", name } => refused(format!(
                "there is a user {name} of this farm's own already; an admin removes that one, or the issuer calls you otherwise"
            )),
            other => other.into(),
        })?;
        tracing::info!(user = %user, role = role.as_str(), issuer = self.config.issuer, "signed in");
        Ok(Progress::SignedIn { token, name, user, expires_at })
    }
}
