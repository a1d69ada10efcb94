mod audience;
mod digest;

use weir_proto::weir::mesh::v1 as pb;

use super::{route, service, snapshot};

fn products() -> pb::Service {
    let version = |name: &str, weight, addresses: &[&str]| pb::VersionWeight {
        version: name.into(),
        weight,
        addresses: addresses.iter().map(ToString::to_string).collect(),
    };
    pb::Service {
        name: "products".into(),
        protocol: pb::Protocol::Grpc.into(),
        versions: vec![version("v1", 90, &["10.0.0.7:80", "[fd00::7]:80"]), version("v2", 10, &[])],
        sticky: Some(pb::Sticky { by: Some(pb::sticky::By::User(true)) }),
        ..Default::default()
    }
}

fn parent(kind: &str, name: &str, namespace: &str) -> pb::ParentRef {
    let consumer_namespace = namespace.into();
    pb::ParentRef { kind: kind.into(), name: name.into(), consumer_namespace }
}

fn instance(plain: bool) -> pb::Instance {
    pb::Instance {
        id: format!("products-v1-{plain}"),
        service: "products".into(),
        version: "v1".into(),
        address: "127.0.0.1:9".into(),
        zone: "a".into(),
        healthy: true,
        plain,
        identity: "spiffe://weir.local/ns/shop/sa/products".into(),
    }
}

fn to_products() -> pb::Route {
    pb::Route {
        name: "web".into(),
        kind: pb::route::Kind::HttpRoute.into(),
        parent_refs: vec![
            parent("Gateway", "gateway", ""),
            parent("Listener", "shop/web/https", ""),
            parent("Service", "products.shop:9090", "web"),
        ],
        hostnames: vec!["*.example.com".into()],
        rules: vec![pb::RouteRule {
            matches: vec![pb::RouteMatch {
                path_type: pb::route_match::PathType::PathPrefix.into(),
                path: "/v1/products".into(),
                method: "GET".into(),
                headers: vec![pb::NameValue {
                    name: "x-a".into(),
                    value: "b".into(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            backend_refs: vec![pb::BackendRef {
                service: "products".into(),
                version: "v2".into(),
                weight: 1,
                ..Default::default()
            }],
            request_timeout_ms: 1500,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn policy() -> pb::Policy {
    let spec = serde_json::json!({ "targetRefs": [{ "kind": "Service", "name": "products" }] });
    pb::Policy {
        kind: "BackendTrafficPolicy".into(),
        name: "quick".into(),
        spec: Some(crate::policy::value::to_struct(&spec)),
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
        instances: [false, true].map(instance).into(),
        options: Some(pb::Options {
            trace_sampling: 0.5,
            keep_escaped_slashes: true,
            deny_by_default: true,
            hide_policies: true,
            ..Default::default()
        }),
        trust_bundle: vec![vec![1, 2, 3]],
        policies: vec![policy()],
        tcp_routes: vec![tls_route()],
        listeners: vec![pb::Listener {
            id: "shop/web/https".into(),
            port: 443,
            protocol: pb::listener::Protocol::Https.into(),
            hostname: "*.example.com".into(),
            certificates: vec![pb::Certificate {
                chain: vec![b"leaf".to_vec()],
                key: b"key".to_vec(),
            }],
        }],
    };
    let model = snapshot(&message).unwrap();
    assert_eq!(pb::Snapshot::from(&model), message);
    let mut message = message;
    message.options = Some(pb::Options {
        egress: Some(pb::Egress {
            allow_by_default: true,
            hosts: vec![pb::EgressHost { host: "*.example.com".into(), ports: vec![443] }],
        }),
        tcp: Some(pb::TcpOptions {
            idle_timeout_ms: 1,
            detection_timeout_ms: 2,
            max_connections: 3,
        }),
        ..Default::default()
    });
    let model = snapshot(&message).unwrap();
    assert_eq!(pb::Snapshot::from(&model), message);
}

fn tls_route() -> pb::TcpRoute {
    pb::TcpRoute {
        name: "secure".into(),
        kind: pb::tcp_route::Kind::TlsRoute.into(),
        parent_refs: vec![pb::TcpParentRef {
            kind: "Gateway".into(),
            name: "gateway".into(),
            section_name: "tls".into(),
            port: 8443,
        }],
        hostnames: vec!["*.example.com".into()],
        rule_name: "all".into(),
        backend_refs: vec![pb::BackendRef {
            service: "products".into(),
            version: "v1".into(),
            weight: 1,
            ..Default::default()
        }],
    }
}

#[test]
fn every_violation_of_a_route_of_connections_is_named_by_its_path() {
    let mut message = tls_route();
    message.name = "A".into();
    message.parent_refs[0].port = 70_000;
    message.parent_refs.push(pb::TcpParentRef { kind: "Service".into(), ..Default::default() });
    message.hostnames = vec!["10.0.0.1".into()];
    message.backend_refs[0].weight = 0;
    let error = super::tcp_route(&message, "tcpRoutes[0]").unwrap_err();
    let fields: Vec<_> = error.0.iter().map(|v| v.field.as_str()).collect();
    let wanted =
        ["name", "parentRefs[0].port", "parentRefs[1].kind", "hostnames[0]", "backendRefs"];
    assert_eq!(fields, wanted.map(|field| format!("tcpRoutes[0].{field}")));
    message = tls_route();
    message.kind = pb::tcp_route::Kind::TcpRoute.into();
    let error = super::tcp_route(&message, "").unwrap_err().to_string();
    assert!(error.contains("hostnames: a TCPRoute cannot see names"), "{error}");

    let options = pb::Options {
        egress: Some(pb::Egress {
            allow_by_default: false,
            hosts: vec![pb::EgressHost { host: "http://a".into(), ports: vec![0, 70_000] }],
        }),
        ..Default::default()
    };
    let error = super::options(&options, "options").unwrap_err();
    let fields: Vec<_> = error.0.iter().map(|v| v.field.as_str()).collect();
    let wanted = ["hosts[0].host", "hosts[0].ports[0]", "hosts[0].ports[1]"];
    assert_eq!(fields, wanted.map(|field| format!("options.egress.{field}")));
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
fn every_wrong_address_is_named_by_its_path() {
    let mut message = products();
    let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    message.versions[0].addresses = text(&["10.0.0.7:80", "db:5432", "10.0.0.7:80"]);
    message.versions[1].addresses = text(&["0.0.0.0:80", "10.0.0.7:0", "10.0.0.7:80"]);
    let error = service(&message, "services[0]").unwrap_err();
    let fields: Vec<_> = error.0.iter().map(|v| v.field.as_str()).collect();
    let at = |version: usize, i: usize| format!("services[0].versions[{version}].addresses[{i}]");
    assert_eq!(fields, [at(0, 1), at(0, 2), at(1, 0), at(1, 1), at(1, 2)]);
    let said = |wanted: &str| error.0.iter().any(|v| v.description.contains(wanted));
    assert!(said("\"db:5432\" is not `ip:port`") && said("has port 0"), "{error}");
    assert!(said("0.0.0.0:80 cannot be connected to"), "{error}");
    assert!(said("10.0.0.7:80 is an address of v1 already"), "{error}");

    message.versions[0].addresses = (1..=1001).map(|port| format!("10.0.0.7:{port}")).collect();
    message.versions[1].addresses.clear();
    let error = service(&message, "").unwrap_err().to_string();
    assert_eq!(error, "versions[0].addresses: v1 has more than 1000 addresses");
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

#[test]
fn an_invalid_backend_need_not_exist() {
    let mut route = to_products();
    route.rules[0].backend_refs[0].invalid = "no Service products".into();
    let message = pb::Snapshot { routes: vec![route], ..Default::default() };
    let model = snapshot(&message).unwrap();
    let backend = &model.routes[0].rules[0].backends[0];
    assert_eq!(backend.invalid.as_deref(), Some("no Service products"));
}

#[test]
fn filters_that_cannot_be_are_named_by_their_paths() {
    let mut message = to_products();
    let filter = |filter| pb::RouteFilter { filter: Some(filter) };
    use pb::route_filter::Filter;
    let rewrite = pb::UrlRewrite { hostname: "a.test".into(), path: None };
    let redirect = pb::RequestRedirect::default();
    message.rules[0].filters = vec![
        filter(Filter::UrlRewrite(rewrite.clone())),
        filter(Filter::UrlRewrite(rewrite)),
        filter(Filter::RequestRedirect(redirect.clone())),
    ];
    let error = route(&message, "").unwrap_err();
    let fields: Vec<_> = error.0.iter().map(|v| v.field.as_str()).collect();
    let at = |i| format!("rules[0].filters[{i}]");
    assert_eq!(fields, [at(0), at(1), at(1), at(2)], "{error}");

    message.rules[0].filters = vec![filter(Filter::RequestRedirect(redirect))];
    message.rules[0].backend_refs.clear();
    assert!(route(&message, "").is_ok(), "it answers in place of backends");
    message.rules[0].filters.clear();
    let error = route(&message, "").unwrap_err().to_string();
    assert_eq!(error, "rules[0].backendRefs: is empty; name at least one backend");
}
