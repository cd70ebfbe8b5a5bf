//! What there is: slots of several buildlets, and who they are given to.

use crate::farm::{TYPE, TestFarm};
use motefarm_coordinator::farm::info;
use motefarm_coordinator::link::fake::FakeLink;
use motefarm_core::instance::InstanceState;

#[tokio::test]
async fn slots_add_up_over_the_buildlets_in_contact() {
    let farm = TestFarm::new("").await;
    let (one, two, other) =
        (FakeLink::new("b1", TYPE, 3), FakeLink::new("b2", TYPE, 2), FakeLink::new("b3", "other-type", 7));
    for (link, id) in [(&one, "b1"), (&two, "b2"), (&other, "b3")] {
        farm.connect(link, id).await;
    }
    // By host type: buildlets, total, free, waiting.
    let numbers = async || {
        let infos = info::list_host_types(&farm.app).await.unwrap();
        let of = |name: &str| {
            let info = infos.iter().find(|info| info.host_type == name).unwrap();
            (info.buildlets, info.total_slots, info.free_slots, info.waiting)
        };
        (of(TYPE), of("other-type"))
    };
    assert_eq!(numbers().await, ((2, 5, 5, 0), (1, 7, 7, 0)));
    let mut rows = Vec::new();
    for n in 1..=4 {
        rows.push(farm.lease(n).await);
    }
    assert_eq!(numbers().await, ((2, 5, 1, 0), (1, 7, 7, 0)));
    farm.lease(5).await;
    farm.request(6).await.unwrap();
    assert_eq!(numbers().await, ((2, 5, 0, 1), (1, 7, 7, 0)));
    let held: Vec<usize> = [&one, &two].map(|link| link.state().instances.len()).to_vec();
    assert_eq!(held, [3, 2]);
    // Out of contact, its slots are not there, free or not; its leases are still held by it.
    one.connect(false);
    let lost = rows.iter().find(|row| row.buildlet_id.as_deref() == Some("b1")).unwrap();
    farm.reached(lost.id, InstanceState::Lost).await;
    assert_eq!(numbers().await, ((1, 2, 0, 1), (1, 7, 7, 0)));
}
