//! What holds for every route and every document.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{backend, rule_with, services};
use crate::gateway_api::{METHODS, parse_route, to_document};
use crate::model::{
    HeaderModifier, HostPattern, Parent, PathMatch, Route, RouteFilter, RouteKind, RouteMatch,
    RouteRule,
};

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    ("[a-z][a-z0-9-]{0,8}", "[ -~]{0,8}")
        .prop_map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(&value).unwrap()))
}

/// Headers, each once.
fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    prop::collection::vec(header(), 0..3).prop_map(|mut headers| {
        headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        headers.dedup_by(|a, b| a.0 == b.0);
        headers
    })
}

fn matched(kind: RouteKind) -> BoxedStrategy<RouteMatch> {
    match kind {
        RouteKind::Http => {
            let path = prop_oneof![
                "(/[a-z:]{1,5}){1,3}/?".prop_map(|p| PathMatch::Exact(p.into())),
                "(/[a-z:]{1,5}){0,3}".prop_map(|p| PathMatch::Prefix(p.into())),
            ];
            let method = prop::option::of(prop::sample::select(METHODS.to_vec()));
            let query = prop::collection::btree_map("\\PC{1,5}", "\\PC{0,5}", 0..3);
            (path, method, headers(), query)
                .prop_map(|(path, method, headers, query)| RouteMatch {
                    path,
                    method,
                    headers,
                    query: query.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
                })
                .boxed()
        }
        RouteKind::Grpc => {
            let path = prop_oneof![
                "/[a-z]{1,4}(\\.[A-Z_][a-z1]{0,4}){0,2}/[A-Z][a-z_0-9]{0,5}"
                    .prop_map(|p| PathMatch::Exact(p.into())),
                "(/[a-z]{1,4}(\\.[A-Z_][a-z1]{0,4}){0,2})?"
                    .prop_map(|p| PathMatch::Prefix(p.into())),
            ];
            (path, headers())
                .prop_map(|(path, headers)| RouteMatch { path, headers, ..RouteMatch::any() })
                .boxed()
        }
    }
}

prop_compose! {
    fn modifier()(
        set in headers(),
        add in headers(),
        remove in prop::collection::vec(header(), 0..3),
    ) -> HeaderModifier {
        HeaderModifier { set, add, remove: remove.into_iter().map(|(name, _)| name).collect() }
    }
}

fn filter() -> impl Strategy<Value = RouteFilter> {
    prop_oneof![
        modifier().prop_map(RouteFilter::RequestHeaderModifier),
        modifier().prop_map(RouteFilter::ResponseHeaderModifier),
    ]
}

prop_compose! {
    fn rule(kind: RouteKind)(
        name in "[a-z]{0,5}",
        matches in prop::collection::vec(matched(kind), 1..3),
        filters in prop::collection::vec(filter(), 0..3),
        backends in prop::collection::vec(
            (prop::sample::select(vec![
                ("auth", None), ("auth", Some("v1")), ("products", Some("v1")), ("users", None),
            ]), 1i64..=1_000_000), 1..3),
        timeout in prop::option::of(1u32..),
    ) -> RouteRule {
        let backend = |((service, version), weight): (_, i64)| backend(service, version, weight);
        RouteRule {
            name: name.into(),
            matches,
            filters,
            backends: backends.into_iter().map(backend).collect(),
            timeout: timeout.map(|ms| Duration::from_millis(ms.into())),
        }
    }
}

prop_compose! {
    fn route()(kind in prop::sample::select(vec![RouteKind::Http, RouteKind::Grpc]))(
        name in "[a-z]{1,5}(\\.[a-z0-9]{1,3})?",
        rules in prop::collection::vec(rule(kind), 1..3),
        parents in prop::collection::vec(prop_oneof![
            Just(Parent::Gateway),
            Just(Parent::Service("users".parse().unwrap())),
        ], 1..3),
        hostnames in prop::collection::vec("(\\*\\.)?[a-z]{1,5}\\.test", 0..3),
        kind in Just(kind),
    ) -> Route {
        let hostnames = hostnames.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        Route { name: name.into(), kind, parents, hostnames, rules }
    }
}

/// Any JSON, with a taste for the fields of routes.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        Just(json!("HTTPRoute")),
        Just(json!("RequestHeaderModifier")),
    ];
    let field = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "parentRefs",
        "hostnames",
        "rules",
        "matches",
        "path",
        "headers",
        "queryParams",
        "filters",
        "backendRefs",
        "timeouts",
        "weight",
        "type",
        "name",
        "value",
        "requestHeaderModifier",
        "set",
        "request",
        "other",
    ]);
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map(field.clone(), inner, 0..6).prop_map(|map| {
                Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(route in route()) {
        let document = to_document(&route);
        prop_assert_eq!(parse_route(&document, "", &services()), Ok(route), "{}", document);
    }

    #[test]
    fn any_document_is_read_or_refused_with_reasons(value in anything()) {
        let rule = rule_with(&value);
        for document in [&value, &rule] {
            if let Err(invalid) = parse_route(document, "routes[0]", &services()) {
                prop_assert!(!invalid.0.is_empty());
                prop_assert!(invalid.0.iter().all(|v| v.field.starts_with("routes[0]")));
            }
        }
    }
}
