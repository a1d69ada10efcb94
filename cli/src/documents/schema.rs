//! JSON Schemas (draft 2020-12) of every kind of document, for editors.

use serde_json::{Map, Value, json};
use weir_mesh::gateway_api;
use weir_mesh::policy::{self, PolicyKind};
use weir_mesh::rollout;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Kinds of the Gateway API.
const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];

/// Every kind that has a schema.
#[must_use]
pub fn kinds() -> Vec<&'static str> {
    let policies = PolicyKind::ALL.iter().map(|kind| kind.as_str());
    ["Mesh"].into_iter().chain(ROUTES).chain(policies).chain([rollout::KIND]).collect()
}

/// The schema of a kind; none: there is no such kind. Case does not matter.
#[must_use]
pub fn of(kind: &str) -> Option<Value> {
    let kind = kinds().into_iter().find(|known| known.eq_ignore_ascii_case(kind))?;
    Some(match kind {
        "Mesh" => mesh(),
        route if ROUTES.contains(&route) => gateway_api::schema(route),
        rollout::KIND => rollout::schema(),
        _ => policy::schema(kind.parse().ok()?),
    })
}

/// One schema for all of them: an editor cannot know which kind a file will be.
#[must_use]
pub fn any() -> Value {
    let mut definitions = Map::new();
    let all = kinds().into_iter().filter_map(of).map(|schema| part(schema, &mut definitions));
    let mut any = by_kind(&all.collect::<Vec<_>>());
    any["$schema"] = DRAFT.into();
    any["$defs"] = definitions.into();
    any["title"] = "A document of Weir".into();
    any
}

/// The mesh file's. Its lists of routes and policies hold the other kinds.
fn mesh() -> Value {
    let text = json!({"type": "string"});
    let mut definitions = Map::new();
    let policies = PolicyKind::ALL.iter().map(|kind| part(policy::schema(*kind), &mut definitions));
    let policies: Vec<Value> = policies.collect();
    let routes = ROUTES.map(|kind| part(gateway_api::schema(kind), &mut definitions));
    json!({
        "$schema": DRAFT,
        "$defs": definitions,
        "title": "Mesh",
        "type": "object",
        "required": ["apiVersion", "kind", "services"],
        "properties": {
            "apiVersion": {"const": policy::API_VERSION},
            "kind": {"const": "Mesh"},
            "trustDomain": text,
            "certificateLifetime": {"type": "string", "description": "1m to 7d, such as 1h."},
            "tracing": {
                "type": "object",
                "properties": {
                    "sampling": {"type": "number", "minimum": 0, "maximum": 1},
                    "otlpEndpoint": text,
                },
            },
            "gateway": mesh_gateway(),
            "egress": mesh_egress(),
            "tcp": {
                "type": "object",
                "properties": {
                    "idleTimeout": text,
                    "detectionTimeout": text,
                    "maxConnections": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
                },
            },
            "path": {
                "type": "object",
                "properties": {"escapedSlashes": {"enum": ["Reject", "Keep"]}},
            },
            "authorization": {
                "type": "object",
                "properties": {
                    "default": {"enum": ["Allow", "Deny"]},
                    "explain": {"type": "boolean"},
                },
            },
            "services": {"type": "array", "minItems": 1, "items": mesh_service()},
            "routes": {"type": "array", "items": by_kind(&routes)},
            "policies": {"type": "array", "items": by_kind(&policies)},
        },
    })
}

fn port() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 65535})
}

fn mesh_gateway() -> Value {
    let listener = json!({
        "type": "object",
        "required": ["name", "port", "protocol"],
        "properties": {
            "name": {"type": "string", "maxLength": 63, "description": "sectionName of routes."},
            "port": port(),
            "protocol": {"enum": ["TCP", "TLS"], "description": "TLS is passed through."},
        },
    });
    json!({
        "type": "object",
        "properties": {
            "port": port(),
            "showVersion": {"type": "boolean"},
            "corsOrigins": {"type": "array", "items": {"type": "string"}},
            "listeners": {"type": "array", "items": listener},
        },
    })
}

fn mesh_egress() -> Value {
    let host = json!({
        "type": "object",
        "required": ["host"],
        "properties": {
            "host": {"type": "string"},
            "ports": {"type": "array", "items": port()},
        },
    });
    json!({
        "type": "object",
        "description": "What may leave the mesh; left out: nothing.",
        "properties": {
            "default": {"enum": ["Allow", "Deny"]},
            "hosts": {"type": "array", "items": {"anyOf": [{"type": "string"}, host]}},
        },
    })
}

fn mesh_service() -> Value {
    let text = json!({"type": "string"});
    let upstream = json!({
        "type": "object",
        "required": ["service"],
        "properties": {"service": text, "port": port()},
    });
    json!({
        "type": "object",
        "required": ["name", "protocol", "versions"],
        "properties": {
            "name": {
                "type": "string", "maxLength": 63,
                "description": "A DNS label: lower-case letters, digits and '-'.",
            },
            "protocol": {"type": "string", "description": "What its instances speak: http1, http2, grpc, tcp."},
            "sticky": {
                "type": "object",
                "description": "What keeps a user on a version; one of header, cookie, user.",
            },
            "joinToken": text,
            "upstreams": {
                "type": "array", "items": upstream,
                "description": "Services with protocol tcp that it connects to.",
            },
            "descriptorSet": {
                "type": "string",
                "description": "A file of a google.protobuf.FileDescriptorSet, or builtin.",
            },
            "audiences": {
                "type": "array", "items": {"type": "object"},
                "description": "Requests that go to a version whatever the weights: version, and one of headers, claim.",
            },
            "mirror": {
                "type": "object",
                "description": "A version that gets copies: version, percent.",
            },
            "managedBy": {
                "type": "string",
                "description": "Who alone changes its weights; applying this file leaves them.",
            },
            "versions": {"type": "array", "minItems": 1, "items": mesh_version()},
        },
    })
}

fn mesh_version() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": text,
            "weight": {
                "type": "integer", "minimum": 0, "maximum": 1_000_000,
                "description": "Its part of the sum, not percent.",
            },
            "replicas": {"type": "integer", "minimum": 1, "maximum": 64},
            "port": port(),
            "command": {
                "type": "array", "items": text, "minItems": 1,
                "description": "What is run; it listens on $PORT.",
            },
            "builtin": {"type": "string", "description": "A service that ships with weir."},
            "addresses": {
                "type": "array", "items": text, "minItems": 1,
                "description": "ip:port of processes without a router; weir starts nothing.",
            },
            "discovered": {
                "type": "boolean",
                "description": "Its instances are found in Consul; weir starts nothing.",
            },
            "env": {"type": "object"},
            "workingDirectory": text,
        },
    })
}

/// A whole schema as a part of another, with its definitions moved to where the
/// other's are: editors do not all follow references within an `$id`.
fn part(mut schema: Value, definitions: &mut Map<String, Value>) -> Value {
    let title = schema["title"].as_str().unwrap_or_default().to_owned();
    let own = schema.as_object_mut().and_then(|map| {
        map.remove("$schema");
        map.remove("$defs")
    });
    rename(&mut schema, &title);
    if let Some(Value::Object(own)) = own {
        for (name, mut definition) in own {
            rename(&mut definition, &title);
            definitions.insert(format!("{title}.{name}"), definition);
        }
    }
    schema
}

/// Points references to definitions of a schema at where they are moved to.
fn rename(schema: &mut Value, title: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(to) if key == "$ref" => {
                        *to = to.replacen("#/$defs/", &format!("#/$defs/{title}."), 1);
                    }
                    value => rename(value, title),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, title)),
        _ => {}
    }
}

fn by_kind(schemas: &[Value]) -> Value {
    let kind = |schema: &Value| schema["properties"]["kind"]["const"].clone();
    let one = |schema: &Value| {
        json!({
            "if": {"properties": {"kind": {"const": kind(schema)}}, "required": ["kind"]},
            "then": schema,
        })
    };
    json!({
        "type": "object",
        "properties": {"kind": {"enum": schemas.iter().map(kind).collect::<Vec<_>>()}},
        "required": ["kind"],
        "allOf": schemas.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
