use weir_mesh::model::Transport;
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::*;
use crate::snapshot;
use crate::store::{Edit, Object, ObjectKey};

fn instance(service: &str, version: &str, port: u16, healthy: bool) -> Instance {
    Instance {
        id: format!("consul:n/{service}-{port}").into(),
        service: service.parse().unwrap(),
        version: version.parse().unwrap(),
        address: ([10, 0, 0, 1], port).into(),
        transport: Transport::Plain,
        zone: "".into(),
        healthy,
        identity: None,
    }
}

fn found(service: &str, versions: &[(&str, bool)]) -> Discovered {
    let instances = versions.iter().zip(1..);
    let instances = instances.map(|((v, healthy), port)| instance(service, v, port, *healthy));
    let instances = instances.collect();
    let found = Found { protocol: Protocol::Http1, instances, missed: BTreeSet::new() };
    Discovered { services: [(service.parse().unwrap(), found)].into() }
}

fn ask(desired: &mut Desired, service: &str, weights: &[(&str, i32)]) {
    let versions = weights.iter().map(|(version, weight)| pb::VersionWeight {
        version: (*version).to_owned(),
        weight: *weight,
        addresses: Vec::new(),
    });
    let message = pb::Service {
        name: service.to_owned(),
        protocol: pb::Protocol::Grpc.into(),
        versions: versions.collect(),
        ..Default::default()
    };
    let value = wire::service(&message, "").unwrap();
    let key = ObjectKey::Service(value.name.clone());
    desired.set(&Edit { key, after: Some(Object::Service(Arc::new(value))) }, 1);
}

fn route(desired: &mut Desired, service: &str, version: &str) {
    let message = pb::Route {
        name: "web".into(),
        parent_refs: vec![pb::ParentRef {
            kind: "Gateway".into(),
            name: "gateway".into(),
            ..Default::default()
        }],
        rules: vec![pb::RouteRule {
            backend_refs: vec![pb::BackendRef {
                service: service.into(),
                version: version.into(),
                weight: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let value = Arc::new(wire::route(&message, "").unwrap());
    desired
        .set(&Edit { key: ObjectKey::Route("web".into()), after: Some(Object::Route(value)) }, 2);
}

fn weights(desired: &Desired, service: &str) -> Option<String> {
    let held = desired.services.get(service)?;
    let versions = held.value.split.versions().iter();
    let words: Vec<_> = versions.map(|(v, w)| format!("{v}={}", w.get())).collect();
    Some(words.join(" "))
}

fn builds(desired: &Desired) -> bool {
    snapshot::build(desired, Vec::new(), &[], &"weir.local".into(), 1).is_ok()
}

#[test]
fn a_service_that_is_only_found_is_split_by_what_is_healthy() {
    let mut desired = Desired::default();
    let there = [("v10", true), ("v2", true), ("v2", true), ("v3", false)];
    desired.discover(found("web", &there));
    assert_eq!(weights(&desired, "web").unwrap(), "v2=2 v3=0 v10=1");
    let name = "web".parse().unwrap();
    assert_eq!((desired.sources(&name), desired.services[&name].revision), (vec!["consul"], 0));
    assert_eq!(desired.get(&ObjectKey::Service(name)), None, "nobody asked for it");
    desired.discover(found("web", &[("v1", false), ("v2", false)]));
    assert_eq!(weights(&desired, "web").unwrap(), "v1=1 v2=1", "none is better than the other");
    desired.discover(Discovered::default());
    assert_eq!(weights(&desired, "web"), None);
}

#[test]
fn what_was_asked_for_stands_and_what_is_new_gets_nothing() {
    let mut desired = Desired::default();
    desired.discover(found("web", &[("v1", true), ("v2", true)]));
    ask(&mut desired, "web", &[("v1", 90), ("v0", 10)]);
    assert_eq!(weights(&desired, "web").unwrap(), "v1=90 v0=10 v2=0");
    let name: ServiceName = "web".parse().unwrap();
    assert_eq!(desired.sources(&name), ["mesh", "consul"]);
    assert_eq!(desired.services[&name].value.protocol, Protocol::Grpc);
    assert_eq!(desired.with_instances(Vec::new()).len(), 2);
    let key = ObjectKey::Service(name);
    desired.set(&Edit { key, after: None }, 3);
    assert_eq!(weights(&desired, "web").unwrap(), "v1=1 v2=1", "it is as it is found");
    assert_eq!(weights(&desired.emptied(), "web").unwrap(), "v1=1 v2=1");
}

#[test]
fn what_routes_name_stays_when_it_is_gone_there() {
    let mut desired = Desired::default();
    desired.discover(found("web", &[("v1", true), ("v2", true)]));
    route(&mut desired, "web", "v2");
    assert!(builds(&desired));
    desired.discover(found("web", &[("v1", true)]));
    assert_eq!(weights(&desired, "web").unwrap(), "v1=1 v2=0");
    assert!(builds(&desired));
    desired.discover(Discovered::default());
    assert_eq!(weights(&desired, "web").unwrap(), "v2=1");
    assert!(builds(&desired), "one service must not keep all others back");
    let mut after = desired.clone();
    route(&mut after, "nobody", "");
    let errors = snapshot::introduced(&desired, &after);
    assert_eq!(errors.len(), 1, "a new route must name what is there: {errors:?}");
}

#[test]
fn a_process_that_is_known_twice_counts_once() {
    let mut desired = Desired::default();
    desired.discover(found("web", &[("v1", true), ("v1", true)]));
    let mut registered = instance("web", "v1", 1, true);
    registered.id = "web-v1-1".into();
    registered.transport = Transport::Mesh;
    let all = desired.with_instances(vec![registered]);
    let ids: Vec<_> = all.iter().map(|i| &*i.id).collect();
    assert_eq!(ids, ["web-v1-1", "consul:n/web-2"], "its router knows better");
}

#[test]
fn versions_are_in_the_order_that_people_count() {
    let mut names = ["v10", "v9", "v1-2", "v1", "default", "v1-10", "v009"];
    names.sort_by(|a, b| natural(a, b));
    assert_eq!(names, ["default", "v1", "v1-2", "v1-10", "v009", "v9", "v10"]);
}
