//! The JSON body of a request.

use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess};
use serde_path_to_error::{Path, Segment, Track};

use super::binding::{Binding, Body, field};
use crate::model::Invalid;

/// Reads the body into a new message.
///
/// # Errors
/// The first field that is wrong, by its path in the request message.
pub(super) fn read(binding: &Binding, json: &[u8]) -> Result<DynamicMessage, Invalid> {
    let desc = &binding.input;
    let empty = json.iter().all(u8::is_ascii_whitespace);
    if empty {
        return Ok(DynamicMessage::new(desc.clone()));
    }
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut source = serde_json::Deserializer::from_slice(json);
    let mut track = Track::new();
    let read = match &binding.body {
        Body::None => return none(desc, json),
        Body::All => {
            let tracked = serde_path_to_error::Deserializer::new(&mut source, &mut track);
            DynamicMessage::deserialize_with_options(desc.clone(), tracked, &options)
        }
        Body::Field(field) => {
            let one = OneField { name: field.json_name(), value: Some(&mut source) };
            let one = MapAccessDeserializer::new(one);
            let tracked = serde_path_to_error::Deserializer::new(one, &mut track);
            DynamicMessage::deserialize_with_options(desc.clone(), tracked, &options)
        }
    };
    read.and_then(|message| source.end().map(|()| message))
        .map_err(|error| explain(desc, &track.path(), &error))
}

/// A body where none belongs, though some clients send `{}` with everything.
fn none(desc: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Invalid> {
    if json.trim_ascii() == b"{}" {
        Ok(DynamicMessage::new(desc.clone()))
    } else {
        Err(Invalid::one("", "this method takes no body; use query parameters"))
    }
}

/// `{name: value}`, where only the value is written out.
struct OneField<'a, D> {
    name: &'a str,
    value: Option<D>,
}

impl<'de, D: Deserializer<'de>> MapAccess<'de> for OneField<'_, D> {
    type Error = D::Error;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, D::Error>
    where
        K: DeserializeSeed<'de>,
    {
        match self.value {
            Some(_) => seed.deserialize(self.name.into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, D::Error> {
        let value = self.value.take().ok_or_else(|| D::Error::custom("no value"))?;
        seed.deserialize(value)
    }
}

/// Says what is wrong and where, without showing values: they may be secrets.
fn explain(desc: &MessageDescriptor, path: &Path, error: &serde_json::Error) -> Invalid {
    if !error.is_data() {
        return Invalid::one("", format!("the body is not JSON: {error}"));
    }
    let mut at = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => at.push_str(&format!("[{index}]")),
            Segment::Map { key } => push(&mut at, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    let quoted = |before: &str| text.strip_prefix(before).and_then(|t| t.strip_suffix('\''));
    if let Some(name) = quoted("unrecognized field name '") {
        push(&mut at, name);
        let reason = match type_at(desc, path) {
            Some(desc) => unknown(&desc, name),
            None => "is not known".to_owned(),
        };
        return Invalid::one(at, reason);
    }
    let reason = if text == "invalid field mask" {
        "is not a field mask; write camelCase paths with ',' between them".to_owned()
    } else {
        without_value(text)
    };
    Invalid::one(at, reason)
}

fn push(at: &mut String, name: &str) {
    if !at.is_empty() {
        at.push('.');
    }
    at.push_str(name);
}

/// ``invalid type: integer `5`, expected a string`` -> `is integer, expected a string`.
fn without_value(text: &str) -> String {
    let told = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    match told.and_then(|told| told.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let found = found.split(['`', '"']).next().unwrap_or_default().trim_end();
            format!("is {found}, expected {expected}")
        }
        None => text.to_owned(),
    }
}

/// The message type that a path into `desc` leads to.
fn type_at(desc: &MessageDescriptor, path: &Path) -> Option<MessageDescriptor> {
    let mut kind = Kind::Message(desc.clone());
    let mut entry = None;
    for segment in path {
        let Segment::Map { key } = segment else { continue };
        if let Some(value) = entry.take() {
            kind = value;
            continue;
        }
        let field = field(kind.as_message()?, key)?;
        if field.is_map() {
            entry = Some(field.kind().as_message()?.map_entry_value_field().kind());
        } else {
            kind = field.kind();
        }
    }
    kind.as_message().cloned()
}

/// Says that a message has no such field, and which it may have been.
pub(super) fn unknown(desc: &MessageDescriptor, name: &str) -> String {
    let fields: Vec<_> = desc.fields().collect();
    let near = fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(field.json_name(), name), field.json_name()))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min();
    let type_name = desc.full_name();
    match near {
        Some((_, near)) => format!("is not a field of {type_name}; did you mean {near}?"),
        None if fields.is_empty() => format!("is not a field of {type_name}, which has none"),
        None => {
            let names: Vec<_> = fields.iter().take(20).map(|f| f.json_name()).collect();
            format!("is not a field of {type_name}; there are: {}", names.join(", "))
        }
    }
}
