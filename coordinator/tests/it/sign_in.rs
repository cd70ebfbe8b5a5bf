//! Device sign-in against an issuer that does what it is told.

use crate::farm::TestFarm;
use crate::id_tokens::{self, Key};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use motefarm_coordinator::farm::FarmError;
use motefarm_coordinator::identity::Role;
use motefarm_coordinator::oidc::{Progress, SignIns};
use motefarm_coordinator::store::AuditFilter;
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the token endpoint answers, in order; then nothing but "pending".
type Answers = Arc<Mutex<VecDeque<(u16, Value)>>>;

#[derive(Clone)]
struct Issuer {
    address: String,
    key: Arc<Key>,
    answers: Answers,
    calls_itself: Arc<Mutex<Option<String>>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let issuer =
            Self { address, key: Arc::new(Key::new("k1")), answers: Answers::default(), calls_itself: Arc::default() };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/device", post(device))
            .route("/token", post(token))
            .route(
                "/keys",
                get(|State(issuer): State<Issuer>| async move { json!({"keys": [issuer.key.jwk()]}).to_string() }),
            )
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn will_answer(&self, status: u16, body: Value) {
        self.answers.lock().unwrap().push_back((status, body));
    }

    fn will_vouch(&self, id_token: &str) {
        self.will_answer(200, json!({"access_token": "x", "token_type": "Bearer", "id_token": id_token}));
    }

    fn claims(&self) -> Value {
        let mut claims = id_tokens::claims(&self.address);
        claims["nonce"] = json!(rand::random::<u64>().to_string());
        claims
    }

    /// A farm whose users it vouches for.
    async fn farm(&self) -> (TestFarm, Arc<SignIns>) {
        let config = format!(
            "[oidc]\nissuer = '{}'\nclient_id = 'mote'\ntoken_lifetime = '1h'\nroles = [{{ role = 'admin', claim = 'groups', \
             values = ['ops'] }}, {{ role = 'user', claim = 'preferred_username', values = ['Carol', 'root'] }}]",
            self.address
        );
        let farm = TestFarm::new(&config).await;
        farm.clock.set(SystemClock.now());
        let sign_ins = SignIns::new(farm.app.config.oidc.clone().unwrap());
        (farm, sign_ins)
    }
}

fn form(body: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(body.as_bytes()).into_owned().collect()
}

async fn discovery(State(issuer): State<Issuer>) -> String {
    let own = &issuer.address;
    let name = issuer.calls_itself.lock().unwrap().clone().unwrap_or_else(|| own.clone());
    json!({"issuer": name, "device_authorization_endpoint": format!("{own}/device"),
        "token_endpoint": format!("{own}/token"), "jwks_uri": format!("{own}/keys")})
    .to_string()
}

async fn device(body: String) -> String {
    let form = form(&body);
    assert_eq!((form["client_id"].as_str(), form["scope"].as_str()), ("mote", "openid profile email"));
    json!({"device_code": "secret-code", "user_code": "ABCD", "verification_uri": "https://id.example/device",
        "expires_in": 600, "interval": 1})
    .to_string()
}

async fn token(State(issuer): State<Issuer>, body: String) -> (StatusCode, String) {
    let form = form(&body);
    assert_eq!(form["device_code"], "secret-code");
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    let next = issuer.answers.lock().unwrap().pop_front();
    let (status, body) = next.unwrap_or((400, json!({"error": "authorization_pending"})));
    (StatusCode::from_u16(status).unwrap(), body.to_string())
}

async fn poll(farm: &TestFarm, sign_ins: &SignIns, id: &str) -> Result<Progress, FarmError> {
    farm.clock.advance(Duration::from_secs(1));
    sign_ins.poll(&farm.app, id).await
}

/// A whole sign-in with whatever the issuer answers next.
async fn sign_in(farm: &TestFarm, sign_ins: &SignIns) -> Result<(String, Role), FarmError> {
    let begun = sign_ins.begin(&farm.app, "laptop", None).await?;
    let Progress::SignedIn { token, name, user, expires_at } = poll(farm, sign_ins, &begun.sign_in_id).await? else {
        panic!("nobody has agreed");
    };
    assert!(name.starts_with("laptop-"), "{name}");
    assert_eq!(expires_at, farm.app.now() + Duration::from_secs(3600));
    let identity = farm.app.store.identify(&token.hash(), "", farm.app.now()).await.unwrap().unwrap();
    assert_eq!(identity.user, user);
    assert!(farm.app.store.identify(&token.hash(), "", expires_at).await.unwrap().is_none(), "it runs out");
    Ok((user.to_string(), identity.role))
}

async fn refused(farm: &TestFarm, sign_ins: &SignIns, words: &str) {
    let error = sign_in(farm, sign_ins).await.unwrap_err();
    assert!(matches!(error, FarmError::Forbidden(_)), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn a_user_waits_agrees_and_is_known_again() {
    let issuer = Issuer::start().await;
    let (farm, sign_ins) = issuer.farm().await;
    let begun = sign_ins.begin(&farm.app, "laptop", None).await.unwrap();
    assert_eq!((begun.user_code.as_str(), begun.interval), ("ABCD", Duration::from_secs(1)));
    let early = sign_ins.poll(&farm.app, &begun.sign_in_id).await.unwrap();
    assert!(matches!(early, Progress::Waiting(_)), "{early:?}");
    assert!(matches!(poll(&farm, &sign_ins, &begun.sign_in_id).await.unwrap(), Progress::Waiting(_)));
    issuer.will_answer(400, json!({"error": "slow_down"}));
    let slower = poll(&farm, &sign_ins, &begun.sign_in_id).await.unwrap();
    assert!(matches!(slower, Progress::Waiting(wait) if wait == Duration::from_secs(6)), "{slower:?}");
    farm.clock.advance(Duration::from_secs(10));
    let id_token = issuer.key.sign(&issuer.claims());
    issuer.will_vouch(&id_token);
    let done = poll(&farm, &sign_ins, &begun.sign_in_id).await.unwrap();
    assert!(matches!(&done, Progress::SignedIn { user, .. } if user.as_str() == "carol"), "{done:?}");
    let again = poll(&farm, &sign_ins, &begun.sign_in_id).await.unwrap_err();
    assert!(matches!(again, FarmError::NotFound { .. }), "once only: {again}");

    // The same subject is the same user, whatever it is called now, with the role of now.
    let mut claims = issuer.claims();
    claims["groups"] = json!(["dev", "ops"]);
    claims["preferred_username"] = json!("root");
    issuer.will_vouch(&issuer.key.sign(&claims));
    assert_eq!(sign_in(&farm, &sign_ins).await.unwrap(), ("carol".to_owned(), Role::Admin));
    issuer.will_vouch(&issuer.key.sign(&issuer.claims()));
    assert_eq!(sign_in(&farm, &sign_ins).await.unwrap().1, Role::User, "and no longer an admin");

    let filter = AuditFilter { actor: None, action: Some("sign-in"), since: Timestamp::from_millis(0), limit: 100 };
    assert_eq!(farm.app.store.audit_rows(&filter).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_token_that_was_used_is_refused_also_after_a_restart() {
    let issuer = Issuer::start().await;
    let (farm, sign_ins) = issuer.farm().await;
    let id_token = issuer.key.sign(&issuer.claims());
    issuer.will_vouch(&id_token);
    sign_in(&farm, &sign_ins).await.unwrap();
    issuer.will_vouch(&id_token);
    refused(&farm, &sign_ins, "used before").await;
    let farm = farm.restart().await;
    issuer.will_vouch(&id_token);
    refused(&farm, &SignIns::new(farm.app.config.oidc.clone().unwrap()), "used before").await;
}

#[tokio::test]
async fn whom_the_rules_give_no_role_and_whose_name_is_taken_is_refused() {
    let issuer = Issuer::start().await;
    let (farm, sign_ins) = issuer.farm().await;
    let named = |name: &str, subject: &str| {
        let mut claims = issuer.claims();
        claims["preferred_username"] = json!(name);
        claims["sub"] = json!(subject);
        issuer.will_vouch(&issuer.key.sign(&claims));
    };
    named("mallory", "s-2");
    refused(&farm, &sign_ins, "role").await;
    // An admin of the farm's own is not taken over by whoever calls himself that.
    farm.app.store.add_user(&"root".parse().unwrap(), Role::Admin, farm.app.now()).await.unwrap();
    named("root", "s-3");
    refused(&farm, &sign_ins, "a user root of this farm's own").await;
    assert_eq!(farm.app.store.users().await.unwrap().len(), 1, "nobody was made");
    assert!(farm.app.store.tokens(None).await.unwrap().is_empty());
    let filter =
        AuditFilter { actor: None, action: Some("sign-in refused"), since: Timestamp::from_millis(0), limit: 9 };
    assert_eq!(farm.app.store.audit_rows(&filter).await.unwrap().len(), 2);
}

#[tokio::test]
async fn bad_tokens_and_bad_answers_end_the_sign_in_with_a_reason() {
    let issuer = Issuer::start().await;
    let (farm, sign_ins) = issuer.farm().await;
    let mut expired = issuer.claims();
    expired["exp"] = json!(id_tokens::now() - 600);
    let mut elsewhere = issuer.claims();
    elsewhere["iss"] = json!("https://evil.example");
    let mut for_another = issuer.claims();
    for_another["aud"] = json!("another");
    for claims in [expired, elsewhere, for_another] {
        issuer.will_vouch(&issuer.key.sign(&claims));
        refused(&farm, &sign_ins, "id token").await;
    }
    issuer.will_vouch(&Key::new("k1").sign(&issuer.claims()));
    refused(&farm, &sign_ins, "id token").await;
    issuer.will_answer(400, json!({"error": "access_denied"}));
    refused(&farm, &sign_ins, "refused on the page").await;
    issuer.will_answer(400, json!({"error": "expired_token"}));
    assert!(matches!(sign_in(&farm, &sign_ins).await.unwrap_err(), FarmError::NotFound { .. }));
    issuer.will_answer(200, json!({"access_token": "x"}));
    assert!(matches!(sign_in(&farm, &sign_ins).await.unwrap_err(), FarmError::NotReady(_)));
    issuer.will_answer(500, json!("oh"));
    assert!(matches!(sign_in(&farm, &sign_ins).await.unwrap_err(), FarmError::Unavailable(_)));
    *issuer.calls_itself.lock().unwrap() = Some("https://evil.example".to_owned());
    assert!(matches!(sign_in(&farm, &sign_ins).await.unwrap_err(), FarmError::NotReady(_)), "not whom it says");
    assert!(farm.app.store.users().await.unwrap().is_empty());
}

#[tokio::test]
async fn sign_ins_under_way_are_bounded_and_run_out() {
    let issuer = Issuer::start().await;
    let (farm, sign_ins) = issuer.farm().await;
    let address = Some("10.0.0.1".parse().unwrap());
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(sign_ins.begin(&farm.app, "", address).await.unwrap().sign_in_id);
    }
    let error = sign_ins.begin(&farm.app, "", address).await.unwrap_err();
    assert!(matches!(error, FarmError::Exhausted(_)), "{error}");
    sign_ins.begin(&farm.app, "", Some("10.0.0.2".parse().unwrap())).await.unwrap();
    assert!(matches!(poll(&farm, &sign_ins, "signin_guess").await.unwrap_err(), FarmError::NotFound { .. }));
    farm.clock.advance(Duration::from_secs(601));
    assert!(matches!(poll(&farm, &sign_ins, &ids[0]).await.unwrap_err(), FarmError::NotFound { .. }), "it ran out");
    sign_ins.begin(&farm.app, "", address).await.unwrap();
}
