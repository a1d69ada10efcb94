//! JSON values <-> `google.protobuf.Struct`, and texts with a meaning of their own.

use std::time::Duration;

use prost_types::value::Kind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};

use crate::duration;

/// The largest whole number that a `double` holds with all below it: 2^53.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Deepest nesting that is read; more is read as null.
const DEPTH: usize = 64;

/// A protobuf Struct as JSON. Numbers that are whole become integers.
#[must_use]
pub fn from_struct(message: &prost_types::Struct) -> Value {
    object(message, 0)
}

fn object(message: &prost_types::Struct, depth: usize) -> Value {
    let field = |(name, value): (&String, &prost_types::Value)| (name.clone(), from(value, depth));
    Value::Object(message.fields.iter().map(field).collect::<Map<_, _>>())
}

fn from(value: &prost_types::Value, depth: usize) -> Value {
    if depth >= DEPTH {
        return Value::Null;
    }
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(value)) => number(*value),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.iter().map(|value| from(value, depth + 1)).collect())
        }
        Some(Kind::StructValue(message)) => object(message, depth + 1),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is whole and below 2^53")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= WHOLE {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// A JSON object as a protobuf Struct; anything else is empty.
#[must_use]
pub fn to_struct(value: &Value) -> prost_types::Struct {
    let Value::Object(map) = value else { return prost_types::Struct::default() };
    let fields = map.iter().map(|(name, value)| (name.clone(), to(value))).collect();
    prost_types::Struct { fields }
}

fn to(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(list) => {
            Kind::ListValue(prost_types::ListValue { values: list.iter().map(to).collect() })
        }
        Value::Object(_) => Kind::StructValue(to_struct(value)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// A duration in a document (GEP-2257), such as `10s` or `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::print(self.0))
    }
}

#[cfg(feature = "gateway-api")]
impl schemars::JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A duration (GEP-2257), such as 10s, 500ms or 1m30s.",
            "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
        })
    }
}
