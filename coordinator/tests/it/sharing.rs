//! Who may use what: shares, limits, and what is left of rights that were taken away.

use crate::farm::{MINUTE, TestFarm};
use futures_util::StreamExt as _;
use motefarm_coordinator::farm::usage::Usage;
use motefarm_coordinator::farm::{FarmError, access, admin, audit, destroy, exec, info, share};
use motefarm_coordinator::identity::{Identity, Role};
use motefarm_core::{ExecId, InstanceId};
use motefarm_net::token::ApiToken;
use motefarm_proto::mote;
use std::time::Duration;
use uuid::Uuid;

async fn with_users(config: &str) -> (TestFarm, motefarm_coordinator::link::fake::FakeLink) {
    let (farm, buildlet) = TestFarm::with_buildlet(config).await;
    for who in [TestFarm::alice(), TestFarm::bob()] {
        farm.app.store.add_user(&who.user, who.role, farm.app.now()).await.unwrap();
    }
    (farm, buildlet)
}

#[tokio::test]
async fn who_has_a_share_may_use_and_neither_end_nor_share() {
    let (farm, _buildlet) = with_users("").await;
    let (app, alice, bob) = (&farm.app, TestFarm::alice(), TestFarm::bob());
    let row = farm.lease(1).await;
    let before = Usage::begin(app, &bob, &row.name).await.err().unwrap().to_string();
    let nobodys = Usage::begin(app, &bob, "alice-fake-type-9").await.err().unwrap().to_string();
    assert_eq!(before.replace(&row.name, ""), nobodys.replace("alice-fake-type-9", ""), "unknown and forbidden alike");

    share::share(app, &alice, &row.name, &bob.user).await.unwrap();
    share::share(app, &alice, &row.name, &bob.user).await.unwrap();
    Usage::begin(app, &bob, &row.name).await.unwrap();
    assert!(access::instance(app, &bob, &row.id.to_string()).await.is_ok());
    assert!(info::list_instances(app, &bob, false).await.unwrap().is_empty(), "it is not bob's own");
    assert_eq!(info::list_usable(app, &bob).await.unwrap()[0].shared_with, ["bob"]);
    let denied = destroy::destroy(app, &bob, &row.name).await.unwrap_err();
    assert!(matches!(&denied, FarmError::Forbidden(text) if text.contains("alice's")), "{denied}");
    let carol = "carol".parse().unwrap();
    assert!(matches!(share::share(app, &bob, &row.name, &carol).await, Err(FarmError::Forbidden(_))));
    assert!(matches!(
        share::share(app, &alice, &row.name, &carol).await,
        Err(FarmError::NotFound { what: "user", .. })
    ));
    assert!(matches!(share::share(app, &alice, &row.name, &alice.user).await, Err(FarmError::Invalid(_))));

    assert!(share::unshare(app, &alice, &row.name, &bob.user).await.unwrap());
    assert!(!share::unshare(app, &alice, &row.name, &bob.user).await.unwrap());
    assert!(Usage::begin(app, &bob, &row.name).await.is_err());
    // Whoever has a share may leave by themselves.
    share::share(app, &alice, &row.name, &bob.user).await.unwrap();
    assert!(share::unshare(app, &bob, &row.name, &bob.user).await.unwrap());
    assert!(matches!(share::unshare(app, &bob, &row.name, &bob.user).await, Err(FarmError::NotFound { .. })));

    // Every one of these left a row, the repeats none.
    let rows = audit::list(app, "alice", "share", 0, 0).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.detail.as_str()).collect::<Vec<_>>(), ["bob", "bob"]);
    assert_eq!(audit::list(app, "", "unshare", 0, 0).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_stream_ends_when_the_share_does() {
    let (farm, _buildlet) = with_users("").await;
    let (app, alice, bob) = (&farm.app, TestFarm::alice(), TestFarm::bob());
    let row = farm.lease(1).await;
    share::share(app, &alice, &row.name, &bob.user).await.unwrap();
    let lost = access::no_longer_shared(app.clone(), bob.clone(), row.clone());
    let kept = access::no_longer_shared(app.clone(), alice.clone(), row.clone());
    let admin = Identity { user: "root".parse().unwrap(), role: Role::Admin };
    let (unshared, ended) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            share::unshare(app, &admin, &row.name, &bob.user).await
        },
        tokio::time::timeout(Duration::from_secs(10), lost)
    );
    assert!(unshared.unwrap());
    assert!(matches!(ended.expect("it ends"), FarmError::NotFound { .. }));
    assert!(tokio::time::timeout(Duration::from_millis(50), kept).await.is_err(), "the owner's goes on");
}

#[tokio::test]
async fn removing_a_user_ends_what_is_theirs_and_only_that() {
    let (farm, buildlet) = with_users("").await;
    let (app, alice, bob) = (&farm.app, TestFarm::alice(), TestFarm::bob());
    let root = Identity { user: "root".parse().unwrap(), role: Role::Admin };
    let row = farm.lease(1).await;
    let (alices, bobs) = (ApiToken::generate(), ApiToken::generate());
    for (who, token) in [(&alice, &alices), (&bob, &bobs)] {
        app.store.add_token(&who.user, "t", &token.hash(), None, app.now()).await.unwrap();
    }
    share::share(app, &alice, &row.name, &bob.user).await.unwrap();
    admin::remove_user(app, &root, &bob.user).await.unwrap();
    assert!(app.store.identify(&bobs.hash(), "", app.now()).await.unwrap().is_none());
    assert!(app.store.identify(&alices.hash(), "", app.now()).await.unwrap().is_some());
    let now = app.store.instance(row.id).await.unwrap().unwrap();
    assert!(now.state.is_live() && now.shared_with.is_empty());
    admin::remove_user(app, &root, &alice.user).await.unwrap();
    farm.sweep().await;
    farm.reached(row.id, motefarm_core::instance::InstanceState::Gone).await;
    drop(buildlet);
}

#[tokio::test]
async fn a_user_may_have_so_many_instances_and_run_so_many_commands() {
    let (farm, _buildlet) = with_users("[limits]\ninstances_per_user = 2\nexecutions_per_user = 1").await;
    let app = &farm.app;
    let first = farm.lease(1).await;
    farm.lease(2).await;
    let error = farm.request(3).await.unwrap_err();
    assert!(matches!(&error, FarmError::Exhausted(text) if text.contains("instances of one user")), "{error}");
    assert!(farm.request(2).await.is_ok(), "a repeat is no new one");
    farm.ask(&TestFarm::bob(), TestFarm::wish(4)).await.unwrap();
    destroy::destroy(app, &TestFarm::alice(), &first.name).await.unwrap();
    farm.request(3).await.unwrap();

    let second = app.store.instance(InstanceId::from_uuid(Uuid::from_u128(2))).await.unwrap().unwrap();
    let ask = |n: u128| mote::ExecuteRequest {
        instance: second.name.clone(),
        exec_id: ExecId::from_uuid(Uuid::from_u128(n)).to_string(),
        spec: Some(mote::ExecSpec { program: "/bin/true".to_owned(), system_level: true, ..Default::default() }),
        offset: 0,
    };
    drop(exec::execute(app, &TestFarm::alice(), ask(11)).await.unwrap().next());
    let error = exec::execute(app, &TestFarm::alice(), ask(12)).await.err().unwrap();
    assert!(matches!(&error, FarmError::Exhausted(text) if text.contains("commands running")), "{error}");
    assert!(exec::execute(app, &TestFarm::alice(), ask(11)).await.is_ok(), "a repeat is no new one");
    assert_eq!(app.store.executions(second.id).await.unwrap().len(), 1, "nothing of the second is left");
}

#[tokio::test]
async fn a_sign_in_is_a_row_and_busy_tokens_cost_no_writes() {
    let (farm, _buildlet) = with_users("").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let token = ApiToken::generate();
    app.store.add_token(&alice.user, "laptop", &token.hash(), None, app.now()).await.unwrap();
    let used = async || app.store.token(&token.hash()).await.unwrap().unwrap().last_used_at;
    assert_eq!(used().await, None);
    let rows = async || audit::list(app, "alice", "sign-in", 0, 0).await.unwrap();
    app.store.identify(&token.hash(), "10.0.0.7", app.now()).await.unwrap().unwrap();
    let first = used().await;
    assert_eq!(first, Some(app.now()));
    for _ in 0..50 {
        farm.clock.advance(Duration::from_secs(1));
        app.store.identify(&token.hash(), "10.0.0.7", app.now()).await.unwrap().unwrap();
    }
    assert_eq!(used().await, first, "to a minute");
    farm.clock.advance(MINUTE);
    app.store.identify(&token.hash(), "10.0.0.7", app.now()).await.unwrap().unwrap();
    assert_eq!(used().await, Some(app.now()));
    let found = rows().await;
    assert_eq!((found.len(), found[0].subject.as_str(), found[0].detail.as_str()), (1, "alice/laptop", "10.0.0.7"));
    farm.clock.advance(MINUTE * 61);
    app.store.identify(&token.hash(), "10.0.0.8", app.now()).await.unwrap().unwrap();
    assert_eq!(rows().await.len(), 2, "after an hour's rest it is another");
}

#[tokio::test]
async fn the_audit_is_filtered_and_bounded() {
    let farm = TestFarm::new("").await;
    let app = &farm.app;
    for n in 0..250 {
        let (actor, action) = if n % 2 == 0 { ("alice", "create") } else { ("bob", "destroy") };
        app.audit(actor, action, &format!("i{n}"), "").await;
        farm.clock.advance(Duration::from_secs(1));
    }
    let all = audit::list(app, "", "", 0, 0).await.unwrap();
    assert_eq!(
        (all.len(), all[0].subject.as_str(), all[99].subject.as_str()),
        (100, "i150", "i249"),
        "the newest, in order"
    );
    assert_eq!(audit::list(app, "bob", "destroy", 0, 200).await.unwrap().len(), 125);
    assert!(audit::list(app, "bob", "create", 0, 0).await.unwrap().is_empty());
    let since = (app.now() - Duration::from_secs(10)).as_millis();
    assert_eq!(audit::list(app, "", "", since, 0).await.unwrap().len(), 10);
    for (action, limit) in [("nonsense", 1), ("", 10_001)] {
        assert!(matches!(audit::list(app, "", action, 0, limit).await, Err(FarmError::Invalid(_))));
    }
}
