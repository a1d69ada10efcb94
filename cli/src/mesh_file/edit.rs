//! Edits of weights within a text of documents, and of nothing else: comments, order,
//! anchors and all that a file says beside stay as they are.
//!
//! An edit counts only when the text, read again, differs by exactly what was meant.
//! So whatever YAML can do with anchors, merges and tags, no other value changes.

use serde_json::{Value as Json, json};

use super::tree::{Node, Place, Value};
use crate::documents::stream;

/// A text after its edits.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The whole text.
    pub text: String,
    /// What is different and was left, one sentence each.
    pub left: Vec<String>,
}

/// Fields of a service that are compared, beside its versions.
const FIELDS: [&str; 5] = ["protocol", "sticky", "audiences", "mirror", "managedBy"];

/// One weight that is other than it should be.
struct Wanted {
    /// Of which document in the text.
    document: usize,
    /// Of the version.
    path: Vec<Step>,
    weight: i64,
    told: String,
}

#[derive(Clone, PartialEq)]
enum Step {
    Key(&'static str),
    Index(usize),
}

/// Sets the weights of a text's Mesh and TrafficSplit documents to those of exported
/// documents. With `all`, services that only one of both has are told.
///
/// # Errors
/// The text is not YAML; with the place.
pub fn edit(text: &str, exported: &[Json], all: bool) -> Result<Edited, String> {
    let documents = read(text)?;
    let mut left = Vec::new();
    let mut wanted = Vec::new();
    let mut seen = Vec::new();
    let services = services(exported);
    for (document, node) in documents.iter().enumerate() {
        for (name, path) in named(node) {
            seen.push(name.clone());
            let Some(found) = at(node, &path) else { continue };
            match services.iter().find(|(other, _)| *other == name) {
                Some((_, service)) => {
                    compare(&name, found, service, (document, &path), &mut wanted, &mut left);
                }
                None if all => left.push(format!("{name} is in the file alone")),
                None => {}
            }
        }
    }
    for (name, _) in services.iter().filter(|(name, _)| !seen.contains(name)) {
        left.push(format!("{name} is not in the file"));
    }
    let mut text = text.to_owned();
    // What an alias shares can be set once all that share it were set otherwise.
    for _ in 0..2 {
        let mut failed = Vec::new();
        for want in wanted {
            match set(&text, &want) {
                Some(changed) => text = changed,
                None => failed.push(want),
            }
        }
        wanted = failed;
    }
    left.extend(wanted.into_iter().map(|want| {
        format!(
            "{}: this place cannot be edited without changing others; edit it by hand",
            want.told
        )
    }));
    Ok(Edited { text, left })
}

fn read(text: &str) -> Result<Vec<Node>, String> {
    let told = |(place, why): (Option<Place>, String)| match place {
        Some(place) => format!("{place}: {why}"),
        None => why,
    };
    stream::documents(text).into_iter().map(|read| read.map_err(told)).collect()
}

/// Services of exported documents, by the names of [`named`].
fn services(exported: &[Json]) -> Vec<(String, &Json)> {
    let mut services = Vec::new();
    for document in exported {
        match document["kind"].as_str() {
            Some("Mesh") => {
                let list = document["services"].as_array().into_iter().flatten();
                services.extend(list.map(|service| {
                    (format!("service {}", service["name"].as_str().unwrap_or_default()), service)
                }));
            }
            Some("TrafficSplit") => services.push((split_name(document), &document["spec"])),
            _ => {}
        }
    }
    services
}

fn split_name(document: &Json) -> String {
    let meta = |field: &str| document["metadata"][field].as_str().unwrap_or_default();
    // As `kubectl apply` has it where a document names no namespace.
    let namespace = Some(meta("namespace")).filter(|name| !name.is_empty()).unwrap_or("default");
    format!("TrafficSplit {namespace}/{}", meta("name"))
}

/// The services that a document says weights of, and where.
fn named(node: &Node) -> Vec<(String, Vec<Step>)> {
    let json = node.to_json();
    match json["kind"].as_str() {
        Some("Mesh") => {
            let list = json["services"].as_array().into_iter().flatten().enumerate();
            list.map(|(i, service)| {
                let name = service["name"].as_str().unwrap_or_default();
                (format!("service {name}"), vec![Step::Key("services"), Step::Index(i)])
            })
            .collect()
        }
        Some("TrafficSplit") => vec![(split_name(&json), vec![Step::Key("spec")])],
        _ => Vec::new(),
    }
}

fn at<'a>(node: &'a Node, path: &[Step]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, step| match (step, &node.value) {
        (Step::Key(key), _) => node.get(key),
        (Step::Index(i), Value::List(items)) => items.get(*i),
        (Step::Index(_), _) => None,
    })
}

fn compare(
    name: &str,
    found: &Node,
    service: &Json,
    (document, path): (usize, &[Step]),
    wanted: &mut Vec<Wanted>,
    left: &mut Vec<String>,
) {
    let there = found.to_json();
    for field in FIELDS {
        if !same(&there[field], &service[field]) {
            left.push(format!("{name}: {field} is {} in the mesh", service[field]));
        }
    }
    let none = Vec::new();
    let written = there["versions"].as_array().unwrap_or(&none);
    let desired = service["versions"].as_array().unwrap_or(&none);
    for (i, version) in written.iter().enumerate() {
        let Some(other) = desired.iter().find(|other| other["name"] == version["name"]) else {
            left.push(format!("{name}: version {} is in the file alone", version["name"]));
            continue;
        };
        let otherwise = if i == 0 { 100 } else { 0 };
        let weight = version["weight"].as_i64().unwrap_or(otherwise);
        let Some(to) = other["weight"].as_i64().filter(|to| *to != weight) else { continue };
        let path = path.iter().cloned().chain([Step::Key("versions"), Step::Index(i)]).collect();
        let told = format!("{name}: version {} has weight {to}, not {weight}", version["name"]);
        wanted.push(Wanted { document, path, weight: to, told });
    }
    for version in desired {
        if !written.iter().any(|other| other["name"] == version["name"]) {
            left.push(format!("{name}: version {} is not in the file", version["name"]));
        }
    }
}

/// Whether two values say the same: null and an empty list say nothing, and a number is
/// one however it is written.
fn same(a: &Json, b: &Json) -> bool {
    let nothing = |value: &Json| value.is_null() || *value == json!([]);
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            let keys = || a.keys().chain(b.keys());
            keys().all(|key| {
                same(a.get(key).unwrap_or(&Json::Null), b.get(key).unwrap_or(&Json::Null))
            })
        }
        _ => a == b || (nothing(a) && nothing(b)),
    }
}

/// The text with one weight set, if that is possible and changes nothing else.
fn set(text: &str, want: &Wanted) -> Option<String> {
    let before = read(text).ok()?;
    let node = at(before.get(want.document)?, &want.path)?;
    let changed = match node.get("weight").filter(|node| node.value != Value::Null) {
        Some(weight) => replace(text, weight.place, want.weight)?,
        None => insert(text, node, want.weight)?,
    };
    let after: Vec<Json> = read(&changed).ok()?.iter().map(Node::to_json).collect();
    let mut meant: Vec<Json> = before.iter().map(Node::to_json).collect();
    let version = want.path.iter().fold(meant.get_mut(want.document)?, |value, step| match step {
        Step::Key(key) => &mut value[*key],
        Step::Index(i) => &mut value[*i],
    });
    version["weight"] = want.weight.into();
    (after == meant).then_some(changed)
}

/// Where a place is, in bytes.
fn offset(text: &str, place: Place) -> Option<usize> {
    let line = usize::try_from(place.line.checked_sub(1)?).ok()?;
    let column = usize::try_from(place.column.checked_sub(1)?).ok()?;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(start..)?;
    let within = rest.char_indices().map(|(i, _)| i).chain([rest.len()]).nth(column)?;
    Some(start + within)
}

/// Bytes of the plain scalar or alias that a text begins with.
fn plain(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(text.len())
}

fn replace(text: &str, place: Place, weight: i64) -> Option<String> {
    let mut start = offset(text, place)?;
    if text[start..].starts_with('&') {
        // An anchor stays before its value.
        start += plain(&text[start..]);
        start += text[start..].find(|c: char| !c.is_whitespace())?;
    }
    let end = start + plain(&text[start..]);
    Some(format!("{}{weight}{}", &text[..start], &text[end..]))
}

/// Writes a weight that was left out, after the version's name.
fn insert(text: &str, version: &Node, weight: i64) -> Option<String> {
    let Value::Map(entries) = &version.value else { return None };
    let name = entries.iter().find(|entry| entry.key == "name")?;
    let (key, value) = (offset(text, name.place)?, offset(text, name.node.place)?);
    let flow = text[offset(text, version.place)?..].starts_with('{');
    let (end, new) = if flow {
        let rest = &text[value..];
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let end = match quote {
            Some(quote) => rest[1..].find(quote)? + 2,
            None => plain(rest),
        };
        (value + end, format!(", weight: {weight}"))
    } else {
        let line = text[..key].rfind('\n').map_or(0, |at| at + 1);
        let indent = " ".repeat(text[line..key].chars().count());
        let rest = &text[value..];
        let end = rest.find('\n').unwrap_or(rest.len());
        let (end, newline) = match rest[..end].strip_suffix('\r') {
            Some(line) => (line.len(), "\r\n"),
            None => (end, "\n"),
        };
        (value + end, format!("{newline}{indent}weight: {weight}"))
    };
    Some(format!("{}{new}{}", &text[..end], &text[end..]))
}

#[cfg(test)]
mod tests;
