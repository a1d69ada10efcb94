//! What a verified token says.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

/// The claims of a request's token, once they are known to be true: an extension
/// of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedClaims(pub Arc<Map<String, Value>>);

/// A claim by its name; where none is called so, by its parts between dots.
pub(super) fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut parts = name.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object()?.get(part))
}

/// A claim that is no object or list, as text.
pub(super) fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        _ => None,
    }
}
