//! What annotations of `weir.dev` say.

use serde_json::{Value, json};

use super::{refused, rule_with, services};
use crate::gateway_api::parse_route;
use crate::model::ForceVersion;

fn with(annotations: &Value) -> Value {
    let mut document = rule_with(&json!({"backendRefs": [{"name": "users"}]}));
    document["metadata"]["annotations"] = annotations.clone();
    document
}

#[test]
fn those_of_weir_are_read_and_those_of_others_are_not() {
    let document = with(&json!({
        "weir.dev/force-version": "header:X-Version",
        "weir.dev/pin-versions": "true",
        "other.test/a": 7,
    }));
    let route = parse_route(&document, "", &services()).unwrap();
    let name = http::HeaderName::from_static("x-version");
    assert_eq!(route.force_version, Some(ForceVersion::Header(name)));
    assert!(route.pin_versions);
    let route = with(&json!({"weir.dev/force-version": "cookie:Version"}));
    let route = parse_route(&route, "", &services()).unwrap();
    assert_eq!(route.force_version, Some(ForceVersion::Cookie("Version".into())));
}

#[test]
fn mistakes_are_told() {
    let document = with(&json!({
        "weir.dev/force-version": "query:v",
        "weir.dev/pin-version": "true",
        "weir.dev/pin-versions": "yes",
    }));
    let at = |name: &str| format!("routes[0].metadata.annotations[\"weir.dev/{name}\"]");
    assert_eq!(
        refused(&document),
        [
            format!("{}: \"query:v\" is neither header:NAME nor cookie:NAME", at("force-version")),
            format!("{}: is not known; did you mean weir.dev/pin-versions?", at("pin-version")),
            format!("{}: \"yes\" is neither \"true\" nor \"false\"", at("pin-versions")),
        ]
    );
    let mut document = with(&json!({"weir.dev/pin-versions": "true"}));
    document["spec"]["parentRefs"] = json!([{"kind": "Service", "group": "", "name": "users"}]);
    let wanted = "is for routes whose parent is the gateway, where requests begin";
    assert_eq!(refused(&document), [format!("{}: {wanted}", at("pin-versions"))]);
}
