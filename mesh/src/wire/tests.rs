use weir_proto::weir::mesh::v1 as pb;

use super::{route, service, snapshot};

fn products() -> pb::Service {
    let version = |name: &str, weight| pb::VersionWeight { version: name.into(), weight };
    pb::Service {
        name: "products".into(),
        protocol: pb::Protocol::Grpc.into(),
        versions: vec![version("v1", 90), version("v2", 10)],
        sticky: Some(pb::Sticky { by: Some(pb::sticky::By::User(true)) }),
        ..Default::default()
    }
}

fn to_products() -> pb::Route {
    pb::Route {
        name: "web".into(),
        kind: pb::route::Kind::HttpRoute.into(),
        parent_refs: vec![pb::ParentRef { kind: "Gateway".into(), name: "gateway".into() }],
        hostnames: vec!["*.example.com".into()],
        rules: vec![pb::RouteRule {
            matches: vec![pb::RouteMatch {
                path_type: pb::route_match::PathType::PathPrefix.into(),
                path: "/v1/products".into(),
                method: "GET".into(),
                headers: vec![pb::NameValue { name: "x-a".into(), value: "b".into() }],
                query_params: vec![],
            }],
            backend_refs: vec![pb::BackendRef {
                service: "products".into(),
                version: "v2".into(),
                weight: 1,
            }],
            request_timeout_ms: 1500,
            ..Default::default()
        }],
    }
}

#[test]
fn a_snapshot_survives_the_round_trip() {
    let message = pb::Snapshot {
        sequence: 7,
        revision: 3,
        trust_domain: "weir.local".into(),
        services: vec![products()],
        routes: vec![to_products()],
        instances: vec![pb::Instance {
            id: "products-v1-0".into(),
            service: "products".into(),
            version: "v1".into(),
            address: "127.0.0.1:9".into(),
            zone: "a".into(),
            healthy: true,
        }],
        options: Some(pb::Options { trace_sampling: 0.5, ..Default::default() }),
        trust_bundle: vec![vec![1, 2, 3]],
    };
    let model = snapshot(&message).unwrap();
    assert_eq!(pb::Snapshot::from(&model), message);
}

#[test]
fn every_violation_is_named_by_its_path() {
    let mut message = to_products();
    message.hostnames = vec!["10.0.0.1".into()];
    message.rules[0].backend_refs[0].weight = -5;
    message.rules[0].matches[0].path = "v1".into();
    let error = route(&message, "routes[0]").unwrap_err().to_string();
    assert!(error.contains("routes[0].rules[0].backendRefs[0].weight: -5 is below 0"), "{error}");
    assert!(error.contains("routes[0].hostnames[0]: "), "{error}");
    assert!(error.contains("routes[0].rules[0].matches[0].path: "), "{error}");
}

#[test]
fn weights_must_leave_somewhere_to_go() {
    let mut message = products();
    message.versions.iter_mut().for_each(|v| v.weight = 0);
    let error = service(&message, "").unwrap_err().to_string();
    assert_eq!(error, "versions: all weights are 0; at least one must be above 0");
    message.versions[1].version = "v1".into();
    message.versions[1].weight = 1;
    let error = service(&message, "").unwrap_err().to_string();
    assert_eq!(error, "versions: names version v1 twice");
}

#[test]
fn a_backend_must_be_a_service_of_the_snapshot() {
    let message = pb::Snapshot { routes: vec![to_products()], ..Default::default() };
    let error = snapshot(&message).unwrap_err().to_string();
    assert_eq!(error, "routes[0].rules[0].backendRefs[0].service: no service \"products\"");
}
