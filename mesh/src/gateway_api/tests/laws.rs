//! What holds for every route and every document.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{backend, rule_with, services};
use crate::gateway_api::{METHODS, parse_route, to_document};
use crate::model::{
    Cors, ForceVersion, Fraction, HeaderModifier, HostPattern, Mirror, Names, OriginPattern,
    Parent, PathMatch, PathModifier, Pattern, Redirect, RetryRule, Rewrite, Route, RouteFilter,
    RouteKind, RouteMatch, RouteRule, Scheme, SessionKind, SessionPersistence, ValueMatch,
};
use crate::wire;
use weir_proto::weir::mesh::v1 as pb;

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

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z/]{1,4}(\\.\\*|\\[0-9\\]\\+)?".prop_map(|text| Pattern::parse(&text).unwrap())
}

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        "[ -~]{0,8}".prop_map(|text| ValueMatch::Exact(text.into())),
        pattern().prop_map(ValueMatch::Regex),
    ]
}

/// Headers of a match, each once.
fn wanted() -> impl Strategy<Value = Vec<(HeaderName, ValueMatch)>> {
    (headers(), prop::collection::vec(value(), 3)).prop_map(|(headers, values)| {
        headers.into_iter().zip(values).map(|((name, _), value)| (name, value)).collect()
    })
}

fn matched(kind: RouteKind) -> BoxedStrategy<RouteMatch> {
    match kind {
        RouteKind::Http => {
            let path = prop_oneof![
                "(/[a-z:]{1,5}){1,3}/?".prop_map(|p| PathMatch::Exact(p.into())),
                "(/[a-z:]{1,5}){0,3}".prop_map(|p| PathMatch::Prefix(p.into())),
                pattern().prop_map(PathMatch::Regex),
            ];
            let method = prop::option::of(prop::sample::select(METHODS.to_vec()));
            let query = prop::collection::btree_map("\\PC{1,5}", value(), 0..3);
            (path, method, wanted(), query)
                .prop_map(|(path, method, headers, query)| RouteMatch {
                    path,
                    method,
                    headers,
                    query: query.into_iter().map(|(k, v)| (k.into(), v)).collect(),
                })
                .boxed()
        }
        RouteKind::Grpc => {
            let path = prop_oneof![
                "/[a-z]{1,4}(\\.[A-Z_][a-z1]{0,4}){0,2}/[A-Z][a-z_0-9]{0,5}"
                    .prop_map(|p| PathMatch::Exact(p.into())),
                "(/[a-z]{1,4}(\\.[A-Z_][a-z1]{0,4}){0,2})?"
                    .prop_map(|p| PathMatch::Prefix(p.into())),
                "[A-Z][a-z_0-9]{0,5}".prop_map(|p| PathMatch::GrpcMethod(p.into())),
                (pattern(), prop::option::of(pattern())).prop_map(|(service, method)| {
                    PathMatch::GrpcRegex { service: Some(service), method }
                }),
            ];
            (path, wanted())
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

fn path() -> impl Strategy<Value = Option<PathModifier>> {
    prop::option::of("(/[a-z]{1,4}){1,2}/?".prop_map(|path| PathModifier::Full(path.into())))
}

fn host() -> impl Strategy<Value = Option<std::sync::Arc<str>>> {
    prop::option::of("[a-z]{1,5}\\.test".prop_map(Into::into))
}

prop_compose! {
    fn redirect()(
        scheme in prop::option::of(prop::sample::select(vec![Scheme::Http, Scheme::Https])),
        hostname in host(),
        path in path(),
        port in prop::option::of(any::<std::num::NonZeroU16>()),
        status in prop::sample::select(Redirect::STATUSES.to_vec()),
    ) -> Redirect {
        Redirect { scheme, hostname, path, port, status }
    }
}

prop_compose! {
    fn mirror()(
        version in prop::option::of(Just("v1".parse().unwrap())),
        part in prop::option::of((0u32..=5, 5u32..9)),
    ) -> Mirror {
        let fraction = part.map(|(numerator, denominator)| Fraction { numerator, denominator });
        Mirror { service: "auth".parse().unwrap(), version, fraction }
    }
}

prop_compose! {
    fn cors()(
        any in any::<[bool; 2]>(),
        names in headers(),
        origins in prop::collection::vec("https?://(\\*\\.)?[a-z]{1,4}\\.test(:8080)?", 0..3),
        max_age in 1u32..10_000,
    ) -> Cors {
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        Cors {
            allow_origins: origins.iter().map(|o| OriginPattern::parse(o).unwrap()).collect(),
            allow_credentials: any[0],
            allow_methods: Names::These(vec![http::Method::PUT]),
            allow_headers: if any[1] { Names::Any } else { Names::These(names.clone()) },
            expose_headers: Names::These(names),
            max_age,
        }
    }
}

/// Filters of a rule that may stand beside each other and beside backends.
fn filters(kind: RouteKind, of_rule: bool) -> BoxedStrategy<Vec<RouteFilter>> {
    let both = (
        prop::option::of(modifier().prop_map(RouteFilter::RequestHeaderModifier)),
        prop::option::of(modifier().prop_map(RouteFilter::ResponseHeaderModifier)),
        prop::collection::vec(mirror().prop_map(RouteFilter::RequestMirror), 0..3),
    );
    let both = both.prop_map(|(a, b, c)| a.into_iter().chain(b).chain(c).collect::<Vec<_>>());
    if kind == RouteKind::Grpc {
        return both.boxed();
    }
    let http = (both, prop::option::of(cors()), prop::option::of((host(), path())));
    http.prop_map(move |(mut filters, cors, rewrite)| {
        match (of_rule, cors, rewrite) {
            (true, Some(cors), _) => filters.push(RouteFilter::Cors(cors)),
            (false, _, Some((hostname, path))) => {
                filters.push(RouteFilter::UrlRewrite(Rewrite { hostname, path }));
            }
            _ => {}
        }
        filters
    })
    .boxed()
}

prop_compose! {
    fn session()(
        name in prop::option::of("[a-z]{1,5}".prop_map(Into::into)),
        kind in prop::sample::select(vec![
            SessionKind::Cookie, SessionKind::PermanentCookie, SessionKind::Header,
        ]),
        absolute in 1u32..,
        idle in prop::option::of(1u32..),
    ) -> SessionPersistence {
        let time = |ms: u32| Duration::from_millis(ms.into());
        SessionPersistence {
            name,
            kind,
            absolute_timeout: Some(time(absolute)),
            idle_timeout: idle.map(time),
        }
    }
}

prop_compose! {
    fn retry()(
        codes in prop::collection::btree_set(400u16..600, 0..3),
        attempts in prop::option::of(0u32..5),
        backoff in prop::option::of(1u32..),
    ) -> RetryRule {
        RetryRule {
            codes: codes.into_iter().collect(),
            attempts,
            backoff: backoff.map(|ms| Duration::from_millis(ms.into())),
        }
    }
}

prop_compose! {
    fn rule(kind: RouteKind)(
        name in "[a-z]{0,5}",
        matches in prop::collection::vec(matched(kind), 1..3),
        filters in filters(kind, true),
        redirect in prop::option::weighted(0.2, redirect()),
        backends in prop::collection::vec(
            (prop::sample::select(vec![
                ("auth", None), ("auth", Some("v1")), ("products", Some("v1")), ("users", None),
            ]), 1i64..=1_000_000, filters(kind, false)), 1..3),
        timeouts in prop::option::of((1u32.., 1u32..)),
        retry in prop::option::of(retry()),
        session in prop::option::of(session()),
    ) -> RouteRule {
        let backend = |((service, version), weight, filters): (_, i64, _)| {
            crate::model::BackendRef { filters, ..backend(service, version, weight) }
        };
        let time = |ms: u32| Duration::from_millis(ms.into());
        let mut rule = RouteRule {
            name: name.into(),
            matches,
            filters,
            backends: backends.into_iter().map(backend).collect(),
            timeout: timeouts.map(|(a, b)| time(a.max(b))),
            backend_timeout: timeouts.map(|(a, b)| time(a.min(b))),
            retry,
            session,
        };
        if let (RouteKind::Http, Some(redirect)) = (kind, redirect) {
            rule.filters.push(RouteFilter::RequestRedirect(redirect));
            rule.backends.clear();
        }
        rule
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
        force_version in prop::option::of(prop_oneof![
            "[a-z-]{1,5}".prop_map(|name| ForceVersion::Header(name.parse().unwrap())),
            "[a-zA-Z]{1,5}".prop_map(|name| ForceVersion::Cookie(name.into())),
        ]),
        pin in any::<bool>(),
    ) -> Route {
        let pin_versions = pin && parents.contains(&Parent::Gateway);
        let hostnames = hostnames.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        Route { name: name.into(), kind, parents, hostnames, rules, force_version, pin_versions }
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
        "urlRewrite",
        "cors",
        "requestMirror",
        "sessionPersistence",
        "retry",
        "codes",
        "annotations",
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

/// Every place of a document, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                places(value, &format!("{at}/{i}"), found);
            }
        }
        _ => {}
    }
}

/// One thing somewhere in a document becomes another.
fn with_mistake(route: &Route, place: usize, mistake: Value) -> Value {
    let mut document = to_document(route);
    let mut found = Vec::new();
    places(&document, "", &mut found);
    let at = &found[place % found.len()];
    if let Some(value) = document.pointer_mut(at) {
        match value {
            // A field too many.
            Value::Object(map) if mistake == json!("field") => {
                map.insert("more".to_owned(), json!(1));
            }
            _ => *value = mistake,
        }
    }
    document
}

fn mistake() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("field")),
        Just(json!("")),
        Just(json!([])),
        Just(json!({})),
        any::<bool>().prop_map(Value::from),
        (-2i64..700).prop_map(Value::from),
        "[a-zA-Z/*:.]{1,6}".prop_map(Value::from),
    ]
}

proptest! {
    /// The schema refuses nothing that the parser reads, and everything that has
    /// another form than the parser wants.
    #[test]
    fn schema_and_parser_agree_on_mistakes(
        route in route(), place in any::<usize>(), mistake in mistake(),
    ) {
        let document = with_mistake(&route, place, mistake);
        // Which schema a document is for, its kind says.
        prop_assume!(document["kind"] == "HTTPRoute" || document["kind"] == "GRPCRoute");
        let misfit = super::schema::misfit(&document);
        match parse_route(&document, "", &services()) {
            Ok(_) => prop_assert_eq!(misfit, None, "{}", document),
            Err(invalid) => {
                let form = |v: &&crate::model::Violation| {
                    v.description.starts_with("must be ") || v.description.starts_with("is not known; there")
                };
                if let Some(violation) = invalid.0.iter().find(form) {
                    prop_assert!(misfit.is_some(), "{}: {}", violation, document);
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again(route in route()) {
        let document = to_document(&route);
        prop_assert_eq!(parse_route(&document, "", &services()), Ok(route), "{}", document);
    }

    #[test]
    fn what_goes_over_the_wire_is_the_same(route in route()) {
        let message = pb::Route::from(&route);
        prop_assert_eq!(wire::route(&message, ""), Ok(route));
    }

    #[test]
    fn what_is_written_fits_the_schema(route in route()) {
        let document = to_document(&route);
        prop_assert_eq!(super::schema::misfit(&document), None, "{}", document);
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
