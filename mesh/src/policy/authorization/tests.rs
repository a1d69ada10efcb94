use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, PolicySpec};

fn read(spec: Value) -> Result<Arc<Authorization>, Vec<String>> {
    let mut spec = spec;
    spec["targetRefs"] = json!([{ "kind": "Service", "name": "web" }]);
    match Policy::read("AuthorizationPolicy", "p", &spec, "") {
        Ok(policy) => match policy.spec {
            PolicySpec::Authorization(read) => Ok(read),
            other => panic!("{other:?}"),
        },
        Err(invalid) => Err(invalid.0.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn a_policy_is_read_whole() {
    let policy = read(json!({
        "action": "Allow",
        "rules": [{
            "name": "readers",
            "from": {
                "identities": ["spiffe://weir.local/ns/default/sa/web", "spiffe://b.example/ns/x/*"],
                "services": ["auth", "shop/cart"], "notNamespaces": ["test"],
            },
            "to": {
                "methods": ["GET"], "hosts": ["*.example.com"],
                "paths": [{ "type": "PathPrefix", "value": "/v1/" }],
                "grpc": [{ "service": "a.B", "method": "C" }, { "service": "a.D" }],
            },
            "when": {
                "claims": [{ "name": "role", "values": ["admin"] }],
                "headers": [{ "name": "X-Tenant" }],
            },
        }, {}],
    }))
    .unwrap();
    let rule = &policy.rules[0];
    assert_eq!(rule.to.paths, [PathPattern::Prefix("/v1".into())]);
    let grpc = [PathPattern::Exact("/a.B/C".into()), PathPattern::Prefix("/a.D".into())];
    assert_eq!(rule.to.grpc, grpc);
    let peers = rule.from.peers.as_ref().unwrap();
    for (id, is) in [
        ("spiffe://weir.local/ns/default/sa/web", true),
        ("spiffe://weir.local/ns/default/sa/web2", false),
        ("spiffe://weir.local/ns/default/sa/auth", true),
        ("spiffe://weir.local/ns/shop/sa/cart", true),
        ("spiffe://weir.local/ns/shop/sa/auth", false),
        ("spiffe://other/ns/default/sa/auth", false),
        ("spiffe://weir.local.evil/ns/default/sa/auth", false),
        ("spiffe://b.example/ns/x/sa/any", true),
        ("spiffe://b.example/ns/xy/sa/any", false),
        ("", false),
    ] {
        assert_eq!(peers.has(id, "weir.local"), is, "{id}");
    }
    assert!(policy.rules[1].is_identity_only());
    assert_eq!(&*policy.rules[1].name, "1");
}

#[test]
fn every_mistake_is_told_by_its_path() {
    let errors = read(json!({
        "action": "Deny",
        "rules": [{
            "from": {
                "identities": ["spiffe://weir.local/ns/default*", "web"], "services": [],
                "namespaces": ["a/b"],
            },
            "to": {
                "methods": ["get"], "hosts": ["1.2.3.4"],
                "paths": [
                    { "type": "Exact", "value": "/a//b" },
                    { "type": "PathPrefix", "value": "/a%2" },
                    { "type": "PathSuffix", "value": "//x" },
                ],
                "grpc": [{ "service": "a/B" }],
            },
            "when": { "headers": [{ "name": "a b" }] },
        }],
    }))
    .unwrap_err();
    for field in [
        "spec.rules[0].from.identities[0]",
        "spec.rules[0].from.identities[1]",
        "spec.rules[0].from.services",
        "spec.rules[0].from.namespaces[0]",
        "spec.rules[0].to.methods[0]",
        "spec.rules[0].to.hosts[0]",
        "spec.rules[0].to.paths[0].value",
        "spec.rules[0].to.paths[1].value",
        "spec.rules[0].to.paths[2].value",
        "spec.rules[0].to.grpc[0].service",
        "spec.rules[0].when.headers[0].name",
    ] {
        assert!(
            errors.iter().any(|e| e.starts_with(&format!("{field}: "))),
            "{field}: {errors:#?}"
        );
    }
    assert!(errors.iter().any(|e| e.contains("write \"/a/b\"")), "{errors:#?}");
}

#[test]
fn a_policy_that_would_do_nothing_is_refused() {
    assert!(read(json!({ "action": "Allow" })).is_ok(), "it allows nothing");
    for spec in [
        json!({ "action": "Deny" }),
        json!({ "action": "External", "rules": [{}] }),
        json!({ "action": "Allow", "external": { "service": "guard" } }),
        json!({ "action": "Perhaps", "rules": [{}] }),
        json!({ "rules": [{}] }),
        json!({ "action": "External", "rules": [{}], "external": { "service": "g", "timeout": "1m" } }),
    ] {
        assert!(read(spec.clone()).is_err(), "{spec}");
    }
}
