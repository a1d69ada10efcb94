use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, PolicySpec};

fn read(spec: Value) -> Result<Arc<Authentication>, Vec<String>> {
    let mut spec = spec;
    spec["targetRefs"] = json!([{ "kind": "Gateway", "name": "gateway" }]);
    match Policy::read("AuthenticationPolicy", "p", &spec, "") {
        Ok(policy) => match policy.spec {
            PolicySpec::Authentication(read) => Ok(read),
            other => panic!("{other:?}"),
        },
        Err(invalid) => Err(invalid.0.iter().map(ToString::to_string).collect()),
    }
}

fn issuer(more: Value) -> Value {
    let mut issuer =
        json!({ "issuer": "weir-auth", "jwks": { "service": "auth" }, "audiences": ["weir"] });
    issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "issuers": [issuer] })
}

#[test]
fn what_is_not_said_is_safe() {
    let policy = read(issuer(json!({}))).unwrap();
    let rules = &policy.issuers[0].rules;
    assert_eq!(rules.clock_skew.as_secs(), 30);
    assert_eq!(rules.max_age.unwrap().as_secs(), 300);
    assert_eq!(rules.algorithms.len(), 9);
    assert!(policy.issuers[0].forward && !policy.required);
    let policy = read(issuer(json!({ "maxTokenAge": "0s" }))).unwrap();
    assert_eq!(policy.issuers[0].rules.max_age, None);
}

#[test]
fn what_would_not_be_safe_is_refused_by_its_path() {
    for (more, field) in [
        (json!({ "algorithms": ["none"] }), "algorithms[0]: \"none\" is no signature"),
        (json!({ "algorithms": ["ES256", "HS256"] }), "algorithms[1]: HS256 needs a secret"),
        (json!({ "algorithms": [] }), "algorithms: is empty"),
        (json!({ "audiences": [] }), "audiences: must have 1 to 16"),
        (json!({ "clockSkew": "6m" }), "clockSkew: is longer"),
        (json!({ "jwks": {} }), "jwks: must have one of"),
        (json!({ "jwks": { "uri": "https://a/b" } }), "jwks.uri: is https"),
        (json!({ "jwks": { "uri": "a b" } }), "jwks.uri: \"a b\" is no URL"),
        (json!({ "jwks": { "inline": "{}" } }), "jwks.inline: this is no JSON Web Key Set"),
        (
            json!({ "claimsToHeaders": [{ "claim": "sub", "header": "authorization" }] }),
            "claimsToHeaders[0].header: \"authorization\" means something else",
        ),
    ] {
        let errors = read(issuer(more.clone())).unwrap_err();
        let wanted = format!("spec.issuers[0].{field}");
        assert!(errors.iter().any(|e| e.starts_with(&wanted)), "{wanted}: {errors:#?}");
    }
}
