//! The transcoder through its front door.

mod laws;
mod odd;

use std::collections::BTreeSet;

use http::Method;
use prost::Message as _;
use serde_json::{Value, json};
use weir_proto::descriptors;
use weir_proto::weir::control::v1 as pb;

use super::{Call, Found, TranscodeError, Transcoder};

fn control() -> Transcoder {
    Transcoder::new(descriptors::CONTROL).unwrap()
}

fn call(transcoder: &Transcoder, method: &Method, path: &str) -> Call {
    match transcoder.find(method, path) {
        Found::Call(call) => call,
        other => panic!("{method} {path}: {other:?}"),
    }
}

/// The violations of a request, as `field: description`.
fn refused(call: &Call, query: &str, body: &str) -> Vec<String> {
    match call.encode_request(Some(query), body.as_bytes()) {
        Err(TranscodeError::Request(invalid)) => {
            invalid.0.iter().map(ToString::to_string).collect()
        }
        other => panic!("{query} {body}: {other:?}"),
    }
}

#[test]
fn a_shift_takes_its_service_from_the_path_and_the_rest_from_the_body() {
    let call = call(&control(), &Method::POST, "/v1/services/products/shift");
    assert_eq!(call.grpc_path(), "/weir.control.v1.ControlService/Shift");
    assert_eq!((call.service(), call.method()), ("weir.control.v1.ControlService", "Shift"));
    assert_eq!(call.template(), "/v1/services/{service}/shift");
    let body =
        br#"{"weights":{"v1":90,"v2":10},"wait":true,"wait_seconds":5,"expectedRevision":7}"#;
    let message = pb::ShiftRequest::decode(call.encode_request(None, body).unwrap()).unwrap();
    assert_eq!(message.service, "products");
    assert_eq!(message.weights, [("v1".into(), 90), ("v2".into(), 10)].into());
    assert_eq!((message.wait, message.wait_seconds, message.expected_revision), (true, 5, 7));
}

#[test]
fn an_answer_has_defaults_but_nothing_that_is_unset() {
    let call = call(&control(), &Method::POST, "/v1/services/products/shift");
    let json = |message: pb::ChangeResponse| -> Value {
        serde_json::from_slice(&call.decode_response(&message.encode_to_vec()).unwrap()).unwrap()
    };
    assert_eq!(
        json(pb::ChangeResponse::default()),
        json!({
            "revision": 0, "unchanged": false, "warnings": [], "changes": [], "replayed": false,
        })
    );
    let converged = pb::Converged { routers: 9, applied: 9, slowest_ms: 12, pending: vec![] };
    assert_eq!(
        json(pb::ChangeResponse { revision: 7, converged: Some(converged), ..Default::default() }),
        json!({
            "revision": 7,
            "converged": {"routers": 9, "applied": 9, "slowestMs": 12, "pending": []},
            "unchanged": false,
            "warnings": [],
            "changes": [],
            "replayed": false,
        })
    );
    assert!(matches!(call.decode_response(b"\xff"), Err(TranscodeError::Response { .. })));
}

#[test]
fn sixty_four_bits_are_text() {
    let call = call(&control(), &Method::GET, "/v1/mesh");
    let mesh = pb::Mesh { sequence: u64::MAX, ..pb::Mesh::default() };
    let json: Value =
        serde_json::from_slice(&call.decode_response(&mesh.encode_to_vec()).unwrap()).unwrap();
    assert_eq!(json["sequence"], "18446744073709551615");
}

#[test]
fn a_nested_field_comes_from_the_path() {
    let call = call(&control(), &Method::PUT, "/v1/routes/web");
    let body = br#"{"kind":"HTTP_ROUTE","hostnames":["a.test"]}"#;
    let message = call.encode_request(Some("reason=why%20not+so"), body).unwrap();
    let message = pb::PutRouteRequest::decode(message).unwrap();
    let route = message.route.unwrap();
    assert_eq!((route.name.as_str(), route.hostnames.as_slice()), ("web", &["a.test".into()][..]));
    assert_eq!(message.reason, "why not so");

    assert_eq!(
        refused(&call, "", r#"{"name":"other"}"#),
        ["route.name: is one thing in the path and another in the body; leave it out of the body"]
    );
    assert!(call.encode_request(None, br#"{"name":"web"}"#).is_ok());
    assert_eq!(refused(&call, "route.kind=1", ""), ["route.kind: is taken from the body"]);
    assert_eq!(
        refused(&call, "", r#"{"rules":[{},{"backendRefs":[{"wieght":1}]}]}"#),
        ["route.rules[1].backendRefs[0].wieght: is not a field of weir.mesh.v1.BackendRef; \
          did you mean weight?"]
    );
}

#[test]
fn a_method_has_more_than_one_binding() {
    let transcoder = control();
    let all = call(&transcoder, &Method::GET, "/v1/history");
    let message = all.encode_request(Some("service=users&limit=3"), b"").unwrap();
    let message = pb::ListHistoryRequest::decode(message).unwrap();
    assert_eq!((message.service.as_str(), message.limit), ("users", 3));

    let one = call(&transcoder, &Method::GET, "/v1/services/auth/history");
    assert_eq!(all.grpc_path(), one.grpc_path());
    let message = pb::ListHistoryRequest::decode(one.encode_request(None, b"").unwrap()).unwrap();
    assert_eq!(message.service, "auth");
    assert_eq!(refused(&one, "service=users", ""), ["service: is taken from the path"]);
}

#[test]
fn what_is_unknown_or_wrong_is_refused_by_its_path() {
    let transcoder = control();
    let shift = call(&transcoder, &Method::POST, "/v1/services/products/shift");
    assert_eq!(
        refused(&shift, "", r#"{"weights":{"v1":"many"}}"#),
        ["weights.v1: invalid digit found in string"]
    );
    assert_eq!(
        refused(&shift, "", r#"{"wieghts":{}}"#),
        ["wieghts: is not a field of weir.control.v1.ShiftRequest; did you mean weights?"]
    );
    assert_eq!(
        refused(&shift, "dry=1", r#"{"reason":5}"#),
        [
            "reason: is integer, expected a string",
            "dry: is not a field of weir.control.v1.ShiftRequest; there are: service, weights, \
             sticky, clearSticky, wait, waitSeconds, reason, expectedRevision, allowEmpty, \
             idempotencyKey, confirm, confirmSeconds, force",
        ]
    );
    assert_eq!(
        refused(&shift, "wait=true", "{}"),
        ["wait: is taken from the body, as all fields are"]
    );
    assert!(refused(&shift, "", r#"{"wait":"#)[0].starts_with("the body is not JSON: "));
    assert!(refused(&shift, "", "{} {}")[0].starts_with("the body is not JSON: "));
    assert!(!refused(&shift, "", "[]").is_empty());
    assert_eq!(
        refused(&shift, "", r#"{"sticky":{"header":"a","cookie":"b"}}"#),
        ["sticky: multiple fields provided for oneof 'by'"]
    );

    let history = call(&transcoder, &Method::GET, "/v1/history");
    assert_eq!(
        refused(&history, "limit=-1&limit=2&service=%zz", r#"{"limit":1}"#),
        [
            "this method takes no body; use query parameters",
            "limit: \"-1\" is not an integer from 0 to 4294967295",
            "limit: is given more than once",
            "service: has a '%' without two hexadecimal digits",
        ]
    );
    assert!(history.encode_request(None, b" {} ").is_ok());
}

#[test]
fn a_secret_of_the_wrong_type_is_not_repeated() {
    let transcoder = Transcoder::new(descriptors::AUTH).unwrap();
    let login = call(&transcoder, &Method::POST, "/v1/auth/login");
    let errors = refused(&login, "", r#"{"email":"a@b.c","password":87654321}"#);
    assert_eq!(errors, ["password: is integer, expected a string"]);
}

#[test]
fn a_known_path_with_another_method_is_told_from_an_unknown_one() {
    let transcoder = control();
    match transcoder.find(&Method::GET, "/v1/routes/web") {
        Found::MethodNotAllowed(allowed) => assert_eq!(allowed, [Method::PUT, Method::DELETE]),
        other => panic!("{other:?}"),
    }
    for path in ["/", "", "/v1/routes/", "/v1/routes//", "/v2/routes/web", "/v1/routes/a/b"] {
        assert!(matches!(transcoder.find(&Method::GET, path), Found::NotFound), "{path}");
    }
    assert!(matches!(transcoder.find(&Method::HEAD, "/v1/mesh"), Found::Call(_)));
}

#[test]
fn verbs_win_over_variables_and_literals_over_both() {
    let products = Transcoder::new(descriptors::PRODUCTS).unwrap();
    let method = |method: &Method, path: &str| call(&products, method, path).method().to_owned();
    assert_eq!(method(&Method::GET, "/v1/products"), "ListProducts");
    assert_eq!(method(&Method::GET, "/v1/products:batchGet"), "BatchGetProducts");
    assert_eq!(method(&Method::GET, "/v1/products/7"), "GetProduct");
    assert_eq!(method(&Method::POST, "/v1/products/7:rate"), "RateProduct");
    assert_eq!(method(&Method::GET, "/v1/products/7%3Arate"), "GetProduct");
    assert!(call(&products, &Method::GET, "/v1/products:export").server_streaming());

    let users = Transcoder::new(descriptors::USERS).unwrap();
    assert_eq!(call(&users, &Method::GET, "/v1/users/me").method(), "GetMe");
    assert_eq!(call(&users, &Method::GET, "/v1/users/you").method(), "GetUser");
    assert_eq!(call(&users, &Method::GET, "/v1/users/me:watch").method(), "WatchMe");
    assert_eq!(call(&users, &Method::GET, "/v1/users/%6De").method(), "GetMe");
}

#[test]
fn a_set_without_annotations_has_no_bindings() {
    assert!(Transcoder::new(descriptors::MESH).unwrap().is_empty());
    assert!(Transcoder::new(b"").unwrap().is_empty());
    assert!(Transcoder::new(b"nonsense").is_err());
}

#[test]
fn every_set_has_a_sound_openapi_document() {
    for (title, set) in [
        ("control", descriptors::CONTROL),
        ("auth", descriptors::AUTH),
        ("users", descriptors::USERS),
        ("products", descriptors::PRODUCTS),
        ("notifications", descriptors::NOTIFICATIONS),
    ] {
        let transcoder = Transcoder::new(set).unwrap();
        let document = transcoder.openapi(title, "1", &["http://127.0.0.1:1"]);
        check_openapi(&document);
    }
}

#[test]
fn openapi_says_what_the_schema_says() {
    let document = control().openapi("Weir", "1", &[]);
    let shift = &document["paths"]["/v1/services/{service}/shift"]["post"];
    assert_eq!(shift["operationId"], "ControlService_Shift");
    assert_eq!(shift["description"], "Sets the weights of a service's versions.");
    let body = &shift["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(body["weights"]["additionalProperties"]["type"], "integer");
    assert_eq!(body["service"], Value::Null, "the path has it");
    // One path, though its two methods call the variable differently.
    let route = &document["paths"]["/v1/routes/{name}"];
    assert!(route["put"].is_object() && route["delete"].is_object());
    let history = &document["paths"]["/v1/history"]["get"]["parameters"];
    assert_eq!(history[1]["name"], "limit");
    assert_eq!(history[1]["description"], "1 to 1,000; 0: 50.");
}

/// Every `$ref` resolves, operation ids are unique, path parameters are those of
/// the path.
fn check_openapi(document: &Value) {
    fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                out.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, out));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }
    assert_eq!(document["openapi"], "3.1.0");
    let mut all = Vec::new();
    references(document, &mut all);
    for reference in all {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    let mut shapes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let names: BTreeSet<&str> =
            path.split('{').skip(1).map(|part| part.split_once('}').unwrap().0).collect();
        let shape = names.iter().fold(path.clone(), |p, n| p.replace(&format!("{{{n}}}"), "{}"));
        assert!(shapes.insert(shape), "{path} is there under another name");
        for operation in item.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let mut seen = BTreeSet::new();
            let mut in_path = BTreeSet::new();
            for parameter in &parameters {
                let name = parameter["name"].as_str().unwrap();
                assert!(seen.insert((name, parameter["in"].as_str().unwrap())), "{path} {name}");
                if parameter["in"] == "path" {
                    assert_eq!(parameter["required"], true);
                    in_path.insert(name);
                }
            }
            assert_eq!(names, in_path, "{path}");
        }
    }
}
