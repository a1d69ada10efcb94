//! Reads JSON objects strictly, noting every violation with its path.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::model::Violations;

/// An object and where it is.
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    at: String,
}

/// The path of a field within what is at `at`.
pub(crate) fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

/// The candidate that was most likely meant, if any is close.
pub(crate) fn near<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = text.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &lower), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn mismatch(at: impl Into<String>, want: impl Display, value: &Value, bad: &mut Violations) {
    bad.add(at, format_args!("must be {want}, not {}", kind(value)));
}

/// `value` as text.
pub(crate) fn text<'a>(value: &'a Value, at: &str, bad: &mut Violations) -> Option<&'a str> {
    match value {
        Value::String(text) => Some(text),
        // YAML reads 1, true and the like as something else than text.
        Value::Number(_) | Value::Bool(_) => {
            bad.add(at, format_args!("must be text, not {}; put it in quotes", kind(value)));
            None
        }
        _ => {
            mismatch(at, "text", value, bad);
            None
        }
    }
}

impl<'a> Object<'a> {
    pub fn open(value: &'a Value, at: &str, bad: &mut Violations) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { map, at: at.to_owned() }),
            _ => {
                mismatch(at, "an object", value, bad);
                None
            }
        }
    }

    /// Every field that is neither absent nor null.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let map: &'a Map<String, Value> = self.map;
        map.iter().map(|(name, value)| (name.as_str(), value)).filter(|(_, value)| !value.is_null())
    }

    pub fn at(&self) -> &str {
        &self.at
    }

    pub fn path(&self, field: &str) -> String {
        join(&self.at, field)
    }

    /// Notes every field that is neither `known` nor null. `unsupported` are those
    /// that the Gateway API has and Weir has not.
    pub fn check(&self, known: &[&str], unsupported: &[&str], bad: &mut Violations) {
        self.check_or(known, unsupported, "is not supported yet", bad);
    }

    /// As [`Self::check`], with another reason against `others`.
    pub fn check_or(&self, known: &[&str], others: &[&str], why: &str, bad: &mut Violations) {
        for (field, value) in self.map {
            if known.contains(&field.as_str()) || value.is_null() {
                continue;
            }
            let path = self.path(field);
            if others.contains(&field.as_str()) {
                bad.add(path, why);
                continue;
            }
            match near(field, known.iter().copied()) {
                Some(near) => bad.add(path, format_args!("is not known; did you mean {near}?")),
                None => {
                    bad.add(path, format_args!("is not known; there are: {}", known.join(", ")))
                }
            }
        }
    }

    /// A field that is neither absent nor null.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub fn text(&self, field: &str, bad: &mut Violations) -> Option<&'a str> {
        text(self.get(field)?, &self.path(field), bad)
    }

    /// Notes when it is missing or empty.
    pub fn required(&self, field: &str, bad: &mut Violations) -> Option<&'a str> {
        match self.get(field) {
            None => bad.add(self.path(field), "is missing"),
            Some(Value::String(text)) if text.is_empty() => bad.add(self.path(field), "is empty"),
            Some(value) => return text(value, &self.path(field), bad),
        }
        None
    }

    pub fn integer(&self, field: &str, bad: &mut Violations) -> Option<i64> {
        let value = self.get(field)?;
        // What is above every limit stays above it.
        let large = || value.as_u64().map(|_| i64::MAX);
        let number = value.as_i64().or_else(large);
        if number.is_none() {
            match value {
                Value::Number(number) => {
                    bad.add(self.path(field), format_args!("{number} is not a whole number"));
                }
                _ => mismatch(self.path(field), "a number", value, bad),
            }
        }
        number
    }

    pub fn object(&self, field: &str, bad: &mut Violations) -> Option<Self> {
        Self::open(self.get(field)?, &self.path(field), bad)
    }

    pub fn required_object(&self, field: &str, bad: &mut Violations) -> Option<Self> {
        if self.get(field).is_none() {
            bad.add(self.path(field), "is missing");
        }
        self.object(field, bad)
    }

    /// The elements of a list with their paths; none when it is absent.
    pub fn list(&self, field: &str, bad: &mut Violations) -> Vec<(String, &'a Value)> {
        let path = self.path(field);
        match self.get(field) {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(i, v)| (format!("{path}[{i}]"), v)).collect()
            }
            Some(other) => {
                mismatch(path, "a list", other, bad);
                Vec::new()
            }
        }
    }
}
