use serde_json::json;

use super::*;

#[test]
fn a_spec_survives_the_wire() {
    let spec = json!({
        "targetRefs": [{ "kind": "Service", "name": "web" }],
        "a": [1, 1.5, null, true, { "b": "c" }], "large": 9_007_199_254_740_992_i64,
    });
    assert_eq!(value::from_struct(&value::to_struct(&spec)), spec);
}

#[test]
fn a_token_that_the_whole_mesh_asks_for_must_be_passed_on() {
    let told = |target: Value, forward: bool| {
        let spec = json!({
            "targetRefs": [target],
            "issuers": [{
                "issuer": "https://id.example.com", "audiences": ["shop"], "forward": forward,
                "algorithms": ["ES256"], "jwks": {"service": "auth"},
            }],
        });
        let read = Policy::read("AuthenticationPolicy", "tokens", &spec, "");
        read.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let mesh = json!({ "kind": "Mesh", "name": "mesh" });
    assert_eq!(told(json!({ "kind": "Gateway", "name": "gateway" }), false), "");
    assert_eq!(told(mesh.clone(), true), "");
    let error = told(mesh, false);
    assert!(error.starts_with("spec.issuers[0].forward: is false"), "{error}");
}

#[test]
fn durations_are_read_and_printed() {
    let read: value::DurationText = serde_json::from_value(json!("1m30s")).unwrap();
    assert_eq!(read.0.as_secs(), 90);
    assert_eq!(serde_json::to_value(read).unwrap(), json!("1m30s"));
    assert!(serde_json::from_value::<value::DurationText>(json!("soon")).is_err());
}

#[cfg(feature = "gateway-api")]
mod documents {
    use super::*;
    use crate::gateway_api::reader::join;

    fn errors(document: &Value) -> Vec<String> {
        match parse_policy(document, "") {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.0.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let document = json!({
            "apiVersion": API_VERSION,
            "kind": "BackendTrafficPolicy",
            "metadata": { "name": "web" },
            "spec": { "targetRefs": [{ "kind": "Service", "name": "web" }] },
        });
        let policy = parse_policy(&document, "").unwrap();
        assert_eq!(policy.targets, [Target::Service("web".parse().unwrap())]);
        assert_eq!(to_document(&policy), document);
    }

    #[test]
    fn every_mistake_is_told_by_its_path() {
        let document = json!({
            "apiVersion": "weir.dev/v2",
            "kind": "BackendTrafficPolicy",
            "metadata": { "name": "Web", "colour": "red" },
            "spec": {
                "targetRefs": [
                    { "kind": "Service", "nam": "web" },
                    { "kind": "HTTPRoute", "name": "web" },
                ],
                "loadBalanser": {},
            },
        });
        let told = errors(&document);
        for wanted in [
            "apiVersion: \"weir.dev/v2\" is not supported; use weir.dev/v1alpha1",
            "metadata.colour: is not known",
            "metadata.name: \"Web\" is not a DNS subdomain name",
            "spec.targetRefs[0].nam: is not known; did you mean name?",
            "spec.targetRefs[0].name: is missing",
            "spec.targetRefs[1].kind: a BackendTrafficPolicy is not attached to \"HTTPRoute\"; use Service",
            "spec.loadBalanser: is not known",
        ] {
            assert!(told.iter().any(|t| t.starts_with(wanted)), "{wanted} not in {told:#?}");
        }
    }

    #[test]
    fn a_policy_for_nothing_is_refused() {
        for refs in [json!([]), json!(null)] {
            let spec = json!({ "targetRefs": refs });
            let error = Policy::read("BackendTrafficPolicy", "x", &spec, "p").unwrap_err();
            assert!(error.to_string().starts_with("p.spec.targetRefs: is empty"), "{error}");
        }
        let error = Policy::read("Nonsense", "x", &json!({}), "").unwrap_err();
        assert!(
            error.to_string().starts_with("kind: \"Nonsense\" is no kind of policy"),
            "{error}"
        );
    }

    /// Schemas are told to users and editors: every field has words, and nothing
    /// that is unknown passes.
    #[test]
    fn every_schema_is_closed_and_described() {
        fn walk(at: &str, schema: &Value) {
            if let Some(properties) = schema["properties"].as_object() {
                assert_eq!(schema["additionalProperties"], json!(false), "{at}");
                for (name, property) in properties {
                    let at = join(at, name);
                    if !at.starts_with("apiVersion")
                        && at != "kind"
                        && !at.starts_with("metadata")
                        && at != "spec"
                    {
                        let described =
                            property["description"].is_string() || property["$ref"].is_string();
                        assert!(described, "{at} has no description");
                    }
                    walk(&at, property);
                }
            }
        }
        for kind in PolicyKind::ALL {
            let schema = schema(*kind);
            walk("", &schema);
            for (name, definition) in schema["$defs"].as_object().unwrap() {
                walk(name, definition);
            }
        }
    }
}
