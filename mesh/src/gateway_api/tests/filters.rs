//! Filters, timeouts, retries and sessions, and their mistakes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{refused, refused_rule, rule_with, services};
use crate::gateway_api::parse_route;
use crate::model::{
    Cors, Fraction, Mirror, Names, OriginPattern, PathModifier, Redirect, Rewrite, RouteFilter,
    RouteRule, Scheme, SessionKind,
};

fn rule(rule: &Value) -> RouteRule {
    let mut route = parse_route(&rule_with(rule), "", &services()).unwrap();
    route.rules.remove(0)
}

fn filters(filters: Value) -> Vec<RouteFilter> {
    rule(&json!({"filters": filters, "backendRefs": [{"name": "users"}]})).filters
}

#[test]
fn a_redirect_stands_for_backends() {
    let rule = rule(&json!({
        "matches": [{"path": {"value": "/old"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {
            "scheme": "https", "hostname": "shop.test", "port": 8443, "statusCode": 308,
            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new/"},
        }}],
    }));
    assert!(rule.backends.is_empty());
    let redirect = Redirect {
        scheme: Some(Scheme::Https),
        hostname: Some("shop.test".into()),
        path: Some(PathModifier::Prefix("/new".into())),
        port: std::num::NonZeroU16::new(8443),
        status: 308,
    };
    assert_eq!(rule.filters, [RouteFilter::RequestRedirect(redirect)]);
}

#[test]
fn rewrites_mirrors_and_cors() {
    let found = filters(json!([
        {"type": "URLRewrite", "urlRewrite": {
            "hostname": "a.test", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}},
        {"type": "RequestMirror", "requestMirror": {
            "backendRef": {"name": "products-v1", "port": 80}, "percent": 5}},
        {"type": "RequestMirror", "requestMirror": {
            "backendRef": {"name": "auth"}, "fraction": {"numerator": 1, "denominator": 1000}}},
        {"type": "CORS", "cors": {
            "allowOrigins": ["https://*.shop.test"], "allowCredentials": true,
            "allowMethods": ["*"], "allowHeaders": ["X-A"]}},
        {"type": "ExtensionRef", "extensionRef": {
            "group": "weir.dev", "kind": "HTTPRouteFilter", "name": "slow"}},
    ]));
    let mirror = |service: &str, version: Option<&str>, numerator, denominator| {
        RouteFilter::RequestMirror(Mirror {
            service: service.parse().unwrap(),
            version: version.map(|v| v.parse().unwrap()),
            fraction: Some(Fraction { numerator, denominator }),
        })
    };
    assert_eq!(
        found,
        [
            RouteFilter::UrlRewrite(Rewrite {
                hostname: Some("a.test".into()),
                path: Some(PathModifier::Full("/x".into())),
            }),
            mirror("products", Some("v1"), 5, 100),
            mirror("auth", None, 1, 1000),
            RouteFilter::Cors(Cors {
                allow_origins: vec![OriginPattern::parse("https://*.shop.test").unwrap()],
                allow_credentials: true,
                allow_methods: Names::Any,
                allow_headers: Names::These(vec![http::HeaderName::from_static("x-a")]),
                expose_headers: Names::default(),
                max_age: 5,
            }),
            RouteFilter::Extension { kind: "HTTPRouteFilter".into(), name: "slow".into() },
        ]
    );
}

#[test]
fn timeouts_retries_and_sessions() {
    let rule = rule(&json!({
        "timeouts": {"request": "10s", "backendRequest": "2s"},
        "retry": {"codes": [500, 503], "attempts": 3, "backoff": "100ms"},
        "sessionPersistence": {
            "sessionName": "s", "absoluteTimeout": "1h", "idleTimeout": "10m", "type": "Cookie",
            "cookieConfig": {"lifetimeType": "Permanent"}},
        "backendRefs": [{"name": "users"}],
    }));
    assert_eq!(rule.backend_timeout, Some(Duration::from_secs(2)));
    let retry = rule.retry.unwrap();
    assert_eq!((retry.codes, retry.attempts), (vec![500, 503], Some(3)));
    let session = rule.session.unwrap();
    assert_eq!(session.kind, SessionKind::PermanentCookie);
    assert_eq!(session.idle_timeout, Some(Duration::from_secs(600)));
}

#[test]
fn single_fields_that_are_wrong() {
    assert_eq!(
        refused_rule(&json!({
            "matches": [{
                "path": {"type": "RegularExpression", "value": "/a(.*"},
                "headers": [{"type": "Regex", "name": "a", "value": "b"}],
            }],
            "filters": [
                {"type": "ExternalAuth", "externalAuth": {}},
                {"type": "UrlRewrite"},
                {"type": "Nonsense"},
                {"type": "RequestHeaderModifier", "urlRewrite": {}, "extra": 1},
                {},
                {"type": "RequestRedirect", "requestRedirect": {"statusCode": 304, "scheme": "ftp"}},
                {"type": "URLRewrite", "urlRewrite": {"hostname": "*.a.test", "path":
                    {"type": "ReplaceFullPath", "replacePrefixMatch": "/"}}},
                {"type": "RequestMirror", "requestMirror": {
                    "backendRef": {"name": "users"}, "percent": 101, "fraction": {"numerator": 7, "denominator": 5}}},
                {"type": "CORS", "cors": {"allowOrigins": ["*", "shop.test"], "allowMethods": ["get"], "maxAge": 0}},
                {"type": "ExtensionRef", "extensionRef": {"group": "a", "kind": "B", "name": "c"}},
            ],
            "backendRefs": [{"name": "users", "filters": [{"type": "CORS", "cors": {}}]}],
            "timeouts": {"request": "90"},
            "retry": {"codes": [200, 500, 500], "attempts": -1},
            "sessionPersistence": {"type": "Header", "cookieConfig": {"lifetimeType": "Permanent"}},
        })),
        [
            "matches[0].path.value: \"/a(.*\" is not a regular expression (RE2 syntax): found open \
             group without closing ')'",
            "matches[0].headers[0].type: \"Regex\" is not known; use Exact or RegularExpression",
            "filters[0].type: ExternalAuth is not supported yet",
            "filters[1].type: \"UrlRewrite\" is not known; did you mean URLRewrite?",
            "filters[2].type: \"Nonsense\" is not known; there are: RequestHeaderModifier, \
             ResponseHeaderModifier, RequestMirror, ExtensionRef, RequestRedirect, URLRewrite, CORS",
            "filters[3].extra: is not known; there are: type, requestHeaderModifier",
            "filters[3].urlRewrite: does not belong to a filter of type RequestHeaderModifier",
            "filters[3].requestHeaderModifier: is missing",
            "filters[4].type: is missing",
            "filters[5].requestRedirect.scheme: \"ftp\" is not known; did you mean http?",
            "filters[5].requestRedirect.statusCode: 304 is not one of 301, 302, 303, 307, 308",
            "filters[6].urlRewrite.hostname: \"*.a.test\" is not a precise host name, such as \
             shop.example.com",
            "filters[6].urlRewrite.path.replacePrefixMatch: does not belong to a path of type \
             ReplaceFullPath",
            "filters[6].urlRewrite.path.replaceFullPath: is missing",
            "filters[7].requestMirror.fraction: cannot be beside percent; keep one of them",
            "filters[7].requestMirror.percent: 101 is not from 0 to 100",
            "filters[7].requestMirror.fraction.numerator: 7 is not from 0 to 5, the denominator",
            "filters[8].cors.allowOrigins[0]: \"*\" cannot be beside other origins",
            "filters[8].cors.allowOrigins[1]: \"shop.test\" is not an origin, such as \
             https://shop.test, https://*.shop.test or *",
            "filters[8].cors.maxAge: 0 is not from 1 to 2147483647, in seconds",
            "filters[8].cors.allowMethods[0]: \"get\" is not a method, such as GET",
            "filters[9].extensionRef.group: \"a\" is not known; use weir.dev",
            "filters[9].extensionRef.kind: \"B\" is not known; use HTTPRouteFilter",
            "backendRefs[0].filters[0].type: CORS belongs to the rule: a preflight comes before any \
             backend is chosen",
            "timeouts.request: \"90\" is not a duration (GEP-2257), such as 10s, 500ms or 1m30s",
            "retry.codes[0]: 200 is not a status from 400 to 599",
            "retry.codes[2]: 500 is here twice",
            "retry.attempts: -1 is not from 0 to 100",
            "sessionPersistence.absoluteTimeout: is missing; a cookie of lifetimeType Permanent \
             needs it",
            "sessionPersistence.cookieConfig: does not belong to a session of type Header",
        ]
    );
}

#[test]
fn fields_that_do_not_fit_together() {
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"path":
        {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}}});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {}});
    let modifier = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {}});
    let backends = json!([{"name": "users"}]);
    assert_eq!(
        refused_rule(&json!({
            "matches": [{"path": {"type": "Exact", "value": "/a"}}],
            "filters": [rewrite, redirect, modifier, modifier],
            "backendRefs": backends,
            "timeouts": {"request": "1s", "backendRequest": "2s"},
        })),
        [
            "filters[0]: URLRewrite cannot be beside RequestRedirect; keep one of them",
            "filters[0]: replacePrefixMatch needs a rule with exactly one match, of type PathPrefix",
            "filters[3]: is a second RequestHeaderModifier; one is possible",
            "filters[1]: answers in place of backendRefs; leave out one of them",
            "timeouts.backendRequest: is longer than timeouts.request, which it is a part of",
        ]
    );
    // Without matches, a rule has the one that takes everything.
    let whole = json!({"filters": [rewrite], "backendRefs": backends});
    assert!(parse_route(&rule_with(&whole), "", &services()).is_ok());
    let two =
        json!({"filters": [rewrite], "backendRefs": [{"name": "users", "filters": [rewrite]}]});
    assert_eq!(
        refused_rule(&two),
        ["backendRefs[0].filters[0]: rewrites what the rule's filters have rewritten; keep one \
             of them"]
    );
    let many = vec![
        json!({"type": "ExtensionRef", "extensionRef": {
        "group": "weir.dev", "kind": "HTTPRouteFilter", "name": "a"}});
        17
    ];
    assert_eq!(
        refused_rule(&json!({"filters": many, "backendRefs": backends})),
        ["filters: are 17; at most 16 are possible"]
    );
}

#[test]
fn a_grpc_route_has_fewer_filters() {
    let mut document = rule_with(&json!({
        "filters": [
            {"type": "URLRewrite", "urlRewrite": {}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "users-v1"}}},
        ],
        "backendRefs": [{"name": "users"}],
    }));
    document["kind"] = "GRPCRoute".into();
    assert_eq!(
        refused(&document),
        ["routes[0].spec.rules[0].filters[0].type: URLRewrite is for an HTTPRoute; a GRPCRoute \
             has no such filter"]
    );
}
