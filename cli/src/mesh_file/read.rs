//! Reading fields out of a [`Node`], noting every mistake by its path.

use std::collections::HashSet;
use std::fmt::Display;

use weir_mesh::model::Violations;

use super::tree::{Entry, Node, Value};

/// A mapping whose fields are read one by one. [`Fields::finish`] refuses those
/// that nobody asked for.
pub struct Fields<'a> {
    path: String,
    entries: &'a [Entry],
    seen: HashSet<&'static str>,
}

impl<'a> Fields<'a> {
    /// `node` as a mapping; otherwise notes that it is none.
    pub fn of(node: &'a Node, path: &str, violations: &mut Violations) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => {
                Some(Self { path: path.to_owned(), entries, seen: HashSet::new() })
            }
            _ => {
                violations.add(path, format!("is {}; a mapping belongs here", node.kind()));
                None
            }
        }
    }

    /// The path of one of its fields.
    #[must_use]
    pub fn at(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// The field's value, unless it is absent or null.
    pub fn get(&mut self, field: &'static str) -> Option<&'a Node> {
        self.seen.insert(field);
        let entry = self.entries.iter().find(|entry| entry.key == field)?;
        (entry.node.value != Value::Null).then_some(&entry.node)
    }

    /// The field's value; notes when there is none.
    pub fn need(&mut self, field: &'static str, violations: &mut Violations) -> Option<&'a Node> {
        let node = self.get(field);
        if node.is_none() {
            violations.add(self.at(field), "is missing");
        }
        node
    }

    /// Text.
    pub fn text(&mut self, field: &'static str, violations: &mut Violations) -> Option<&'a str> {
        let node = self.get(field)?;
        text(node, &self.at(field), violations)
    }

    /// Text that must be there.
    pub fn need_text(
        &mut self,
        field: &'static str,
        violations: &mut Violations,
    ) -> Option<&'a str> {
        let node = self.need(field, violations)?;
        text(node, &self.at(field), violations)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, field: &'static str, violations: &mut Violations) -> Option<bool> {
        let node = self.get(field)?;
        match node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong(field, node, "true or false", violations),
        }
    }

    /// A whole number.
    pub fn integer(&mut self, field: &'static str, violations: &mut Violations) -> Option<i64> {
        let node = self.get(field)?;
        match node.value {
            Value::Int(value) => Some(value),
            _ => self.wrong(field, node, "a whole number", violations),
        }
    }

    /// Any number.
    pub fn number(&mut self, field: &'static str, violations: &mut Violations) -> Option<f64> {
        let node = self.get(field)?;
        match node.value {
            Value::Int(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            _ => self.wrong(field, node, "a number", violations),
        }
    }

    /// Items of a list with their paths; an absent list has none.
    pub fn list(
        &mut self,
        field: &'static str,
        violations: &mut Violations,
    ) -> Vec<(String, &'a Node)> {
        let Some(node) = self.get(field) else { return Vec::new() };
        let at = self.at(field);
        match &node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(i, item)| (format!("{at}[{i}]"), item)).collect()
            }
            _ => {
                violations.add(at, format!("is {}; a list belongs here", node.kind()));
                Vec::new()
            }
        }
    }

    /// Refuses what was not asked for.
    pub fn finish(self, violations: &mut Violations) {
        let mut known: Vec<_> = self.seen.iter().copied().collect();
        known.sort_unstable();
        for entry in self.entries {
            if !self.seen.contains(entry.key.as_str()) {
                violations.add(
                    self.at(&entry.key),
                    format!("is not a field here; known are {}", known.join(", ")),
                );
            }
        }
    }

    fn wrong<T>(
        &self,
        field: &str,
        node: &Node,
        wanted: impl Display,
        violations: &mut Violations,
    ) -> Option<T> {
        violations.add(self.at(field), format!("is {}; {wanted} belongs here", node.kind()));
        None
    }
}

/// `node` as text; a number or truth value is told to wear quotes.
pub fn text<'a>(node: &'a Node, path: &str, violations: &mut Violations) -> Option<&'a str> {
    match &node.value {
        Value::Text(text) => Some(text),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            violations.add(path, format!("is {}; write it in quotes to make it text", node.kind()));
            None
        }
        _ => {
            violations.add(path, format!("is {}; text belongs here", node.kind()));
            None
        }
    }
}
