//! Documents as people write them, and the mistakes they make.

mod annotations;
mod filters;
mod laws;
mod schema;

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{KnownServices, parse_route, to_document};
use crate::model::{
    BackendRef, HeaderModifier, HostPattern, Parent, PathMatch, Pattern, Route, RouteFilter,
    RouteKind, RouteMatch, RouteRule, ValueMatch, Weight,
};

fn services() -> KnownServices {
    let versions = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect();
    [
        ("auth", versions(&["v1"])),
        ("products", versions(&["v1", "v2"])),
        ("products-v2", versions(&["v1"])),
        ("users", versions(&["v1", "a-b"])),
        ("users-a", versions(&["b"])),
    ]
    .into_iter()
    .map(|(name, versions)| (name.parse().unwrap(), versions))
    .collect()
}

fn route_with(spec: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": spec,
    })
}

/// A route that is right, but for its one rule.
fn rule_with(rule: &Value) -> Value {
    route_with(&json!({"parentRefs": [{"name": "gateway"}], "rules": [rule]}))
}

fn refused(document: &Value) -> Vec<String> {
    let invalid = parse_route(document, "routes[0]", &services()).unwrap_err();
    invalid.0.iter().map(ToString::to_string).collect()
}

/// What a rule is refused for, by paths within it.
fn refused_rule(rule: &Value) -> Vec<String> {
    let within = |error: String| error.replace("routes[0].spec.rules[0].", "");
    refused(&rule_with(rule)).into_iter().map(within).collect()
}

fn backend(service: &str, version: Option<&str>, weight: i64) -> BackendRef {
    let version = version.map(|version| version.parse().unwrap());
    BackendRef::new(service.parse().unwrap(), version, Weight::try_from(weight).unwrap())
}

#[test]
fn an_http_route_with_everything() {
    let document = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web.shop", "namespace": "default", "labels": {"a": "b"}},
        "spec": {
            "parentRefs": [
                {"name": "gateway", "group": "gateway.networking.k8s.io", "kind": "Gateway"},
                {"name": "products", "group": "", "kind": "Service", "port": 80},
            ],
            "hostnames": ["shop.test", "*.shop.test"],
            "rules": [{
                "name": "canary",
                "matches": [
                    {
                        "path": {"type": "Exact", "value": "/v1/x"},
                        "method": "POST",
                        "headers": [{"type": "Exact", "name": "X-Beta", "value": "yes"}],
                        "queryParams": [{"name": "q", "value": "1"}],
                    },
                    {"path": {"value": "/v2/"}},
                    {},
                ],
                "filters": [
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": {
                        "set": [{"name": "a", "value": "1"}], "remove": ["b"]}},
                    {"type": "ResponseHeaderModifier", "responseHeaderModifier": {
                        "add": [{"name": "c", "value": "2"}]}},
                ],
                "backendRefs": [
                    {"name": "products", "kind": "Service", "group": "", "port": 80, "weight": 9},
                    {"name": "products-v1", "namespace": "default"},
                ],
                "timeouts": {"request": "1m30s"},
            }],
        },
    });
    let header = |name: &'static str, value: &'static str| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let expected = Route {
        name: "web.shop".into(),
        kind: RouteKind::Http,
        parents: vec![Parent::Gateway, Parent::Service("products".parse().unwrap())],
        hostnames: vec![
            HostPattern::Exact("shop.test".into()),
            HostPattern::Suffix(".shop.test".into()),
        ],
        rules: vec![RouteRule {
            name: "canary".into(),
            matches: vec![
                RouteMatch {
                    path: PathMatch::Exact("/v1/x".into()),
                    method: Some(Method::POST),
                    headers: vec![(
                        HeaderName::from_static("x-beta"),
                        ValueMatch::Exact("yes".into()),
                    )],
                    query: vec![("q".into(), ValueMatch::Exact("1".into()))],
                },
                RouteMatch { path: PathMatch::Prefix("/v2".into()), ..RouteMatch::any() },
                RouteMatch::any(),
            ],
            filters: vec![
                RouteFilter::RequestHeaderModifier(HeaderModifier {
                    set: vec![header("a", "1")],
                    remove: vec![HeaderName::from_static("b")],
                    ..HeaderModifier::default()
                }),
                RouteFilter::ResponseHeaderModifier(HeaderModifier {
                    add: vec![header("c", "2")],
                    ..HeaderModifier::default()
                }),
            ],
            backends: vec![backend("products", None, 9), backend("products", Some("v1"), 1)],
            timeout: Some(Duration::from_secs(90)),
            backend_timeout: None,
            retry: None,
            session: None,
        }],
        force_version: None,
        pin_versions: false,
    };
    assert_eq!(parse_route(&document, "", &services()), Ok(expected));
}

#[test]
fn methods_of_a_grpc_route_are_paths() {
    let mut document = rule_with(&json!({
        "matches": [
            {"method": {"service": "weir.users.v1.UsersService", "method": "GetMe"}},
            {"method": {"type": "Exact", "service": "weir.users.v1.UsersService"}},
            {"headers": [{"name": "a", "value": "b"}]},
            {"method": {"method": "GetMe"}},
            {"method": {"type": "RegularExpression", "service": "weir\\..*", "method": "Get.*"}},
            {"method": {"type": "RegularExpression", "method": "Get.*"}},
        ],
        "backendRefs": [{"name": "users"}],
    }));
    document["kind"] = "GRPCRoute".into();
    let route = parse_route(&document, "", &services()).unwrap();
    assert_eq!(route.kind, RouteKind::Grpc);
    let paths: Vec<&PathMatch> = route.rules[0].matches.iter().map(|m| &m.path).collect();
    assert_eq!(
        paths,
        [
            &PathMatch::Exact("/weir.users.v1.UsersService/GetMe".into()),
            &PathMatch::Prefix("/weir.users.v1.UsersService".into()),
            &PathMatch::any(),
            &PathMatch::GrpcMethod("GetMe".into()),
            &PathMatch::GrpcRegex {
                service: Pattern::parse("weir\\..*").ok(),
                method: Pattern::parse("Get.*").ok(),
            },
            &PathMatch::GrpcRegex { service: None, method: Pattern::parse("Get.*").ok() },
        ]
    );
    document["spec"]["rules"][0]["matches"] = json!([
        {"method": {}},
        {"method": {"type": "Regex", "service": "a/b", "method": "1"}},
        {"method": {"type": "RegularExpression", "service": "(", "method": ""}},
        {"path": {"value": "/"}},
    ]);
    assert_eq!(
        refused(&document),
        [
            "routes[0].spec.rules[0].matches[0].method: names neither a service nor a method; \
             leave it out to match all",
            "routes[0].spec.rules[0].matches[1].method.type: \"Regex\" is not known; use Exact or \
             RegularExpression",
            "routes[0].spec.rules[0].matches[1].method.service: \"a/b\" is no gRPC service, such \
             as weir.users.v1.UsersService",
            "routes[0].spec.rules[0].matches[1].method.method: \"1\" is no gRPC method, such as \
             GetMe",
            "routes[0].spec.rules[0].matches[2].method.service: \"(\" is not a regular expression \
             (RE2 syntax): found open group without closing ')'",
            "routes[0].spec.rules[0].matches[2].method.method: is empty; write a regular \
             expression (RE2 syntax)",
            "routes[0].spec.rules[0].matches[3].path: is not known; there are: method, headers",
        ]
    );
}

#[test]
fn a_name_means_a_service_before_it_means_a_version() {
    let services = services();
    let resolve = |name: &str| {
        services.resolve(name).map(|(service, version)| {
            format!("{service}/{}", version.map(|v| v.to_string()).unwrap_or_default())
        })
    };
    assert_eq!(resolve("products"), Ok("products/".into()));
    assert_eq!(resolve("products-v1"), Ok("products/v1".into()));
    assert_eq!(resolve("products-v2"), Ok("products-v2/".into()));
    assert_eq!(resolve("products-v2-v1"), Ok("products-v2/v1".into()));
    assert_eq!(resolve("users-a-b"), Ok("users-a/b".into()), "the longest service");
    assert_eq!(
        resolve("products-v3"),
        Err("service products has no version \"v3\"; there are: v1, v2".into())
    );
    assert_eq!(
        resolve("produtcs"),
        Err("no service \"produtcs\"; there are: auth, products, products-v2, users, users-a \
             (a version is named as products-v1)"
            .into())
    );
    assert_eq!(
        KnownServices::default().resolve("a"),
        Err("no service \"a\"; there are none".into())
    );
}

#[test]
fn all_violations_are_reported_at_once() {
    let document = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "HTTPRoute",
        "metadata": {"name": "Web", "namespace": "shop", "nmae": 1},
        "sepc": {},
        "status": {},
        "spec": {
            "parentRefs": [
                {"kind": "Gateway", "name": "other", "sectionName": "https"},
                {"kind": "Service", "name": "produtcs", "group": "apps", "port": 0},
                {"kind": "service", "name": "users"},
                7,
            ],
            "hostnames": ["10.0.0.1", 5],
            "rules": [
                {"backendRefs": [{"name": "users"}], "cors": {}, "name": true},
                {},
            ],
        },
    });
    let there_are = "there are: auth, products, products-v2, users, users-a";
    assert_eq!(
        refused(&document),
        [
            "routes[0].sepc: is not known; did you mean spec?".to_owned(),
            "routes[0].status: is not supported yet".into(),
            "routes[0].apiVersion: \"gateway.networking.k8s.io/v1beta1\" is not supported; use \
             gateway.networking.k8s.io/v1"
                .into(),
            "routes[0].metadata.nmae: is not known; did you mean name?".into(),
            "routes[0].metadata.namespace: \"shop\" is not supported yet; use default, or leave \
             it out"
                .into(),
            "routes[0].metadata.name: \"Web\" is not a DNS subdomain name (RFC 1123), such as web \
             or a.web"
                .into(),
            "routes[0].spec.parentRefs[0].sectionName: is not supported yet".into(),
            "routes[0].spec.parentRefs[0].name: no gateway \"other\"; a mesh has one, which is \
             called gateway"
                .into(),
            "routes[0].spec.parentRefs[1].port: 0 is not from 1 to 65535".into(),
            format!("routes[0].spec.parentRefs[1].name: no service \"produtcs\"; {there_are}"),
            "routes[0].spec.parentRefs[1].group: \"apps\" is not the group of this kind; use \"\""
                .into(),
            "routes[0].spec.parentRefs[2].kind: \"service\" is not supported; did you mean \
             Service?"
                .into(),
            "routes[0].spec.parentRefs[3]: must be an object, not a number".into(),
            "routes[0].spec.hostnames[0]: \"10.0.0.1\" is not a host name; use \
             `name.example.com`, or `*.example.com` for a wildcard"
                .into(),
            "routes[0].spec.hostnames[1]: must be text, not a number; put it in quotes".into(),
            "routes[0].spec.rules[0].cors: is not known; there are: name, matches, filters, \
             backendRefs, timeouts, retry, sessionPersistence"
                .into(),
            "routes[0].spec.rules[0].name: must be text, not true or false; put it in quotes"
                .into(),
            "routes[0].spec.rules[1].backendRefs: is empty; name at least one backend".into(),
        ]
    );
}

#[test]
fn kinds_and_missing_parts() {
    assert_eq!(
        refused(&json!({})),
        [
            "routes[0].apiVersion: is missing",
            "routes[0].kind: is missing",
            "routes[0].metadata: is missing",
            "routes[0].spec: is missing",
        ]
    );
    assert_eq!(refused(&json!([])), ["routes[0]: must be an object, not a list"]);
    let mut document = route_with(&json!({}));
    assert_eq!(
        refused(&document),
        [
            "routes[0].spec.parentRefs: is empty; name a Gateway or a Service, or the route would \
             do nothing",
            "routes[0].spec.rules: is empty; a route without rules does nothing",
        ]
    );
    document["spec"]["parentRefs"] = json!([{"name": "gateway"}]);
    for (kind, error) in [
        ("UDPRoute", "UDPRoute is not supported yet"),
        ("TCPRoute", "TCPRoute is a route of connections, not of requests"),
        ("HttpRoute", "\"HttpRoute\" is no kind of route; did you mean HTTPRoute?"),
        (
            "Service",
            "\"Service\" is no kind of route; use HTTPRoute, GRPCRoute, TCPRoute or TLSRoute",
        ),
    ] {
        document["kind"] = kind.into();
        assert_eq!(refused(&document), [format!("routes[0].kind: {error}")]);
    }
}

#[test]
fn weights() {
    let weights = |weights: &[Value]| {
        let refs: Vec<Value> =
            weights.iter().map(|weight| json!({"name": "users", "weight": weight})).collect();
        refused_rule(&json!({ "backendRefs": refs }))
    };
    assert_eq!(weights(&[json!(-5)]), ["backendRefs[0].weight: -5 is below 0"]);
    assert_eq!(
        weights(&[json!(1), json!(1_000_001), json!(u64::MAX)]),
        [
            "backendRefs[1].weight: 1000001 is above 1000000",
            "backendRefs[2].weight: 9223372036854775807 is above 1000000",
        ]
    );
    let one_is_enough = json!({"backendRefs": [
        {"name": "users", "weight": 0},
        {"name": "auth", "weight": 1},
    ]});
    assert!(parse_route(&rule_with(&one_is_enough), "", &services()).is_ok());
    assert_eq!(
        weights(&[json!(0), json!(0)]),
        ["backendRefs: all weights are 0; at least one must be above 0"]
    );
    assert_eq!(
        weights(&[json!(1.5), json!("1")]),
        [
            "backendRefs[0].weight: 1.5 is not a whole number",
            "backendRefs[1].weight: must be a number, not text",
        ]
    );
    assert_eq!(
        refused_rule(&json!({"backendRefs": [{"name": "s3", "kind": "Bucket", "group": "aws"}]})),
        [
            "backendRefs[0].group: \"aws\" is not supported yet; use \"\"",
            "backendRefs[0].kind: \"Bucket\" is not supported yet; use \"Service\"",
            "backendRefs[0].name: no service \"s3\"; there are: auth, products, products-v2, \
             users, users-a (a version is named as auth-v1)",
        ]
    );
}

#[test]
fn matches_that_cannot_be() {
    let with = |matched: Value| {
        refused_rule(&json!({"matches": [matched], "backendRefs": [{"name": "users"}]}))
    };
    for (path, why) in [
        ("v1", "does not begin with '/'"),
        ("/a//b", "has an empty segment or a dot segment"),
        ("/a/../b", "has an empty segment or a dot segment"),
        ("/a/..", "ends in a dot segment"),
        ("/a?b=c", "has a query or a fragment; match those by queryParams"),
    ] {
        let errors = with(json!({"path": {"value": path}}));
        assert_eq!(errors, [format!("matches[0].path.value: {path:?} {why}")]);
    }
    assert_eq!(
        with(json!({"method": "get"})),
        ["matches[0].method: \"get\" is not a method; did you mean GET?"]
    );
    assert_eq!(
        with(json!({"headers": [
            {"name": "a b", "value": "c"},
            {"name": "X", "value": "\n"},
            {"name": "y", "value": "1"},
            {"name": "Y", "value": "2"},
            {"name": "", "valeu": "2"},
        ]})),
        [
            "matches[0].headers[0].name: \"a b\" is no header name",
            "matches[0].headers[1].value: has a character no header may hold",
            "matches[0].headers[3].name: y is here twice",
            "matches[0].headers[4].valeu: is not known; did you mean value?",
            "matches[0].headers[4].value: is missing",
            "matches[0].headers[4].name: is empty",
        ]
    );
}

#[test]
fn a_grpc_route_that_no_document_can_say_is_written_as_an_http_route() {
    let path = |path| RouteMatch { path, ..RouteMatch::any() };
    for matched in [
        RouteMatch { method: Some(Method::GET), ..RouteMatch::any() },
        RouteMatch {
            query: vec![("a".into(), ValueMatch::Exact("b".into()))],
            ..RouteMatch::any()
        },
        path(PathMatch::Exact("/a".into())),
        path(PathMatch::Exact("/a/b/c".into())),
        path(PathMatch::Exact("/a-b/c".into())),
        path(PathMatch::Prefix("/a/b".into())),
        path(PathMatch::Regex(Pattern::parse("/a/.*").unwrap())),
    ] {
        let rule =
            RouteRule { matches: vec![matched], ..RouteRule::to(vec![backend("users", None, 1)]) };
        let route = Route {
            name: "web".into(),
            kind: RouteKind::Grpc,
            parents: vec![Parent::Gateway],
            hostnames: Vec::new(),
            rules: vec![rule],
            force_version: None,
            pin_versions: false,
        };
        let document = to_document(&route);
        assert_eq!(document["kind"], "HTTPRoute", "{document}");
        let again = parse_route(&document, "", &services()).unwrap();
        assert_eq!(again, Route { kind: RouteKind::Http, ..route });
    }
}
