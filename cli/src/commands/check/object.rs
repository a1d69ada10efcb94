//! Reading objects of the Kubernetes API as JSON: what is missing is empty.

use serde_json::Value;

/// A text at a path of fields; empty when it is not there.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// What is at a path of fields; null when it is not there.
pub(super) fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |value, field| &value[*field])
}

/// The items of a list at a path.
pub(super) fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `namespace/name`, or `name`.
pub(super) fn name(object: &Value) -> String {
    let name = text(object, &["metadata", "name"]);
    match text(object, &["metadata", "namespace"]) {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    }
}

/// A condition of a list of conditions: its status, reason and message.
pub(super) fn condition<'a>(conditions: &'a [Value], kind: &str) -> Option<(&'a str, String)> {
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let (reason, message) = (text(found, &["reason"]), text(found, &["message"]));
    let why = if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
    Some((text(found, &["status"]), why))
}

/// Up to five names, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0..=5 => shown,
        more => format!("{shown} and {} more", more - 5),
    }
}
