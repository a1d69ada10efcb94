//! What is written by `cargo run -p weir-tests --example chart`.

use serde_json::Value;
use weir_tests::chart;

/// Also: `values.yaml` is what the types expect, or there would be no files.
#[test]
fn the_generated_files_are_those_in_the_repository() {
    for (path, text) in chart::files().unwrap() {
        let found = std::fs::read_to_string(chart::root().join(&path)).unwrap_or_default();
        assert!(
            found == text,
            "{} is not as generated: cargo run -p weir-tests --example chart",
            path.display()
        );
    }
}

/// An API server takes no others.
#[test]
fn crds_have_structural_schemas() {
    for (name, text) in chart::crds::all() {
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        structural(schema, &name);
        let spec = &schema["properties"]["spec"];
        assert!(spec["properties"].as_object().is_some_and(|fields| !fields.is_empty()), "{name}");
        // A policy's status is by what it is attached to, a rollout's how far it is.
        let status = &schema["properties"]["status"]["properties"];
        assert!(status["ancestors"].is_object() || status["phase"].is_object(), "{name}");
    }
}

fn structural(schema: &Value, at: &str) {
    let map = schema.as_object().unwrap_or_else(|| panic!("{at}: {schema}"));
    for word in ["$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "default"] {
        assert!(!map.contains_key(word), "{at}: {word}");
    }
    let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    assert!(open || schema["type"].is_string(), "{at}: has no type");
    if schema["type"] == "array" {
        structural(&schema["items"], &format!("{at}[]"));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        structural(field, &format!("{at}.{name}"));
    }
    if schema["additionalProperties"].is_object() {
        structural(&schema["additionalProperties"], &format!("{at}.*"));
    }
}

/// A word that is not in the schema would be pruned by the API server without a sound.
#[test]
fn every_field_of_the_types_is_in_the_crds() {
    for kind in weir_mesh::policy::PolicyKind::ALL {
        let document = weir_mesh::policy::schema(*kind);
        let fields = document["properties"]["spec"]["properties"].as_object().unwrap();
        let (_, text) = chart::crds::all()
            .into_iter()
            .find(|(_, text)| text.contains(&format!("kind: \"{kind}\"\n")))
            .unwrap();
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for name in fields.keys() {
            assert!(spec["properties"][name].is_object(), "{kind}: {name}");
        }
    }
}

/// A panel about a metric that is not there shows nothing, and nobody wonders.
#[test]
fn the_dashboard_asks_for_metrics_that_are_documented() {
    let read = |path: &str| std::fs::read_to_string(chart::root().join(path)).unwrap();
    let documented = read("docs/src/observability.md");
    let dashboard: Value = serde_json::from_str(&read("helm/weir/files/dashboard.json")).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|w| {
                ["weir_router", "weir_control", "http_", "rpc_"].iter().any(|p| w.starts_with(p))
            }) {
                let series = ["_bucket", "_count", "_sum"].iter();
                let name = series.fold(word, |word, end| word.strip_suffix(end).unwrap_or(word));
                assert!(documented.contains(name), "{}: {name}", panel["title"]);
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked}");
}
