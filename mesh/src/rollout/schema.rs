//! Documents of this kind: YAML or JSON with `apiVersion` and `kind`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::read::{self, Reader};
use super::{RolloutDocument, Spec};
use crate::gateway_api::reader::Object;
use crate::model::{Invalid, Violations};
use crate::policy::document::{document_schema, with_definitions};
use crate::policy::{API_VERSION, check_name, structure};

/// The `kind` of these documents.
pub const KIND: &str = "Rollout";

impl Spec {
    /// Reads a spec. `at` is its path within what the user wrote.
    ///
    /// # Errors
    /// All fields that are wrong, each by its path.
    pub fn read(written: &Value, at: &str) -> Result<Self, Invalid> {
        let mut bad = Violations::new();
        let spec = spec(written, at, &mut bad);
        bad.finish(spec)
    }
}

fn spec(written: &Value, at: &str, bad: &mut Violations) -> Option<Spec> {
    if !structure::check(spec_schema().as_value(), written, at, bad) {
        return None;
    }
    let document = bad.take(at, serde_json::from_value::<RolloutDocument>(written.clone()))?;
    read::spec(&document, written, &mut Reader::new(at, bad))
}

/// Reads name and spec of a rollout; the fields are called `name` and `spec` below
/// `at`.
///
/// # Errors
/// All fields that are wrong, each by its path.
pub fn read_rollout(name: &str, written: &Value, at: &str) -> Result<(Arc<str>, Spec), Invalid> {
    let mut bad = Violations::new();
    let dot = if at.is_empty() { "" } else { "." };
    check_name(name, &format!("{at}{dot}name"), &mut bad);
    let spec = spec(written, &format!("{at}{dot}spec"), &mut bad);
    bad.finish(spec.map(|spec| (name.into(), spec)))
}

/// Reads a rollout's document: its name and spec. `at` is its path within what the
/// user wrote.
///
/// # Errors
/// All fields that are wrong, each by its path.
pub fn parse_rollout(value: &Value, at: &str) -> Result<(Arc<str>, Spec), Invalid> {
    let mut bad = Violations::new();
    let rollout = rollout(value, at, &mut bad);
    bad.finish(rollout)
}

fn rollout(value: &Value, at: &str, bad: &mut Violations) -> Option<(Arc<str>, Spec)> {
    let object = Object::open(value, at, bad)?;
    // What Kubernetes shows of one may be applied elsewhere.
    object.check(&["apiVersion", "kind", "metadata", "spec", "status"], &[], bad);
    if let Some(version) = object.required("apiVersion", bad)
        && version != API_VERSION
    {
        let why = format!("{version:?} is not supported; use {API_VERSION}");
        bad.add(object.path("apiVersion"), why);
    }
    if let Some(kind) = object.required("kind", bad)
        && kind != KIND
    {
        bad.add(object.path("kind"), format_args!("{kind:?} is not {KIND}"));
    }
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
        check_name(name, &metadata.path("name"), bad);
        Some(name)
    });
    let written = object.get("spec");
    if written.is_none() {
        bad.add(object.path("spec"), "is missing");
    }
    let spec = spec(written?, &object.path("spec"), bad)?;
    Some((name?.into(), spec))
}

/// Writes a rollout as [`parse_rollout`] reads it.
#[must_use]
pub fn to_document(name: &str, spec: &Spec) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": { "name": name },
        "spec": spec.document(),
    })
}

/// The JSON Schema (draft 2020-12) of a spec.
#[must_use]
pub fn spec_schema() -> schemars::Schema {
    schemars::schema_for!(RolloutDocument)
}

/// The JSON Schema (draft 2020-12) of a document.
#[must_use]
pub fn schema() -> Value {
    let (spec, definitions) = with_definitions(spec_schema());
    let mut schema = document_schema(KIND, &spec, &definitions);
    // Kubernetes writes it; who sends it back is not refused for it.
    schema["properties"]["status"] = json!({ "type": "object" });
    schema
}
