//! OpenAPI 3.1 from descriptors.

mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::binding::{Binding, Body, Target, is_text};
use super::template::{Segment, Template};
use schema::Schemas;

/// Query parameters reach this deep into messages within the request.
const QUERY_DEPTH: usize = 3;

/// Methods that an OpenAPI path item can describe.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::DELETE,
    Method::OPTIONS,
    Method::HEAD,
    Method::PATCH,
    Method::TRACE,
];

pub(super) fn document(
    pool: &DescriptorPool,
    bindings: &[Arc<Binding>],
    title: &str,
    version: &str,
    servers: &[&str],
) -> Value {
    let mut schemas = Schemas::new(pool);
    let names = ParameterNames::choose(bindings);
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut tags = BTreeMap::new();
    for binding in bindings {
        let service = binding.method.parent_service();
        let about = schemas.comments.of(&service.parent_file(), service.path());
        tags.insert(service.name().to_owned(), about.unwrap_or_default());
        let (path, parameters) = names.path(binding, &mut schemas);
        let operation = operation(binding, parameters, &mut schemas, &mut ids);
        let methods = match &binding.http_method {
            // An OpenAPI path item has no place for others.
            Some(method) if !METHODS.contains(method) => continue,
            Some(method) => vec![method.as_str().to_ascii_lowercase()],
            None => vec!["get".to_owned(), "post".to_owned()],
        };
        for (i, method) in methods.into_iter().enumerate() {
            let mut operation = operation.clone();
            if i > 0 {
                let id = unique(&mut ids, &operation_id(binding));
                operation["operationId"] = id.into();
            }
            paths.entry(path.clone()).or_default().insert(method, operation);
        }
    }
    let tags: Vec<Value> = tags
        .into_iter()
        .map(|(name, description)| json!({ "name": name, "description": description }))
        .collect();
    let servers: Vec<Value> = servers.iter().map(|url| json!({ "url": url })).collect();
    let mut out = json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version },
        "tags": tags,
        "paths": paths,
        "security": [{ "bearer": [] }],
        "components": {
            "schemas": schemas.finish(),
            "responses": { "Error": {
                "description": "The gRPC status as google.rpc.Status.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            } },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    });
    if !servers.is_empty() {
        out["servers"] = Value::Array(servers);
    }
    out
}

fn operation_id(binding: &Binding) -> String {
    let service = binding.method.parent_service();
    match binding.ordinal {
        0 => format!("{}_{}", service.name(), binding.method.name()),
        n => format!("{}_{}_{}", service.name(), binding.method.name(), n + 1),
    }
}

fn unique(ids: &mut BTreeSet<String>, wanted: &str) -> String {
    let mut id = wanted.to_owned();
    let mut n = 2;
    while !ids.insert(id.clone()) {
        id = format!("{wanted}_{n}");
        n += 1;
    }
    id
}

fn operation(
    binding: &Binding,
    mut parameters: Vec<Value>,
    schemas: &mut Schemas,
    ids: &mut BTreeSet<String>,
) -> Value {
    let method = &binding.method;
    if !matches!(binding.body, Body::All) {
        query_parameters(binding, &binding.input, &mut Vec::new(), schemas, &mut parameters);
    }
    let answer = match &binding.response_body {
        Some(field) => schemas.field(field),
        None => schemas.message(&binding.output),
    };
    let (content, about) = if method.is_server_streaming() {
        ("application/x-ndjson", "One JSON object a line, each as this schema says.")
    } else {
        ("application/json", "OK")
    };
    let mut out = json!({
        "operationId": unique(ids, &operation_id(binding)),
        "tags": [method.parent_service().name()],
        "responses": {
            "200": { "description": about, "content": { content: { "schema": answer } } },
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    if let Some(comment) = schemas.comments.of(&method.parent_file(), method.path()) {
        out["description"] = comment.into();
    }
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    let body = match &binding.body {
        Body::None => return out,
        Body::All => schemas.request_without(&binding.input, &binding.variables),
        Body::Field(field) => schemas.field(field),
    };
    out["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": body } } });
    out
}

/// Adds a parameter for each field that neither path nor body holds.
fn query_parameters(
    binding: &Binding,
    desc: &MessageDescriptor,
    around: &mut Vec<FieldDescriptor>,
    schemas: &mut Schemas,
    out: &mut Vec<Value>,
) {
    for field in desc.fields() {
        if around.is_empty() && matches!(&binding.body, Body::Field(body) if *body == field) {
            continue;
        }
        around.push(field.clone());
        let target = Target(around.clone());
        let bound = binding.variables.iter().any(|v| v.0 == target.0);
        match field.kind() {
            _ if field.is_map() || bound => {}
            kind if is_text(&kind) => {
                let mut parameter = json!({
                    "name": target.json_name(),
                    "in": "query",
                    "schema": schemas.field(&field),
                });
                if let Some(comment) = schemas.comments.of(&field.parent_file(), field.path()) {
                    parameter["description"] = comment.into();
                }
                out.push(parameter);
            }
            Kind::Message(inner) if !field.is_list() && around.len() < QUERY_DEPTH => {
                query_parameters(binding, &inner, around, schemas, out);
            }
            _ => {}
        }
        around.pop();
    }
}

/// Which name each variable segment has. OpenAPI takes `/a/{x}` and `/a/{y}` for
/// the same path, so both must be called the same: by the shortest name.
struct ParameterNames(BTreeMap<(String, usize), String>);

impl ParameterNames {
    fn choose(bindings: &[Arc<Binding>]) -> Self {
        let mut names: BTreeMap<(String, usize), String> = BTreeMap::new();
        for binding in bindings {
            let shape = shape(&binding.template);
            for (i, name) in segment_names(binding) {
                let entry = names.entry((shape.clone(), i)).or_insert_with(|| name.clone());
                if (name.len(), &name) < (entry.len(), entry) {
                    *entry = name;
                }
            }
        }
        Self(names)
    }

    /// The path as OpenAPI writes it, and its parameters.
    fn path(&self, binding: &Binding, schemas: &mut Schemas) -> (String, Vec<Value>) {
        let shape = shape(&binding.template);
        let mut path = String::new();
        let mut parameters = Vec::new();
        for (i, segment) in binding.template.segments.iter().enumerate() {
            path.push('/');
            if let Segment::Literal(text) = segment {
                path.push_str(text);
                continue;
            }
            let name = self.0.get(&(shape.clone(), i)).cloned().unwrap_or_else(|| format!("p{i}"));
            path.push_str(&format!("{{{name}}}"));
            let owner =
                binding.bound().find(|(v, _)| v.start <= i && v.end.is_none_or(|end| i < end));
            let leaf = owner.and_then(|(v, target)| target.0.last().filter(|_| !v.is_multi()));
            let mut parameter = json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": leaf.map_or_else(|| json!({ "type": "string" }), |f| schemas.field(f)),
            });
            let comment = owner
                .and_then(|(_, target)| target.0.last())
                .and_then(|field| schemas.comments.of(&field.parent_file(), field.path()));
            if let Some(comment) = comment {
                parameter["description"] = comment.into();
            }
            parameters.push(parameter);
        }
        if path.is_empty() {
            path.push('/');
        }
        if let Some(verb) = &binding.template.verb {
            path.push(':');
            path.push_str(verb);
        }
        (path, parameters)
    }
}

/// A template with all variables called the same.
fn shape(template: &Template) -> String {
    let segments = template.segments.iter().map(|segment| match segment {
        Segment::Literal(text) => text,
        Segment::One | Segment::Rest => "{}",
    });
    let verb = template.verb.as_deref().unwrap_or_default();
    format!("/{}:{verb}", segments.collect::<Vec<_>>().join("/"))
}

/// The name that each wildcard of a template would have by itself.
fn segment_names(binding: &Binding) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (variable, target) in binding.bound() {
        let end = variable.end.unwrap_or(binding.template.segments.len());
        let wild: Vec<usize> = (variable.start..end)
            .filter(|i| !matches!(binding.template.segments[*i], Segment::Literal(_)))
            .collect();
        let name = target.json_name();
        match wild.as_slice() {
            [only] => out.push((*only, name)),
            _ => {
                out.extend(wild.iter().enumerate().map(|(n, i)| (*i, format!("{name}.{}", n + 1))))
            }
        }
    }
    out
}
