//! Checks a value against the generated JSON Schema of its kind: so every
//! mistake of form is told at once, by its path, from the one place that also
//! documents the form. Only what schemars generates is understood.

use serde_json::{Map, Value};

use crate::gateway_api::reader::{join, kind, near};
use crate::model::Violations;

/// Notes what does not fit. True when all does.
pub(crate) fn check(schema: &Value, value: &Value, at: &str, bad: &mut Violations) -> bool {
    let definitions = &schema["$defs"];
    let mut found = Vec::new();
    Checker { definitions }.value(schema, value, at, &mut found);
    let fits = found.is_empty();
    for (at, why) in found {
        bad.add(at, why);
    }
    fits
}

type Found = Vec<(String, String)>;

struct Checker<'a> {
    definitions: &'a Value,
}

impl Checker<'_> {
    fn value(&self, schema: &Value, value: &Value, at: &str, found: &mut Found) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.value(&self.definitions[name], value, at, found);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[key].as_array() {
                return self.one_of(choices, value, at, found);
            }
        }
        if let Some(all) = schema["allOf"].as_array() {
            all.iter().for_each(|schema| self.value(schema, value, at, found));
        }
        if let Some(wanted) = schema.get("const") {
            if wanted != value {
                found.push((at.to_owned(), format!("must be {wanted}")));
            }
            return;
        }
        if let Some(allowed) = schema["enum"].as_array() {
            return self.word(allowed, value, at, found);
        }
        if !fits_type(&schema["type"], value) {
            let why = format!("must be {}, not {}", wanted(&schema["type"]), kind(value));
            found.push((at.to_owned(), why));
            return;
        }
        match value {
            Value::Object(map) => self.object(schema, map, at, found),
            Value::Array(list) => self.list(schema, list, at, found),
            Value::Number(_) => number(schema, value, at, found),
            _ => {}
        }
    }

    /// Of choices, the error of the one that was most likely meant is told.
    fn one_of(&self, choices: &[Value], value: &Value, at: &str, found: &mut Found) {
        let words: Vec<Value> = choices
            .iter()
            .flat_map(|c| match (c.get("const"), c["enum"].as_array()) {
                (Some(word), _) => vec![word.clone()],
                (None, Some(words)) => words.clone(),
                _ => Vec::new(),
            })
            .collect();
        if value.is_string() && !words.is_empty() {
            return self.word(&words, value, at, found);
        }
        let mut best: Option<Found> = None;
        for choice in choices {
            let mut errors = Found::new();
            self.value(choice, value, at, &mut errors);
            if errors.is_empty() {
                return;
            }
            // A mistake further in is of the choice that fits better.
            let depth = |f: &Found| f.iter().map(|(at, _)| at.len()).max().unwrap_or_default();
            if best.as_ref().is_none_or(|b| depth(&errors) > depth(b)) {
                best = Some(errors);
            }
        }
        found.extend(best.unwrap_or_default());
    }

    fn word(&self, allowed: &[Value], value: &Value, at: &str, found: &mut Found) {
        if allowed.contains(value) {
            return;
        }
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        let list = words.join(", ");
        let why = match value {
            Value::String(text) => match near(text, words.iter().copied()) {
                Some(near) => format!("{text:?} is not known; did you mean {near}?"),
                None => format!("{text:?} is not known; use one of: {list}"),
            },
            other => format!("must be one of {list}, not {}", kind(other)),
        };
        found.push((at.to_owned(), why));
    }

    fn object(&self, schema: &Value, map: &Map<String, Value>, at: &str, found: &mut Found) {
        let empty = Map::new();
        let known = schema["properties"].as_object().unwrap_or(&empty);
        for (name, value) in map {
            let path = join(at, name);
            match known.get(name) {
                Some(schema) if !value.is_null() => self.value(schema, value, &path, found),
                Some(_) => {}
                None => match &schema["additionalProperties"] {
                    Value::Bool(false) => found.push((path, unknown(name, known))),
                    Value::Object(_) => {
                        self.value(&schema["additionalProperties"], value, &path, found);
                    }
                    _ => {}
                },
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if map.get(name).is_none_or(Value::is_null) {
                found.push((join(at, name), "is missing".to_owned()));
            }
        }
    }

    fn list(&self, schema: &Value, list: &[Value], at: &str, found: &mut Found) {
        let count = list.len() as u64;
        if let Some(min) = schema["minItems"].as_u64()
            && count < min
        {
            found.push((at.to_owned(), format!("has {count} entries; at least {min} are needed")));
        }
        if let Some(max) = schema["maxItems"].as_u64()
            && count > max
        {
            found.push((at.to_owned(), format!("has {count} entries; at most {max} are possible")));
        }
        for (i, value) in list.iter().enumerate() {
            self.value(&schema["items"], value, &format!("{at}[{i}]"), found);
        }
    }
}

fn unknown(name: &str, known: &Map<String, Value>) -> String {
    match near(name, known.keys().map(String::as_str)) {
        Some(near) => format!("is not known; did you mean {near}?"),
        None => {
            let names: Vec<_> = known.keys().map(String::as_str).collect();
            format!("is not known; there are: {}", names.join(", "))
        }
    }
}

fn fits_type(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::String(name) => match name.as_str() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            _ => true,
        },
        Value::Array(names) => names.iter().any(|name| fits_type(name, value)),
        _ => true,
    }
}

fn wanted(schema: &Value) -> &'static str {
    let name = match schema {
        Value::Array(names) => names.iter().find_map(|n| n.as_str().filter(|n| *n != "null")),
        other => other.as_str(),
    };
    match name {
        Some("object") => "an object",
        Some("array") => "a list",
        Some("string") => "text",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        _ => "nothing",
    }
}

fn number(schema: &Value, value: &Value, at: &str, found: &mut Found) {
    let (Some(number), shown) = (value.as_f64(), value) else { return };
    if let Some(min) = schema["minimum"].as_f64()
        && number < min
    {
        found.push((at.to_owned(), format!("{shown} is below {min}")));
    }
    if let Some(max) = schema["maximum"].as_f64()
        && number > max
    {
        found.push((at.to_owned(), format!("{shown} is above {max}")));
    }
}
