//! Documents of these kinds: YAML or JSON with `apiVersion` and `kind`.

use serde_json::{Value, json};

use super::{API_VERSION, Policy, PolicyKind, target};
use crate::gateway_api::reader::{Object, near};
use crate::model::{Invalid, Violations};

/// Reads a policy's document. `at` is its path within what the user wrote.
///
/// # Errors
/// All fields that are wrong, each by its path.
pub fn parse_policy(value: &Value, at: &str) -> Result<Policy, Invalid> {
    let mut bad = Violations::new();
    let policy = policy(value, at, &mut bad);
    bad.finish(policy)
}

fn policy(value: &Value, at: &str, bad: &mut Violations) -> Option<Policy> {
    let object = Object::open(value, at, bad)?;
    object.check(&["apiVersion", "kind", "metadata", "spec"], &["status"], bad);
    if let Some(version) = object.required("apiVersion", bad)
        && version != API_VERSION
    {
        let why = format!("{version:?} is not supported; use {API_VERSION}");
        bad.add(object.path("apiVersion"), why);
    }
    let kind = object.required("kind", bad)?;
    let kind = match kind.parse::<PolicyKind>() {
        Ok(kind) => Some(kind),
        Err(error) => {
            match near(kind, PolicyKind::ALL.iter().map(|kind| kind.as_str())) {
                Some(near) => {
                    bad.add(object.path("kind"), format_args!("{error}; did you mean {near}?"));
                }
                None => bad.add(object.path("kind"), error),
            }
            None
        }
    };
    let metadata = object.required_object("metadata", bad);
    let name = metadata.and_then(|metadata| {
        metadata.check(&["name", "namespace", "labels", "annotations"], &[], bad);
        if let Some(namespace) = metadata.text("namespace", bad)
            && namespace != "default"
        {
            let why = format!("{namespace:?} is not supported yet; use default, or leave it out");
            bad.add(metadata.path("namespace"), why);
        }
        let name = metadata.required("name", bad)?;
        super::check_name(name, &metadata.path("name"), bad);
        Some(name)
    });
    let spec = object.get("spec");
    if spec.is_none() {
        bad.add(object.path("spec"), "is missing");
    }
    Policy::of_kind(kind?, name?, spec?, &object.path("spec"), bad)
}

/// Writes a policy as [`parse_policy`] reads it.
#[must_use]
pub fn to_document(policy: &Policy) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": policy.kind.as_str(),
        "metadata": { "name": *policy.name },
        "spec": policy.document(),
    })
}

/// The JSON Schema (draft 2020-12) of a kind's documents.
#[must_use]
pub fn schema(kind: PolicyKind) -> Value {
    let (mut spec, mut definitions) = with_definitions(kind.spec_schema());
    if !kind.targets().is_empty() {
        let mut target = schemars::schema_for!(target::TargetRef).to_value();
        if let Some(target) = target.as_object_mut() {
            target.remove("$schema");
        }
        let names: Vec<_> = kind.targets().iter().map(|kind| kind.as_str()).collect();
        target["properties"]["kind"]["enum"] = json!(names);
        definitions["TargetRef"] = target;
        spec["properties"]["targetRefs"] = json!({
            "description": "What the policy is for (GEP-713).",
            "type": "array",
            "items": { "$ref": "#/$defs/TargetRef" },
            "minItems": 1,
            "maxItems": 16,
        });
        if !kind.targets_optional() {
            let required = spec["required"].as_array().cloned().unwrap_or_default();
            let required = [json!("targetRefs")].into_iter().chain(required).collect();
            spec["required"] = Value::Array(required);
        }
    }
    document_schema(kind.as_str(), &spec, &definitions)
}

/// A spec's schema and the definitions that it refers to.
pub(crate) fn with_definitions(spec: schemars::Schema) -> (Value, Value) {
    let mut spec = spec.to_value();
    let definitions = spec
        .as_object_mut()
        .and_then(|spec| {
            spec.remove("$schema");
            spec.remove("$defs")
        })
        .unwrap_or_else(|| json!({}));
    (spec, definitions)
}

/// The JSON Schema (draft 2020-12) of a document of a kind of Weir's own.
pub(crate) fn document_schema(kind: &str, spec: &Value, definitions: &Value) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "type": "object",
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": kind },
            "metadata": {
                "type": "object",
                "properties": {
                    "name": { "type": "string", "minLength": 1, "maxLength": 253 },
                    "namespace": { "const": "default" },
                    "labels": { "type": "object" },
                    "annotations": { "type": "object" },
                },
                "required": ["name"],
                "additionalProperties": false,
            },
            "spec": spec,
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}
