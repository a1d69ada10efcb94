//! Custom resource definitions, from the schemas of Weir's own kinds.
//!
//! An API server wants structural schemas: no references, no choices between
//! shapes. Choices between words become `enum`, an optional value loses its null;
//! what cannot be said is left open, for the control plane checks documents itself
//! and answers in their status.

use serde_json::{Map, Value, json};
use weir_mesh::policy::{self, PolicyKind};
use weir_mesh::{rollout, traffic_split};

/// What differs between the kinds beside their spec.
struct Kind {
    name: &'static str,
    plural: &'static str,
    short: &'static str,
    description: &'static str,
    spec: Value,
    /// None: what GEP-713 says of a policy.
    status: Option<Value>,
    columns: Vec<Value>,
}

/// Every definition: its file's name, and the YAML in it.
#[must_use]
pub fn all() -> Vec<(String, String)> {
    kinds()
        .into_iter()
        .map(|kind| (format!("{}.yaml", kind.plural), yaml(&definition(kind))))
        .collect()
}

fn kinds() -> Vec<Kind> {
    let mut kinds: Vec<_> = PolicyKind::ALL.iter().map(|kind| of_policy(*kind)).collect();
    kinds.push(Kind {
        name: traffic_split::KIND,
        plural: "trafficsplits",
        short: "split",
        description: "How the requests of the Service of the same name and namespace are divided \
                      between its versions. `weir shift` writes it.",
        spec: traffic_split::spec_schema(),
        status: None,
        columns: vec![column("Split", "string", ".spec.versions")],
    });
    kinds.push(Kind {
        name: rollout::KIND,
        plural: "rollouts",
        short: "ro",
        description: "How requests of a Service of the same namespace go over to another version, \
                      step by step. The control plane does it.",
        spec: rollout::spec_schema().to_value(),
        status: Some(rollout_status()),
        columns: vec![
            column("Service", "string", ".spec.service"),
            column("Canary", "string", ".spec.canary"),
            column("Phase", "string", ".status.phase"),
            column("Step", "string", ".status.progress"),
            column("Doing", "string", ".status.stepText"),
            column("Weight", "integer", ".status.weight"),
        ],
    });
    kinds
}

/// How far a rollout has come, and all that it takes to go on from there.
fn rollout_status() -> Value {
    let schema = rollout::state_schema().to_value();
    let mut status = structural(&schema, &schema["$defs"]);
    let policy = status_of_policies();
    let ancestor = &policy["properties"]["ancestors"]["items"];
    let properties = &mut status["properties"];
    // Nobody but the control plane reads them.
    properties["before"] = open();
    properties["plan"] = open();
    properties["weight"] =
        json!({"type": "integer", "description": "Percent that the canary gets."});
    properties["progress"] = json!({"type": "string", "description": "Its step, of all steps."});
    properties["observedGeneration"] = json!({"type": "integer", "format": "int64"});
    properties["conditions"] = ancestor["properties"]["conditions"].clone();
    // Before the first step there are conditions alone.
    if let Some(status) = status.as_object_mut() {
        status.remove("required");
        status.insert("description".to_owned(), "Written by the control plane.".into());
    }
    status
}

fn of_policy(kind: PolicyKind) -> Kind {
    let (plural, short, description) = match kind {
        PolicyKind::BackendTraffic => (
            "backendtrafficpolicies",
            "btp",
            "How a service's instances are chosen, checked, tried again and spared.",
        ),
        PolicyKind::RateLimit => ("ratelimitpolicies", "rlp", "How often something may be asked."),
        PolicyKind::Authorization => ("authorizationpolicies", "azp", "Who may ask for what."),
        PolicyKind::Authentication => {
            ("authenticationpolicies", "anp", "Whose tokens are believed.")
        }
        PolicyKind::Filter => (
            "httproutefilters",
            "hrf",
            "What a rule does beside the Gateway API's own filters; rules refer to it by \
             extensionRef.",
        ),
    };
    let document = policy::schema(kind);
    let mut spec = document["properties"]["spec"].clone();
    spec["$defs"] = document["$defs"].clone();
    let columns = if kind.targets().is_empty() {
        Vec::new()
    } else {
        vec![
            column("Target", "string", ".spec.targetRefs[0].name"),
            column(
                "Accepted",
                "string",
                ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status",
            ),
        ]
    };
    Kind { name: kind.as_str(), plural, short, description, spec, status: None, columns }
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path})
}

fn definition(kind: Kind) -> Value {
    let mut columns = kind.columns;
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    let mut labels = json!({"app.kubernetes.io/part-of": "weir"});
    if kind.name.ends_with("Policy") {
        // How tools find the kinds of policies (GEP-713).
        labels["gateway.networking.k8s.io/policy"] = json!("Direct");
    }
    let schema = json!({
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(&kind.spec, &kind.spec["$defs"]),
            "status": kind.status.unwrap_or_else(status_of_policies),
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural, policy::GROUP),
            "labels": labels,
        },
        "spec": {
            "group": policy::GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": format!("{}List", kind.name),
                "plural": kind.plural,
                "singular": kind.name.to_ascii_lowercase(),
                "shortNames": [kind.short],
                "categories": ["weir"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// What GEP-713 says of a policy: for each thing that it is for, whether it works.
fn status_of_policies() -> Value {
    let text = |max: u64| json!({"type": "string", "maxLength": max});
    let reference = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "group": text(253), "kind": text(63), "namespace": text(63), "name": text(253),
            "sectionName": text(253), "port": {"type": "integer", "format": "int32"},
        },
    });
    let condition = json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": text(316),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": text(1024),
            "message": text(32768),
        },
    });
    let conditions = json!({
        "type": "array", "maxItems": 8, "items": condition,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    });
    let ancestor = json!({
        "type": "object",
        "required": ["ancestorRef", "controllerName"],
        "properties": {
            "ancestorRef": reference,
            "controllerName": text(253),
            "conditions": conditions,
        },
    });
    json!({
        "type": "object",
        "description": "Written by the control plane (GEP-713).",
        "properties": {"ancestors": {"type": "array", "maxItems": 16, "items": ancestor}},
    })
}

/// A schema as an API server takes it.
fn structural(schema: &Value, definitions: &Value) -> Value {
    let Some(map) = schema.as_object() else { return open() };
    let mut map = map.clone();
    while let Some(Value::String(reference)) = map.remove("$ref") {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let Some(target) = definitions[name].as_object() else { return open() };
        let own = std::mem::replace(&mut map, target.clone());
        // What is said of the field wins over what is said of its type.
        map.extend(own);
    }
    let choices = ["anyOf", "oneOf"].into_iter().find_map(|key| map.remove(key));
    if let Some(Value::Array(choices)) = choices {
        let described = map.remove("description");
        let mut chosen = choice(&choices, definitions);
        if let Some(description) = described {
            chosen["description"] = description;
        }
        return chosen;
    }
    let mut out = Map::new();
    for (key, value) in &map {
        match (key.as_str(), value) {
            ("type", Value::Array(types)) => {
                if let [one] = &types.iter().filter(|t| *t != "null").collect::<Vec<_>>()[..] {
                    out.insert(key.clone(), (*one).clone());
                } else {
                    return open();
                }
            }
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter();
                let properties = properties.map(|(k, v)| (k.clone(), structural(v, definitions)));
                out.insert(key.clone(), Value::Object(properties.collect()));
            }
            ("items", items) => {
                out.insert(key.clone(), structural(items, definitions));
            }
            ("additionalProperties", Value::Object(_)) => {
                out.insert(key.clone(), structural(value, definitions));
            }
            ("const", word) => {
                out.insert("enum".to_owned(), json!([word]));
            }
            (
                "type" | "description" | "enum" | "required" | "minimum" | "maximum" | "minLength"
                | "maxLength" | "minItems" | "maxItems" | "pattern",
                _,
            ) => {
                out.insert(key.clone(), value.clone());
            }
            // Defaults stay with the program: what the API server wrote into a document
            // would be the user's own words at the next look.
            _ => {}
        }
    }
    if !out.contains_key("type") {
        match out.get("enum").and_then(|words| words[0].as_str()) {
            Some(_) => out.insert("type".to_owned(), json!("string")),
            None => return open(),
        };
    }
    Value::Object(out)
}

/// One of several shapes: an optional one, one of words, or what cannot be said.
fn choice(choices: &[Value], definitions: &Value) -> Value {
    let shapes: Vec<_> = choices.iter().filter(|choice| choice["type"] != "null").collect();
    if let [one] = shapes[..] {
        return structural(one, definitions);
    }
    let words: Option<Vec<_>> = shapes
        .iter()
        .map(|shape| match (shape.get("const"), shape.get("enum").and_then(Value::as_array)) {
            (Some(word), _) => Some(vec![word.clone()]),
            (None, words) => words.cloned(),
        })
        .collect();
    match words {
        Some(words) => json!({"type": "string", "enum": words.concat()}),
        None => open(),
    }
}

/// Anything.
fn open() -> Value {
    json!({"x-kubernetes-preserve-unknown-fields": true})
}

/// JSON is YAML; written with keys and lists in lines of their own, so that a
/// change of one field is a change of one line.
fn yaml(value: &Value) -> String {
    let mut out = String::from(
        "# Generated from the types that read it: cargo run -p weir-tests --example chart\n",
    );
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&indent);
                entry(&key_text(key), value, depth, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                out.push_str(&indent);
                if nested(value) {
                    // The first key stands on the line of the dash.
                    let mut inner = String::new();
                    block(value, depth + 1, &mut inner);
                    out.push_str("- ");
                    out.push_str(inner.trim_start());
                } else {
                    out.push_str(&format!("- {value}\n"));
                }
            }
        }
        other => out.push_str(&format!("{indent}{other}\n")),
    }
}

fn entry(key: &str, value: &Value, depth: usize, out: &mut String) {
    if nested(value) {
        out.push_str(&format!("{key}:\n"));
        block(value, depth + 1, out);
    } else {
        out.push_str(&format!("{key}: {value}\n"));
    }
}

fn nested(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// A key, quoted where YAML would read something else.
fn key_text(key: &str) -> String {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if plain { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}
