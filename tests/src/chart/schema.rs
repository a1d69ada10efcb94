//! From the types of the values to `values.schema.json`.

use serde_json::{Value, json};

use super::services::Services;
use super::values::Values;

/// Of the chart.
#[must_use]
pub fn values() -> Value {
    finish(schemars::schema_for!(Values).to_value(), "Values of the chart weir")
}

/// Of its subchart.
#[must_use]
pub fn services() -> Value {
    finish(schemars::schema_for!(Services).to_value(), "Values of the chart services")
}

fn finish(mut schema: Value, title: &str) -> Value {
    lenient(&mut schema);
    schema["title"] = json!(title);
    schema
}

/// A user's file holds only what differs from `values.yaml`.
fn lenient(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.remove("required");
            }
            // Names of Rust's numbers, which other programs do not know.
            if map.get("format").is_some_and(Value::is_string) {
                map.remove("format");
            }
            map.values_mut().for_each(lenient);
        }
        Value::Array(list) => list.iter_mut().for_each(lenient),
        _ => {}
    }
}
