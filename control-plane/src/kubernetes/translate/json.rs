//! Looks into objects, whatever they hold: what is missing or of another type is
//! empty.

use std::collections::BTreeMap;

use serde_json::Value;

/// A text field; empty when there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The elements of a list.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A port: 1 to 65535.
pub(super) fn port(value: &Value, field: &str) -> Option<u16> {
    value[field].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// A label of an object.
pub(super) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["labels"][name].as_str()
}

/// An annotation of an object.
pub(super) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

/// What changes with every change of `spec`; 0 when nobody counts.
pub(super) fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or_default()
}

/// When it was made (RFC 3339), then its namespace and name: who is older wins
/// conflicts, as the Gateway API has it.
pub(super) fn age(object: &Value) -> (String, String, String) {
    let metadata = &object["metadata"];
    let part = |field| text(metadata, field).to_owned();
    // What has no time yet is as young as can be.
    let created = match text(metadata, "creationTimestamp") {
        "" => "9999".to_owned(),
        time => time.to_owned(),
    };
    (created, part("namespace"), part("name"))
}

/// Whether a label selector takes labels. One that says what is not known takes
/// nothing.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let value_of = |key: &str| labels[key].as_str();
    let wanted: BTreeMap<&str, Option<&str>> = match selector["matchLabels"].as_object() {
        Some(map) => map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        None => BTreeMap::new(),
    };
    let all = wanted.iter().all(|(key, value)| value.is_some() && value_of(key) == *value);
    all && list(selector, "matchExpressions").iter().all(|expression| {
        let found = value_of(text(expression, "key"));
        let among = |found: &str| list(expression, "values").iter().any(|v| v == found);
        match text(expression, "operator") {
            "In" => found.is_some_and(among),
            "NotIn" => !found.is_some_and(among),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    })
}
