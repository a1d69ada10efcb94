//! JSON Schemas (2020-12) of messages and enums.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_reflect::{DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::super::binding::Target;

/// Comments of `.proto` files, by file and path of the declaration.
pub(super) struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    fn read(pool: &DescriptorPool) -> Self {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let info = file.file_descriptor_proto().source_code_info.as_ref();
            for location in info.into_iter().flat_map(|info| &info.location) {
                if let Some(comment) = &location.leading_comments {
                    let lines: Vec<&str> = comment.trim().lines().map(str::trim).collect();
                    let key = (file.name().to_owned(), location.path.clone());
                    comments.insert(key, lines.join("\n"));
                }
            }
        }
        Self(comments)
    }

    pub fn of(&self, file: &FileDescriptor, path: &[i32]) -> Option<String> {
        self.0.get(&(file.name().to_owned(), path.to_vec())).cloned()
    }
}

/// Schemas that are referred to, made as they come up.
pub(super) struct Schemas {
    pub comments: Comments,
    done: BTreeMap<String, Value>,
    started: BTreeSet<String>,
}

impl Schemas {
    pub fn new(pool: &DescriptorPool) -> Self {
        Self { comments: Comments::read(pool), done: BTreeMap::new(), started: BTreeSet::new() }
    }

    /// All schemas by name, with that of errors.
    pub fn finish(mut self) -> BTreeMap<String, Value> {
        let error = json!({
            "type": "object",
            "description": "What went wrong: google.rpc.Status.",
            "required": ["code", "message", "status"],
            "properties": {
                "code": { "type": "integer", "description": "google.rpc.Code: the gRPC status code." },
                "message": { "type": "string" },
                "status": { "type": "string", "description": "The code's name, such as INVALID_ARGUMENT." },
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["@type"],
                        "properties": { "@type": { "type": "string" } },
                        "additionalProperties": true,
                    },
                },
            },
        });
        self.done.insert("Error".to_owned(), error);
        self.done
    }

    /// The schema of a field's value.
    pub fn field(&mut self, field: &FieldDescriptor) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return json!({}) };
            let value = self.kind(&entry.map_entry_value_field().kind());
            json!({ "type": "object", "additionalProperties": value })
        } else if field.is_list() {
            json!({ "type": "array", "items": self.kind(&field.kind()) })
        } else {
            self.kind(&field.kind())
        }
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double => json!({ "type": "number", "format": "double" }),
            Kind::Float => json!({ "type": "number", "format": "float" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "format": "int32" })
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64" })
            }
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Message(desc) => self.message(desc),
            Kind::Enum(desc) => {
                let name = desc.full_name().to_owned();
                if self.started.insert(name.clone()) {
                    let values: Vec<String> = desc.values().map(|v| v.name().to_owned()).collect();
                    let mut schema = json!({ "type": "string", "enum": values });
                    if let Some(comment) = self.comments.of(&desc.parent_file(), desc.path()) {
                        schema["description"] = comment.into();
                    }
                    self.done.insert(name.clone(), schema);
                }
                reference(&name)
            }
        }
    }

    /// The schema of a message: a reference, but for well-known types.
    pub fn message(&mut self, desc: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(desc.full_name()) {
            return schema;
        }
        let name = desc.full_name().to_owned();
        if self.started.insert(name.clone()) {
            let schema = self.object(desc, |_| true);
            self.done.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// A request of which the path already says some fields.
    pub fn request_without(&mut self, desc: &MessageDescriptor, bound: &[Target]) -> Value {
        let in_path = |field: &FieldDescriptor| bound.iter().any(|t| t.0 == [field.clone()]);
        if desc.fields().any(|field| in_path(&field)) {
            self.object(desc, |field| !in_path(field))
        } else {
            self.message(desc)
        }
    }

    fn object(
        &mut self,
        desc: &MessageDescriptor,
        keep: impl Fn(&FieldDescriptor) -> bool,
    ) -> Value {
        let mut properties = Map::new();
        for field in desc.fields().filter(|field| keep(field)) {
            let mut schema = self.field(&field);
            if let Some(comment) = self.comments.of(&field.parent_file(), field.path()) {
                schema["description"] = comment.into();
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut out = json!({ "type": "object", "properties": properties });
        if let Some(comment) = self.comments.of(&desc.parent_file(), desc.path()) {
            out["description"] = comment.into();
        }
        out
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn well_known(full_name: &str) -> Option<Value> {
    Some(match full_name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$" }),
        "FieldMask" => json!({ "type": "string" }),
        "StringValue" => json!({ "type": "string" }),
        "BytesValue" => json!({ "type": "string", "contentEncoding": "base64" }),
        "BoolValue" => json!({ "type": "boolean" }),
        "FloatValue" | "DoubleValue" => json!({ "type": "number" }),
        "Int32Value" | "UInt32Value" => json!({ "type": "integer" }),
        "Int64Value" | "UInt64Value" => json!({ "type": "string" }),
        "Struct" => json!({ "type": "object" }),
        "Value" => json!({}),
        "ListValue" => json!({ "type": "array", "items": {} }),
        "Empty" => json!({ "type": "object" }),
        "Any" => json!({
            "type": "object",
            "properties": { "@type": { "type": "string" } },
            "additionalProperties": true,
        }),
        _ => return None,
    })
}
