use std::net::SocketAddr;

use http::Request;
use serde_json::json;
use weir_mesh::policy::{Policy, PolicySpec};

use super::*;
use crate::connection::Side;
use crate::limit::Compiler;

fn rule(key: serde_json::Value) -> Arc<Rule> {
    let spec = json!({
        "targetRefs": [{ "kind": "Gateway", "name": "gateway" }],
        "rules": [{ "name": "a", "key": key, "limit": { "requests": 1, "per": "1h" } }],
    });
    let policy = Policy::read("RateLimitPolicy", "api", &spec, "").unwrap();
    assert!(matches!(policy.spec, PolicySpec::RateLimit(_)));
    let mut rules = Vec::new();
    Compiler::default().attach(&policy, false, &mut rules);
    rules.remove(0).rule
}

fn from(address: &str, peer: &str) -> std::rc::Rc<Connected> {
    let address: SocketAddr = address.parse().unwrap();
    Connected::new(Side::Inbound, address, peer.into(), None, None)
}

fn asking(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// Whether the second request is counted with the first.
fn share(key: serde_json::Value, one: (&Connected, &Parts), other: (&Connected, &Parts)) -> bool {
    let rule = rule(key);
    assert_eq!(rule.take(one.0, one.1).refused, None);
    let share = rule.take(other.0, other.1).refused.is_some();
    let same = rule.store_key(one.0, one.1) == rule.store_key(other.0, other.1);
    assert_eq!(share, same, "here and in the store alike");
    share
}

#[test]
fn a_key_is_all_of_its_parts() {
    let here = from("10.0.0.1:1", "spiffe://a/b");
    let plain = asking(&[]);
    let same = |key, other: &Connected| share(key, (&here, &plain), (other, &plain));
    let (again, beside) = (from("10.0.0.1:2", "spiffe://a/c"), from("10.0.0.2:1", "spiffe://a/b"));
    assert!(same(json!([]), &beside));
    assert!(same(json!(["sourceIP"]), &again) && !same(json!(["sourceIP"]), &beside));
    assert!(same(json!(["clientIdentity"]), &beside) && !same(json!(["clientIdentity"]), &again));
    assert!(!same(json!(["sourceIP", "clientIdentity"]), &again));
    assert!(same(json!(["sourceIP"]), &from("[::ffff:10.0.0.1]:1", "")));
    let six = from("[2001:db8::1]:1", "");
    let neighbour = from("[2001:db8::2]:1", "");
    assert!(share(json!(["sourceIP"]), (&six, &plain), (&neighbour, &plain)));
}

#[test]
fn headers_are_a_part_with_all_their_values() {
    let here = from("10.0.0.1:1", "");
    let key = || json!([{ "header": "x-a" }, { "tenant": "x-b" }]);
    let same = |one: &[(&str, &str)], other: &[(&str, &str)]| {
        share(key(), (&here, &asking(one)), (&here, &asking(other)))
    };
    assert!(same(&[], &[]));
    assert!(same(&[("x-a", "1"), ("x-b", "2")], &[("x-b", "2"), ("x-a", "1")]));
    assert!(!same(&[("x-a", "1")], &[("x-b", "1")]), "which part it is matters");
    assert!(!same(&[("x-a", "12"), ("x-b", "3")], &[("x-a", "1"), ("x-b", "23")]));
    assert!(!same(&[("x-a", "1")], &[("x-a", "1"), ("x-a", "2")]));
    assert!(!same(&[("x-a", "")], &[]));
}

#[test]
fn a_claim_counts_when_it_was_verified_and_not_before() {
    let here = from("10.0.0.1:1", "");
    let verified = |claims: serde_json::Value| {
        let mut parts = asking(&[]);
        let claims = claims.as_object().unwrap().clone();
        parts.extensions.insert(VerifiedClaims(Arc::new(claims)));
        parts
    };
    let same = |one: &Parts, other: &Parts| {
        share(json!([{ "claim": "sub" }]), (&here, one), (&here, other))
    };
    // {"sub":"me"}, signed by nobody.
    let said = asking(&[("authorization", "Bearer e30.eyJzdWIiOiJtZSJ9.")]);
    assert!(same(&asking(&[]), &said), "as if there were none");
    let me = verified(json!({ "sub": "me" }));
    assert!(!same(&me, &said));
    assert!(same(&me, &verified(json!({ "sub": "me", "aud": "x" }))));
    assert!(!same(&me, &verified(json!({ "sub": "you" }))));
    assert!(same(&verified(json!({})), &verified(json!({ "sub": { "a": 1 } }))));
}

#[test]
fn what_a_key_consists_of_cannot_be_read_in_the_store() {
    let rule = rule(json!([{ "header": "x-secret" }]));
    let key = rule.store_key(&from("10.0.0.1:1", ""), &asking(&[("x-secret", "hunter2")]));
    assert!(key.starts_with("weir:rl:{api/a:") && key.ends_with('}'), "{key}");
    assert!(!key.contains("hunter2"));
}
