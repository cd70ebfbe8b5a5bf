//! Groups: whose they are, what they hold, and what leaves them.

use crate::farm::{MINUTE, TestFarm};
use motefarm_coordinator::farm::{FarmError, allocate, destroy, groups, info};
use motefarm_coordinator::identity::{Identity, Role};
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;

fn names(groups: &[mote::GroupInfo]) -> Vec<(&str, Vec<&str>)> {
    groups.iter().map(|g| (g.group.as_str(), g.instances.iter().map(String::as_str).collect())).collect()
}

#[tokio::test]
async fn a_group_is_made_filled_emptied_and_ended() {
    let (farm, _buildlet) = TestFarm::with_buildlet("").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let (one, two) = (farm.lease(1).await, farm.lease(2).await);
    groups::create(app, &alice, "g", false).await.unwrap();
    let again = groups::create(app, &alice, "g", false).await.unwrap_err();
    assert!(matches!(again, FarmError::Conflict(_)), "{again}");
    groups::create(app, &alice, "g", true).await.unwrap();
    for bad in ["", "-x", "a b"] {
        assert!(matches!(groups::create(app, &alice, bad, false).await, Err(FarmError::Invalid(_))), "{bad:?}");
    }
    // By name and by id; what is there already is no error.
    for _ in 0..2 {
        groups::add(app, &alice, "g", &[one.name.clone(), two.id.to_string()]).await.unwrap();
    }
    assert_eq!(names(&groups::list(app, &alice).await.unwrap()), [("g", vec![one.name.as_str(), two.name.as_str()])]);
    let infos = info::list_instances(app, &alice, false).await.unwrap();
    assert!(infos.iter().all(|info| info.groups == ["g"]), "{infos:?}");
    let absent = groups::remove(app, &alice, "g", &[two.name.clone(), "nobody".to_owned()]).await.unwrap();
    assert_eq!(absent, ["nobody"]);
    assert_eq!(groups::remove(app, &alice, "g", std::slice::from_ref(&two.name)).await.unwrap(), [two.name.as_str()]);
    groups::destroy(app, &alice, "g").await.unwrap();
    assert!(matches!(groups::destroy(app, &alice, "g").await, Err(FarmError::NotFound { .. })));
    farm.reached(one.id, InstanceState::Ready).await;
}

#[tokio::test]
async fn adding_is_all_or_nothing_and_only_ones_own() {
    let (farm, _buildlet) = TestFarm::with_buildlet("").await;
    let (app, alice, bob) = (&farm.app, TestFarm::alice(), TestFarm::bob());
    let admin = Identity { user: "root".parse().unwrap(), role: Role::Admin };
    let mine = farm.lease(1).await;
    for who in [&alice, &bob, &admin] {
        groups::create(app, who, "g", false).await.unwrap();
    }
    let some = [mine.name.clone(), "alice-fake-type-7".to_owned()];
    let error = groups::add(app, &alice, "g", &some).await.unwrap_err();
    assert!(matches!(&error, FarmError::NotFound { what: "instance", name } if name == "alice-fake-type-7"), "{error}");
    assert_eq!(names(&groups::list(app, &alice).await.unwrap()), [("g", vec![])]);
    // Another's instance and nobody's answer alike, also to an admin: groups are of one's own.
    for who in [&bob, &admin] {
        for name in [mine.name.clone(), mine.id.to_string()] {
            let theirs = groups::add(app, who, "g", std::slice::from_ref(&name)).await.unwrap_err().to_string();
            let nobodys = groups::add(app, who, "g", &["nobodys".to_owned()]).await.unwrap_err().to_string();
            assert_eq!(theirs.replace(&name, ""), nobodys.replace("nobodys", ""));
        }
    }
    // So do another's group and no group.
    groups::create(app, &alice, "hers", false).await.unwrap();
    for group in ["hers", "nobodys"] {
        for result in [
            groups::destroy(app, &bob, group).await,
            groups::add(app, &bob, group, &[]).await,
            groups::remove(app, &bob, group, &[]).await.map(drop),
        ] {
            assert_eq!(result.unwrap_err().to_string(), format!("there is no group {group:?}"));
        }
    }
    assert_eq!(names(&groups::list(app, &bob).await.unwrap()), [("g", vec![])]);
}

#[tokio::test]
async fn what_ends_leaves_its_groups_whichever_way() {
    let (farm, _buildlet) = TestFarm::with_buildlet("").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    let (destroyed, expired, waiting) = (farm.lease(1).await, farm.lease(2).await, farm.request(3).await.unwrap());
    groups::create(app, &alice, "g", false).await.unwrap();
    let all = [destroyed.name.clone(), expired.name.clone(), waiting.to_string()];
    groups::add(app, &alice, "g", &all).await.unwrap();
    destroy::destroy(app, &alice, &destroyed.name).await.unwrap();
    assert_eq!(groups::list(app, &alice).await.unwrap()[0].instances.len(), 2);
    farm.clock.advance(MINUTE * 31);
    farm.sweep().await;
    farm.reached(expired.id, InstanceState::Gone).await;
    farm.reached(waiting, InstanceState::Gone).await;
    assert_eq!(names(&groups::list(app, &alice).await.unwrap()), [("g", vec![])]);
    let error = groups::add(app, &alice, "g", std::slice::from_ref(&expired.name)).await.unwrap_err();
    assert!(matches!(error, FarmError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_created_instance_is_in_its_groups_from_the_first_and_once() {
    let (farm, _buildlet) = TestFarm::with_buildlet("").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    groups::create(app, &alice, "a", false).await.unwrap();
    let wish = |groups: &[&str]| {
        let groups = groups.iter().map(|group| group.parse().unwrap()).collect();
        motefarm_coordinator::farm::create::Wish { groups, ..TestFarm::wish(1) }
    };
    // One that is not there, or another's: nothing is asked for.
    groups::create(app, &TestFarm::bob(), "bobs", false).await.unwrap();
    for unknown in ["none", "bobs"] {
        let error = farm.ask(&alice, wish(&["a", unknown])).await.unwrap_err();
        assert_eq!(error.to_string(), format!("there is no group {unknown:?}"));
    }
    assert!(info::list_instances(app, &alice, false).await.unwrap().is_empty());
    let first = farm.ask(&alice, wish(&["a"])).await.unwrap();
    assert_eq!((first.state.as_str(), &first.groups[..]), ("queued", &["a".to_owned()][..]));
    // A repeat finds it, also when the group has gone since.
    assert_eq!(farm.ask(&alice, wish(&["a"])).await.unwrap().name, first.name);
    groups::destroy(app, &alice, "a").await.unwrap();
    let again = farm.ask(&alice, wish(&["a"])).await.unwrap();
    assert_eq!((again.name, again.groups), (first.name, Vec::new()));
    allocate::pass(app).await.unwrap();
    farm.reached(TestFarm::wish(1).id, InstanceState::Ready).await;
    assert_eq!(info::list_instances(app, &alice, false).await.unwrap().len(), 1);
}

#[tokio::test]
async fn groups_outlive_a_restart_and_go_with_their_user() {
    let (farm, _buildlet) = TestFarm::with_buildlet("").await;
    let alice = TestFarm::alice();
    let row = farm.lease(1).await;
    farm.app.store.add_user(&alice.user, Role::User, farm.app.now()).await.unwrap();
    groups::create(&farm.app, &alice, "g", false).await.unwrap();
    groups::add(&farm.app, &alice, "g", &[row.id.to_string()]).await.unwrap();
    let farm = farm.restart().await;
    assert_eq!(names(&groups::list(&farm.app, &alice).await.unwrap()), [("g", vec![row.name.as_str()])]);
    farm.app.store.remove_user(&alice.user).await.unwrap();
    assert!(groups::list(&farm.app, &alice).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_user_has_so_many_groups_and_no_more() {
    let farm = TestFarm::new("").await;
    let (app, alice) = (&farm.app, TestFarm::alice());
    for n in 0..motefarm_coordinator::store::MAX_GROUPS {
        groups::create(app, &alice, &format!("g{n}"), false).await.unwrap();
    }
    assert!(matches!(groups::create(app, &alice, "one-more", false).await, Err(FarmError::Exhausted(_))));
    groups::create(app, &alice, "g0", true).await.unwrap();
    groups::create(app, &TestFarm::bob(), "g0", false).await.unwrap();
}
