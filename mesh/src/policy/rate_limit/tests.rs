use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, PolicySpec};

fn read(spec: Value) -> Result<Arc<RateLimit>, Vec<String>> {
    let mut spec = spec;
    spec["targetRefs"] = json!([{ "kind": "Gateway", "name": "gateway" }]);
    match Policy::read("RateLimitPolicy", "api", &spec, "") {
        Ok(policy) => match policy.spec {
            PolicySpec::RateLimit(limit) => Ok(limit),
            other => panic!("{other:?}"),
        },
        Err(invalid) => Err(invalid.0.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let limit = read(json!({
        "rules": [{ "name": "all", "limit": { "requests": 5, "per": "1m" } }],
    }))
    .unwrap();
    let rule = &limit.rules[0];
    assert_eq!((limit.mode, limit.on_failure), (LimitMode::Enforce, OnFailure::Open));
    assert_eq!((rule.burst.get(), rule.cost.get(), rule.max_keys), (5, 1, 1));
    assert_eq!((rule.scope, rule.per), (Scope::Local, Duration::from_secs(60)));
    assert!(limit.store.is_none());
}

#[test]
fn everything_can_be_said() {
    let limit = read(json!({
        "mode": "Audit", "onFailure": "Closed",
        "store": { "url": "redis://me@store:7000/3", "passwordEnv": "STORE", "timeout": "5ms" },
        "rules": [{
            "name": "per-user",
            "match": {
                "method": "POST",
                "path": { "type": "PathPrefix", "value": "/v1/" },
                "headers": [{ "name": "x-a", "value": "1" }],
            },
            "key": ["clientIdentity", "sourceIP", { "header": "x-user" }, { "claim": "sub" }],
            "limit": { "requests": 5, "per": "1m" },
            "cost": 2, "scope": "Global", "maxKeys": 7,
        }],
    }))
    .unwrap();
    let store = limit.store.as_ref().unwrap();
    assert_eq!((store.url.to_string(), store.url.database), ("redis://me@store:7000/3".into(), 3));
    let rule = &limit.rules[0];
    assert_eq!(rule.key.len(), 4);
    let mut headers = HeaderMap::new();
    let matches =
        |path: &str, headers: &HeaderMap| rule.matches.matches(&Method::POST, path, headers);
    assert!(!matches("/v1/x", &headers));
    headers.insert("x-a", HeaderValue::from_static("1"));
    assert!(matches("/v1/x", &headers) && matches("/v1", &headers));
    assert!(!matches("/v10", &headers));
    assert!(!rule.matches.matches(&Method::GET, "/v1/x", &headers));
}

#[test]
fn what_cannot_be_is_told_by_its_path() {
    let told = read(json!({
        "rules": [
            { "name": "A b", "limit": { "requests": 5, "per": "1ms" } },
            { "name": "b", "limit": { "requests": 5, "per": "1m", "burst": 2 }, "cost": 3 },
            { "name": "c", "limit": { "requests": 1, "per": "24h", "burst": 31 } },
            { "name": "d", "limit": { "requests": 1, "per": "1s", "burst": 2 },
              "scope": "Global", "maxKeys": 3 },
            { "name": "e", "limit": { "requests": 1, "per": "1s" }, "key": [{ "header": "a b" }],
              "match": { "method": "get", "path": { "value": "v1" } } },
            { "name": "c", "limit": { "requests": 1, "per": "1s" } },
        ],
    }))
    .unwrap_err();
    for wanted in [
        "spec.rules[0].name: ",
        "spec.rules[0].limit.per: 1ms is not from 1s to 24h",
        "spec.rules[1].cost: 3 is more than 2",
        "spec.rules[2].limit.burst: of 31 would take more than 30 days",
        "spec.rules[3].limit.burst: is for scope Local",
        "spec.rules[3].maxKeys: is not used",
        "spec.rules[4].key[0].header: \"a b\" is no header name",
        "spec.rules[4].match.method: \"get\" is no method",
        "spec.rules[5].name: \"c\" is here twice",
        "spec.store: is missing",
    ] {
        assert!(told.iter().any(|t| t.starts_with(wanted)), "{wanted} not in {told:#?}");
    }
    let told = read(json!({ "rules": [] })).unwrap_err();
    assert!(told[0].starts_with("spec.rules: has 0 entries"), "{told:?}");
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let told = read(json!({
        "store": { "url": "redis://me:hunter2@store:1", "passwordEnv": "hunter two" },
        "rules": [{ "name": "a", "limit": { "requests": 1, "per": "1s" }, "scope": "Global" }],
    }))
    .unwrap_err();
    assert!(told[0].starts_with("spec.store.url: holds a password"), "{told:?}");
    assert!(told[1].starts_with("spec.store.passwordEnv: is no name"), "{told:?}");
    assert!(!told.concat().contains("hunter"), "{told:?}");
}

#[test]
fn urls_of_stores() {
    for (text, wanted) in [
        ("redis://a", "redis://a:6379"),
        ("redis://a:1/", "redis://a:1"),
        ("redis://[::1]:7/2", "redis://[::1]:7/2"),
    ] {
        assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), wanted);
    }
    for (text, wanted) in [
        ("rediss://a", StoreUrlError::Scheme),
        ("redis://", StoreUrlError::Host),
        ("redis://a b", StoreUrlError::Host),
        ("redis://a:0", StoreUrlError::Port),
        ("redis://a:x", StoreUrlError::Port),
        ("redis://a/16", StoreUrlError::Database),
        ("redis://@a", StoreUrlError::User),
        ("redis://[::1", StoreUrlError::Host),
    ] {
        assert_eq!(text.parse::<StoreUrl>(), Err(wanted), "{text}");
    }
}
