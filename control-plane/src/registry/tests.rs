use std::time::Duration;

use tokio::time::Instant;

use super::{LOST_GRACE, Presence, RESTORED_GRACE, Refusal, Registration, Registry, Role};

fn router(id: &str, service: &str, port: u16) -> Registration {
    let instance = weir_mesh::model::Instance {
        id: format!("{id}-app").as_str().into(),
        service: service.parse().unwrap(),
        version: "v1".parse().unwrap(),
        address: ([127, 0, 0, 1], port).into(),
        transport: weir_mesh::model::Transport::Mesh,
        zone: "".into(),
        healthy: true,
        identity: None,
    };
    Registration {
        id: id.into(),
        role: Role::Sidecar,
        service: service.parse().unwrap(),
        instance: Some(instance),
        admin_address: "".into(),
        certificate_not_after: 0,
    }
}

fn later(grace: Duration) -> Instant {
    Instant::now() + grace
}

#[test]
fn a_router_that_leaves_is_gone_and_one_that_is_lost_has_a_grace() {
    let registry = Registry::default();
    let leaving = registry.register(router("a", "products", 1)).unwrap();
    let lost = registry.register(router("b", "products", 2)).unwrap();
    registry.leave(&leaving);
    registry.lost(&lost);
    assert_eq!(registry.instances().len(), 1);
    registry.expire(later(LOST_GRACE - Duration::from_secs(1)));
    assert_eq!(registry.instances().len(), 1);
    registry.expire(later(LOST_GRACE));
    assert!(registry.instances().is_empty());
}

#[test]
fn a_newer_stream_speaks_for_the_router() {
    let registry = Registry::default();
    let old = registry.register(router("a", "products", 1)).unwrap();
    let new = registry.register(router("a", "products", 1)).unwrap();
    registry.leave(&old);
    registry.lost(&old);
    registry.health(&old, false, None);
    assert!(registry.instances()[0].healthy);
    registry.health(&new, false, None);
    assert!(!registry.instances()[0].healthy, "unhealthy ones stay, marked");
}

#[test]
fn another_service_cannot_take_a_routers_id() {
    let registry = Registry::default();
    registry.register(router("a", "products", 1)).unwrap();
    let error = registry.register(router("a", "users", 2)).err().unwrap();
    assert!(error.to_string().contains("products"), "{error}");
}

#[test]
fn a_lost_instance_is_gone_when_its_address_is_taken() {
    let registry = Registry::default();
    let lost = registry.register(router("a", "products", 1)).unwrap();
    registry.lost(&lost);
    registry.register(router("b", "products", 1)).unwrap();
    let ids: Vec<_> = registry.instances().iter().map(|i| i.id.to_string()).collect();
    assert_eq!(ids, ["b-app"]);
}

#[test]
fn after_a_restart_routers_are_known_until_they_had_time_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(super::SAVED_FILE);
    let registry = Registry::default();
    registry.register(router("a", "products", 1)).unwrap();
    registry.register(router("b", "products", 2)).unwrap();
    super::save(&registry, &path).unwrap();

    let registry = Registry::restore(super::load(&path).unwrap());
    assert_eq!(registry.instances().len(), 2);
    assert!(registry.routers().iter().all(|r| r.presence == Presence::Restored && r.awaited()));
    registry.register(router("a", "products", 1)).unwrap();
    registry.expire(later(RESTORED_GRACE));
    assert_eq!(registry.instances().len(), 1);

    std::fs::write(&path, b"\xff\xff\xff").unwrap();
    assert!(super::load(&path).unwrap().is_empty(), "a damaged file is no reason not to start");
}

#[test]
fn a_router_that_was_told_to_come_back_is_awaited_and_one_that_was_lost_not() {
    let registry = Registry::default();
    let deferred = registry.register(router("a", "products", 1)).unwrap();
    let lost = registry.register(router("b", "products", 2)).unwrap();
    registry.applied(&deferred, 5, 2, 10);
    registry.applied(&lost, 5, 2, 10);
    registry.deferred(&deferred);
    registry.lost(&lost);
    let awaited: Vec<_> = registry.routers().iter().map(|r| (r.awaited(), r.told())).collect();
    assert_eq!(awaited, [(true, true), (false, true)]);
    // A rollout waits for whoever may serve by old weights.
    let spread = |revision| crate::converge::now(&registry, revision);
    assert_eq!((spread(2).routers, spread(2).applied), (2, 2));
    let pending: Vec<_> = spread(3).pending.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(pending, ["a", "b"]);
    registry.expire(later(LOST_GRACE));
    assert_eq!(registry.routers().len(), 1, "one that broke is forgotten soon");
    registry.expire(later(RESTORED_GRACE));
    assert!(registry.routers().is_empty());
}

#[test]
fn an_answer_to_an_older_snapshot_changes_nothing() {
    let registry = Registry::default();
    let ticket = registry.register(router("a", "products", 1)).unwrap();
    let refuse = |sequence| {
        let refusal = Refusal { sequence, revision: 1, reason: "no".into() };
        registry.refused(&ticket, refusal);
    };
    registry.applied(&ticket, 5, 2, 10);
    registry.applied(&ticket, 4, 1, 10);
    refuse(3);
    let acks = registry.routers().remove(0).acks;
    assert_eq!((acks.sequence, acks.revision, acks.refusal.is_some()), (5, 2, false));
    assert!(acks.reached(2).is_some() && acks.reached(3).is_none());
    refuse(6);
    assert!(registry.routers()[0].acks.refusal.is_some());
    registry.applied(&ticket, 7, 3, 10);
    assert!(registry.routers()[0].acks.refusal.is_none(), "it got over it");
}
