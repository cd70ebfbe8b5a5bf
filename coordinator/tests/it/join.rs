//! Join tokens: who is let in.

use crate::farm::{MINUTE, TestFarm};
use motefarm_core::HostType;
use motefarm_net::token::JoinToken;

#[tokio::test]
async fn a_one_time_token_lets_one_machine_in_and_back_in() {
    let farm = TestFarm::new("").await;
    let store = &farm.app.store;
    let (now, host_type): (_, HostType) = (farm.app.now(), "fake-type".parse().unwrap());
    let token = JoinToken::generate(&"0".repeat(64));
    store.add_join_token(&token, &host_type, true, now + MINUTE, now).await.unwrap();
    assert!(store.admit(&token, "first", &host_type, now).await.unwrap());
    assert!(!store.admit(&token, "second", &host_type, now).await.unwrap());
    // It comes back, also when the token has expired; not when it was revoked.
    assert!(store.admit(&token, "first", &host_type, now + MINUTE * 2).await.unwrap());
    store.revoke_join_token(&token.id, now).await.unwrap();
    assert!(!store.admit(&token, "first", &host_type, now).await.unwrap());
}

#[tokio::test]
async fn a_wrong_secret_another_type_and_an_old_token_let_nobody_in() {
    let farm = TestFarm::new("").await;
    let store = &farm.app.store;
    let (now, host_type): (_, HostType) = (farm.app.now(), "fake-type".parse().unwrap());
    let token = JoinToken::generate(&"0".repeat(64));
    store.add_join_token(&token, &host_type, false, now + MINUTE, now).await.unwrap();
    let forged = JoinToken { secret: "f".repeat(64), ..token.clone() };
    assert!(!store.admit(&forged, "b", &host_type, now).await.unwrap());
    assert!(!store.admit(&token, "b", &"other".parse().unwrap(), now).await.unwrap());
    assert!(!store.admit(&token, "b", &host_type, now + MINUTE).await.unwrap());
    assert!(store.admit(&token, "b", &host_type, now).await.unwrap());
    assert!(store.admit(&token, "c", &host_type, now).await.unwrap());
}
