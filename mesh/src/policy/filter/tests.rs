use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, PolicySpec, Target};

fn read(spec: Value) -> Result<Arc<Filter>, Vec<String>> {
    match Policy::read("HTTPRouteFilter", "f", &spec, "") {
        Ok(policy) => match policy.spec {
            PolicySpec::Filter(filter) => Ok(filter),
            other => panic!("{other:?}"),
        },
        Err(invalid) => Err(invalid.0.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn it_may_be_attached_or_referred_to() {
    let spec = json!({ "limits": { "requestBodyBytes": 1 } });
    let policy = Policy::read("HTTPRouteFilter", "f", &spec, "").unwrap();
    assert!(policy.targets.is_empty());
    let mut spec = spec;
    spec["targetRefs"] = json!([{ "kind": "HTTPRoute", "name": "r", "sectionName": "one" }]);
    let policy = Policy::read("HTTPRouteFilter", "f", &spec, "").unwrap();
    assert!(matches!(&policy.targets[..], [Target::Route { rule: Some(_), .. }]));
    spec["targetRefs"] = json!([]);
    assert!(Policy::read("HTTPRouteFilter", "f", &spec, "").is_err());
}

#[test]
fn everything_can_be_said() {
    let filter = read(json!({
        "fault": {
            "delay": { "duration": "5s", "percentage": 0.0001 },
            "abort": { "grpcStatus": 14 },
        },
        "directResponse": {
            "status": 503, "body": "soon", "headers": [{ "name": "x-a", "value": "1" }],
        },
        "limits": { "requestBodyBytes": 10, "responseBodyBytes": 20 },
        "compression": { "types": ["gzip"] },
    }))
    .unwrap();
    let fault = filter.fault.as_ref().unwrap();
    assert_eq!(fault.delay.as_ref().unwrap().share.millionths(), 1);
    assert_eq!(fault.abort, Some(Abort { with: AbortWith::Grpc(14), share: Share::ALL }));
    let answer = filter.direct_response.as_ref().unwrap();
    assert_eq!((answer.headers.len(), &*answer.body), (2, "soon"));
    assert_eq!(filter.limits, BodyLimits { request: Some(10), response: Some(20) });
    let compression = filter.compression.as_ref().unwrap();
    assert!(compression.is_for("Text/Event-Stream; charset=utf-8"));
    assert!(compression.is_for("application/JSON"));
    assert!(!compression.is_for("image/png") && !compression.is_for("application/grpc"));
}

#[test]
fn what_cannot_be_is_told_by_its_path() {
    let cases = [
        (json!({}), "spec: says nothing"),
        (json!({ "fault": {} }), "spec.fault: says nothing"),
        (json!({ "limits": {} }), "spec.limits: says nothing"),
        (json!({ "fault": { "abort": {} } }), "spec.fault.abort: needs one of"),
        (
            json!({ "fault": { "abort": { "httpStatus": 500, "percentage": 0.00001 } } }),
            "spec.fault.abort.percentage: 0.00001 is not",
        ),
        (
            json!({ "fault": { "delay": { "duration": "2h" } } }),
            "spec.fault.delay.duration: 2h is not from 1ms to 1h",
        ),
        (
            json!({ "directResponse": { "status": 200, "body": "x".repeat(4097) } }),
            "spec.directResponse.body: has 4097 bytes",
        ),
        (
            json!({ "directResponse": { "status": 204, "body": "x" } }),
            "spec.directResponse.body: an answer 204 has none",
        ),
        (
            json!({ "directResponse": {
                "status": 200, "headers": [{ "name": "Content-Length", "value": "1" }],
            } }),
            "spec.directResponse.headers[0].name: cannot be set here",
        ),
        (
            json!({ "compression": { "contentTypes": ["text"] } }),
            "spec.compression.contentTypes[0]: \"text\" is no media type",
        ),
    ];
    for (spec, wanted) in cases {
        let told = read(spec).unwrap_err();
        assert!(told.iter().any(|t| t.starts_with(wanted)), "{wanted} not in {told:#?}");
    }
}

#[test]
fn shares_are_exact() {
    for (percentage, millionths) in [(0.0, 0), (0.0001, 1), (33.3333, 333_333), (100.0, 1_000_000)]
    {
        assert_eq!(Share::of_percentage(percentage).unwrap().millionths(), millionths);
    }
    for wrong in [-1.0, 100.0001, 0.00005, f64::NAN] {
        assert_eq!(Share::of_percentage(wrong), None);
    }
}
