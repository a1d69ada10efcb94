//! YAML as a tree in which every value knows its line and column.
//!
//! A typed deserializer stops at the first mistake. This tree lets the reader of
//! a mesh file report all of them, each with its field's path and place.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where a value begins. Both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl Place {
    /// The same in a text that has so many lines before this one.
    #[must_use]
    pub fn moved_down(self, lines: u64) -> Self {
        Self { line: self.line + lines, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What YAML can say (the JSON schema of YAML 1.2).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order it was written.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// Reads the one YAML document in `text`.
    ///
    /// # Errors
    /// What is not YAML, with its place where that is known.
    pub fn parse(text: &str) -> Result<Self, (Option<Place>, String)> {
        let read: Result<Spanned<Value>, _> = serde_saphyr::from_str(text);
        match read {
            Ok(spanned) => Ok(spanned.into()),
            Err(error) => {
                let error = error.without_snippet();
                Err((error.location().map(Place::from), error.to_string()))
            }
        }
    }

    /// The same, read from a text that has so many lines before this one.
    #[must_use]
    pub fn moved_down(mut self, lines: u64) -> Self {
        self.move_down(lines);
        self
    }

    fn move_down(&mut self, lines: u64) {
        self.place = self.place.moved_down(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_down(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.place = entry.place.moved_down(lines);
                entry.node.move_down(lines);
            }),
            _ => {}
        }
    }

    /// The value of a key, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What it is, for an error: `a list`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "empty",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Where the field `path` is written (`routes[0].rules[1].name`), or the
    /// nearest thing around it that is there.
    #[must_use]
    pub fn find(&self, path: &str) -> Place {
        let mut node = self;
        let mut place = self.place;
        for step in steps(path) {
            let next = match (step, &node.value) {
                (Step::Key(key), _) => node.entry(key).map(|entry| {
                    // A collection begins on the line after its key; the key is
                    // where a reader looks.
                    let collection = matches!(entry.node.value, Value::List(_) | Value::Map(_));
                    (if collection { entry.place } else { entry.node.place }, &entry.node)
                }),
                (Step::Index(index), Value::List(items)) => {
                    items.get(index).map(|item| (item.place, item))
                }
                (Step::Index(_), _) => None,
            };
            let Some((found, inner)) = next else { break };
            (place, node) = (found, inner);
        }
        place
    }

    /// The same value as JSON, without places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Text(value) => Json::from(value.as_str()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => Json::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect(),
            ),
        }
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| {
        match part.strip_suffix(']').map(str::parse) {
            Some(Ok(index)) => Step::Index(index),
            _ => Step::Key(part),
        }
    })
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { place: spanned.referenced.into(), value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        // Past 2^63 no field can hold it, whatever its exact value.
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Spanned<Value>>()? {
            entries.push(Entry { key: key.value, place: key.referenced.into(), node: node.into() });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a: 1\nb:\n  - name: x\n    'on': yes\n  - {c: 1.5, d: null}\n";

    #[test]
    fn every_value_has_its_place() {
        let tree = Node::parse(TEXT).unwrap();
        assert_eq!(tree.find("a"), Place { line: 1, column: 4 });
        assert_eq!(tree.find("b"), Place { line: 2, column: 1 });
        assert_eq!(tree.find("b[0].name"), Place { line: 3, column: 11 });
        assert_eq!(tree.find("b[1].c"), Place { line: 5, column: 9 });
        // What is not there is shown by what is around it.
        assert_eq!(tree.find("b[1].weight.x"), tree.find("b[1]"));
    }

    #[test]
    fn json_is_the_same_value() {
        let json = Node::parse(TEXT).unwrap().to_json();
        assert_eq!(json["b"][1], serde_json::json!({"c": 1.5, "d": null}));
    }

    #[test]
    fn what_is_no_yaml_has_its_place() {
        let (place, text) = Node::parse("a: [1\nb: 2\n").unwrap_err();
        assert!(place.is_some(), "{text}");
    }
}
