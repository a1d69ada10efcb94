//! The schema and the parser agree on what has a form at all.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{rule_with, services};
use crate::gateway_api::{parse_route, schema};

/// Where a document does not fit the schema of its kind.
pub(super) fn misfit(document: &Value) -> Option<String> {
    static SCHEMAS: LazyLock<[Value; 2]> = LazyLock::new(|| ["HTTPRoute", "GRPCRoute"].map(schema));
    let of = &SCHEMAS[usize::from(document["kind"] == "GRPCRoute")];
    check(of, document, "").err()
}

/// As much of JSON Schema as ours uses; anything else is a mistake of ours.
fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |why: String| Err(format!("{at}: {why}: {value}"));
    for (keyword, want) in schema.as_object().unwrap() {
        let number = || want.as_u64().unwrap() as usize;
        let each = || want.as_array().unwrap().iter();
        match keyword.as_str() {
            "$schema" | "title" => {}
            "properties" => {
                for (field, of) in want.as_object().unwrap() {
                    if let Some(value) = value.get(field) {
                        check(of, value, &format!("{at}.{field}"))?;
                    }
                }
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flat_map(|map| map.keys()) {
                    check(want, &json!(name), &format!("{at} {name}"))?;
                }
            }
            "not" if check(want, value, at).is_ok() => return wrong(format!("fits {want}")),
            "not" => {}
            "const" if want != value => return wrong(format!("is not {want}")),
            "enum" if each().all(|one| one != value) => return wrong(format!("not in {want}")),
            "const" | "enum" => {}
            "type" if !is(want.as_str().unwrap(), value) => return wrong(format!("is no {want}")),
            "type" => {}
            "required" => {
                let missing = each().find(|field| value.get(field.as_str().unwrap()).is_none());
                if let (true, Some(missing)) = (value.is_object(), missing) {
                    return wrong(format!("{missing} is missing"));
                }
            }
            "additionalProperties" => {
                let mut fields = value.as_object().into_iter().flat_map(|map| map.keys());
                let known = &schema["properties"];
                if let Some(field) = fields.find(|field| known.get(field).is_none()) {
                    return wrong(format!("{field} is not known"));
                }
            }
            "items" => {
                for (i, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(want, value, &format!("{at}[{i}]"))?;
                }
            }
            "minItems" if value.as_array().is_some_and(|l| l.len() < number()) => {
                return wrong("too few".into());
            }
            "maxItems" if value.as_array().is_some_and(|l| l.len() > number()) => {
                return wrong("too many".into());
            }
            "minLength" if value.as_str().is_some_and(|t| t.len() < number()) => {
                return wrong("too short".into());
            }
            "maxLength" if value.as_str().is_some_and(|t| t.len() > number()) => {
                return wrong("too long".into());
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" => {}
            "minimum" if value.as_i64().is_some_and(|n| n < want.as_i64().unwrap()) => {
                return wrong("too small".into());
            }
            "maximum" if value.as_i64().is_some_and(|n| n > want.as_i64().unwrap()) => {
                return wrong("too large".into());
            }
            "minimum" | "maximum" => {}
            "pattern" => {
                let regex = regex_lite::Regex::new(want.as_str().unwrap()).unwrap();
                if value.as_str().is_some_and(|text| !regex.is_match(text)) {
                    return wrong(format!("does not fit {want}"));
                }
            }
            "anyOf" | "oneOf" => {
                let fits: Vec<_> = each().map(|one| check(one, value, at)).collect();
                let good = fits.iter().filter(|fit| fit.is_ok()).count();
                if good == 0 || (keyword == "oneOf" && good > 1) {
                    return fits.into_iter().find(Result::is_err).unwrap();
                }
            }
            other => panic!("the schema uses {other}, which this checker does not know"),
        }
    }
    Ok(())
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_i64().is_some(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema uses the type {other}"),
    }
}

fn rules() -> Vec<(bool, Value)> {
    let users = json!([{"name": "users"}]);
    let with_filter = |filter: Value| json!({"filters": [filter], "backendRefs": users});
    let with_match = |matched: Value| json!({"matches": [matched], "backendRefs": users});
    vec![
        (true, json!({"backendRefs": users, "name": null})),
        (
            true,
            json!({"backendRefs": [{"name": "users", "weight": 0}, {"name": "auth", "port": 80}]}),
        ),
        (false, json!({"backendRefs": [{"name": "users", "weight": -1}]})),
        (false, json!({"backendRefs": [{"name": "users", "weigth": 1}]})),
        (false, json!({"backendRefs": [{"weight": 1}]})),
        (false, json!({"backendRefs": {}})),
        (true, with_match(json!({"path": {"type": "RegularExpression", "value": "/a.*"}}))),
        (false, with_match(json!({"path": {"type": "Regex", "value": "/a.*"}}))),
        (false, with_match(json!({"path": "/a"}))),
        (false, with_match(json!({"method": "get"}))),
        (true, with_match(json!({"headers": [{"name": "a", "value": "b"}], "method": "GET"}))),
        (false, with_match(json!({"headers": [{"name": "a"}]}))),
        (false, with_match(json!({"queryParams": [{"name": 1, "value": "b"}]}))),
        (true, with_filter(json!({"type": "CORS", "cors": {"allowOrigins": ["*"]}}))),
        (false, with_filter(json!({"type": "CORS", "cors": {"maxAge": 0}}))),
        (false, with_filter(json!({"type": "CORS"}))),
        (false, with_filter(json!({"type": "CORS", "urlRewrite": {}}))),
        (
            true,
            with_filter(json!({"type": "RequestMirror", "requestMirror": {
            "backendRef": {"name": "auth"}, "fraction": {"numerator": 1}}})),
        ),
        (false, with_filter(json!({"type": "RequestMirror", "requestMirror": {"percent": 1}}))),
        (
            true,
            with_filter(json!({"type": "ExtensionRef", "extensionRef": {
            "group": "weir.dev", "kind": "HTTPRouteFilter", "name": "a"}})),
        ),
        (false, with_filter(json!({"type": "ExtensionRef", "extensionRef": {"name": "a"}}))),
        (true, json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"port": 1}}]})),
        (false, json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"port": 0}}]})),
        (
            true,
            json!({"backendRefs": users, "timeouts": {"request": "1s", "backendRequest": "1s"}}),
        ),
        (false, json!({"backendRefs": users, "timeouts": {"request": "1"}})),
        (false, json!({"backendRefs": users, "retry": {"codes": [200]}})),
        (true, json!({"backendRefs": users, "sessionPersistence": {"type": "Header"}})),
        (false, json!({"backendRefs": users, "sessionPersistence": {"type": "Basic"}})),
    ]
}

#[test]
fn schema_and_parser_agree() {
    for (good, rule) in rules() {
        let document = rule_with(&rule);
        let parsed = parse_route(&document, "", &services());
        assert_eq!(parsed.is_ok(), good, "{rule}: {parsed:?}");
        assert_eq!(misfit(&document).is_none(), good, "{rule}: {:?}", misfit(&document));
    }
    let mut document = rule_with(&json!({"backendRefs": [{"name": "users"}]}));
    document["status"] = json!({});
    assert!(misfit(&document).is_some() && parse_route(&document, "", &services()).is_err());
    assert_eq!(schema("Service"), Value::Null);
}

#[test]
fn grpc_routes_have_a_schema_of_their_own() {
    let grpc = |matched: Value| {
        let rule = json!({"matches": [matched], "backendRefs": [{"name": "users"}]});
        let mut document = rule_with(&rule);
        document["kind"] = "GRPCRoute".into();
        let parsed = parse_route(&document, "", &services()).is_ok();
        assert_eq!(parsed, misfit(&document).is_none(), "{:?}", misfit(&document));
        parsed
    };
    assert!(grpc(json!({"method": {"service": "a.B"}})));
    assert!(grpc(json!({"method": {"type": "RegularExpression", "method": "Get.*"}})));
    assert!(!grpc(json!({"method": {}})));
    assert!(!grpc(json!({"path": {"value": "/"}})));
}
