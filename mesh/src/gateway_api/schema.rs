//! JSON Schema (draft 2020-12) of the documents, from the same tables that the
//! parser reads by. It says what can be said without knowing the mesh; that a
//! backend exists, or that two fields fit together, only the parser can tell.

use serde_json::{Map, Value, json};

use super::annotations::{FORCE_VERSION, PIN_VERSIONS};
use super::fields::{self, FILTERS, GRPC_FILTERS};
use super::{API_VERSION, METHODS, tcp};
use crate::model::{MAX_FILTERS, Pattern, Redirect, RouteKind, Weight};

/// The schema of `HTTPRoute`, `GRPCRoute`, `TCPRoute` or `TLSRoute`; null for any
/// other kind.
#[must_use]
pub fn schema(kind: &str) -> Value {
    let spec = match kind {
        "HTTPRoute" => spec(RouteKind::Http),
        "GRPCRoute" => spec(RouteKind::Grpc),
        "TCPRoute" => tcp_spec(&["parentRefs", "rules"]),
        "TLSRoute" => tcp_spec(&["parentRefs", "hostnames", "rules"]),
        _ => return Value::Null,
    };
    let older = tcp::OLDER.iter().filter(|_| matches!(kind, "TCPRoute" | "TLSRoute"));
    let versions: Vec<&str> = [API_VERSION].into_iter().chain(older.copied()).collect();
    let mut document = object(&fields::DOCUMENT, &fields::DOCUMENT, |field| match field {
        "apiVersion" => json!({ "enum": versions }),
        "kind" => json!({ "const": kind }),
        "metadata" => metadata(),
        _ => spec.clone(),
    });
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    document["title"] = kind.into();
    document
}

/// An object with these fields alone.
fn object(fields: &[&str], required: &[&str], of: impl Fn(&str) -> Value) -> Value {
    // What need not be there may be null as well.
    let one = |field: &&str| match required.contains(field) {
        true => ((*field).to_owned(), of(field)),
        false => ((*field).to_owned(), or_null(of(field))),
    };
    let properties: Map<String, Value> = fields.iter().map(one).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn some_text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn number(from: i64, to: i64) -> Value {
    json!({ "type": "integer", "minimum": from, "maximum": to })
}

fn metadata() -> Value {
    object(&fields::METADATA, &["name"], |field| match field {
        "name" => json!({
            "type": "string",
            "maxLength": 253,
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        }),
        "namespace" => json!({ "const": "default" }),
        "annotations" => annotations(),
        _ => json!({}),
    })
}

/// Those of Weir are known, those of others are not looked at.
fn annotations() -> Value {
    json!({
        "type": "object",
        "properties": {
            FORCE_VERSION: or_null(json!({ "type": "string", "pattern": "^(header|cookie):." })),
            PIN_VERSIONS: or_null(json!({ "enum": ["true", "false"] })),
        },
        "propertyNames": { "anyOf": [
            { "enum": [FORCE_VERSION, PIN_VERSIONS] },
            { "not": { "pattern": "^weir\\.dev/" } },
        ] },
    })
}

fn spec(kind: RouteKind) -> Value {
    object(&fields::SPEC, &["parentRefs", "rules"], |field| match field {
        "parentRefs" => {
            let mut refs = list(object(&fields::PARENT_REF, &["name"], |field| match field {
                "kind" => json!({ "enum": ["Gateway", "Service"] }),
                other => reference(other),
            }));
            refs["minItems"] = 1.into();
            refs
        }
        "hostnames" => list(json!({ "type": "string", "maxLength": 255, "minLength": 1 })),
        _ => {
            let mut rules = list(rule(kind));
            rules["minItems"] = 1.into();
            rules
        }
    })
}

/// Of TCPRoute and TLSRoute, which have one rule without matches and filters.
fn tcp_spec(fields: &[&str]) -> Value {
    let parent = object(&tcp::PARENT_REF, &["name"], |field| match field {
        "kind" => json!({ "enum": ["Gateway", "Service"] }),
        other => reference(other),
    });
    object(fields, fields, |field| {
        let mut items = match field {
            "parentRefs" => list(parent.clone()),
            "hostnames" => list(json!({ "type": "string", "maxLength": 255, "minLength": 1 })),
            _ => {
                let mut rules = list(object(&tcp::RULE, &["backendRefs"], |field| match field {
                    "name" => text(),
                    _ => list(object(&tcp::BACKEND_REF, &["name"], |field| match field {
                        "weight" => number(0, Weight::MAX.into()),
                        other => backend(other),
                    })),
                }));
                rules["maxItems"] = 1.into();
                rules
            }
        };
        items["minItems"] = 1.into();
        items
    })
}

/// A field of a reference to an object.
fn reference(field: &str) -> Value {
    match field {
        "name" => some_text(),
        "namespace" => json!({ "const": "default" }),
        "port" => number(1, 65535),
        _ => text(),
    }
}

fn rule(kind: RouteKind) -> Value {
    object(&fields::RULE, &[], |field| match field {
        "name" => text(),
        "matches" => list(match kind {
            RouteKind::Http => http_match(),
            RouteKind::Grpc => grpc_match(),
        }),
        "filters" => filters(kind, true),
        "backendRefs" => list(object(&fields::BACKEND_REF, &["name"], |field| match field {
            "weight" => number(0, Weight::MAX.into()),
            "filters" => filters(kind, false),
            other => backend(other),
        })),
        "timeouts" => object(&fields::TIMEOUTS, &[], |_| duration()),
        "retry" => object(&fields::RETRY, &[], |field| match field {
            "codes" => list(number(400, 599)),
            "attempts" => number(0, 100),
            _ => duration(),
        }),
        _ => session(),
    })
}

fn backend(field: &str) -> Value {
    match field {
        "group" => json!({ "enum": ["", "core"] }),
        "kind" => json!({ "const": "Service" }),
        other => reference(other),
    }
}

/// GEP-2257.
fn duration() -> Value {
    json!({ "type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
}

fn session() -> Value {
    object(&fields::SESSION, &[], |field| match field {
        "sessionName" => json!({ "type": "string", "maxLength": 128 }),
        "type" => json!({ "enum": ["Cookie", "Header"] }),
        "cookieConfig" => {
            object(&fields::COOKIE, &[], |_| json!({ "enum": ["Session", "Permanent"] }))
        }
        _ => duration(),
    })
}

fn value_match() -> Value {
    list(object(&fields::TYPED_VALUE, &["name", "value"], |field| match field {
        "type" => json!({ "enum": fields::VALUE_TYPES }),
        "name" => some_text(),
        _ => text(),
    }))
}

fn http_match() -> Value {
    object(&fields::HTTP_MATCH, &[], |field| match field {
        "path" => object(&fields::PATH, &[], |field| match field {
            "type" => json!({ "enum": fields::PATH_TYPES }),
            _ => json!({ "type": "string", "minLength": 1, "maxLength": Pattern::MAX }),
        }),
        "method" => json!({ "enum": METHODS.each_ref().map(http::Method::as_str) }),
        _ => value_match(),
    })
}

fn grpc_match() -> Value {
    object(&fields::GRPC_MATCH, &[], |field| match field {
        "method" => {
            let mut method = object(&fields::GRPC_METHOD, &[], |field| match field {
                "type" => json!({ "enum": fields::VALUE_TYPES }),
                _ => some_text(),
            });
            let has = |field: &str| json!({ "required": [field] });
            method["anyOf"] = json!([has("service"), has("method")]);
            method
        }
        _ => value_match(),
    })
}

fn filters(kind: RouteKind, of_rule: bool) -> Value {
    let all = match kind {
        RouteKind::Http => &FILTERS[..],
        RouteKind::Grpc => &FILTERS[..GRPC_FILTERS],
    };
    let here = all.iter().filter(|(name, _)| of_rule || *name != "CORS");
    let one = |(name, field): &(&str, &str)| {
        let names = ["type", field];
        object(&names, &names, |of| match of {
            "type" => json!({ "const": name }),
            _ => filter(name),
        })
    };
    let mut filters = list(json!({ "oneOf": here.map(one).collect::<Vec<_>>() }));
    filters["maxItems"] = MAX_FILTERS.into();
    filters
}

fn filter(name: &str) -> Value {
    match name {
        "RequestHeaderModifier" | "ResponseHeaderModifier" => {
            object(&fields::MODIFIER, &[], |field| match field {
                "remove" => list(some_text()),
                _ => list(object(&fields::VALUE, &fields::VALUE, |field| match field {
                    "name" => some_text(),
                    _ => text(),
                })),
            })
        }
        "RequestMirror" => object(&fields::MIRROR, &["backendRef"], |field| match field {
            "backendRef" => object(&fields::OBJECT_REF, &["name"], backend),
            "percent" => number(0, 100),
            _ => object(&fields::FRACTION, &["numerator"], |field| match field {
                "numerator" => number(0, i32::MAX.into()),
                _ => number(1, i32::MAX.into()),
            }),
        }),
        "RequestRedirect" => object(&fields::REDIRECT, &[], |field| match field {
            "scheme" => json!({ "enum": ["http", "https"] }),
            "path" => path_modifier(),
            "port" => number(1, 65535),
            "statusCode" => json!({ "enum": Redirect::STATUSES }),
            _ => some_text(),
        }),
        "URLRewrite" => object(&fields::REWRITE, &[], |field| match field {
            "path" => path_modifier(),
            _ => some_text(),
        }),
        "CORS" => object(&fields::CORS, &[], |field| match field {
            "allowCredentials" => json!({ "type": "boolean" }),
            "maxAge" => number(1, i32::MAX.into()),
            _ => {
                let mut names = list(some_text());
                names["maxItems"] = 64.into();
                names
            }
        }),
        _ => object(&fields::EXTENSION, &fields::EXTENSION, |field| match field {
            "group" => json!({ "const": "weir.dev" }),
            "kind" => json!({ "const": fields::EXTENSION_KIND }),
            _ => some_text(),
        }),
    }
}

fn path_modifier() -> Value {
    object(&fields::PATH_MODIFIER, &["type"], |field| match field {
        "type" => json!({ "enum": fields::PATH_MODIFIER_TYPES }),
        _ => json!({ "type": "string", "maxLength": 1024 }),
    })
}
