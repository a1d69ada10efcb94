//! Matches of a rule.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::METHODS;
use super::document::{is_service, is_word};
use super::fields;
use super::reader::{Object, join, near};
use super::rule::one_of;
use crate::model::{PathMatch, Pattern, RouteMatch, ValueMatch, Violations};

pub(super) fn http_match(value: &Value, at: &str, bad: &mut Violations) -> Option<RouteMatch> {
    let object = Object::open(value, at, bad)?;
    object.check(&fields::HTTP_MATCH, &[], bad);
    let path = object.object("path", bad).and_then(|p| path(&p, bad));
    let method = object.text("method", bad).and_then(|name| {
        let method = METHODS.iter().find(|method| method.as_str() == name);
        if method.is_none() {
            let why = match near(name, METHODS.iter().map(Method::as_str)) {
                Some(near) => format!("{name:?} is not a method; did you mean {near}?"),
                None => format!("{name:?} is not a method that a match can name"),
            };
            bad.add(object.path("method"), why);
        }
        method.cloned()
    });
    let headers = headers(&object, bad);
    let mut query: Vec<(Arc<str>, ValueMatch)> = Vec::new();
    for (at, value) in object.list("queryParams", bad) {
        let Some((name, value)) = value_match(value, &at, bad) else { continue };
        if query.iter().any(|(other, _)| **other == *name) {
            bad.add(join(&at, "name"), format_args!("{name} is here twice"));
        }
        query.push((name.into(), value));
    }
    Some(RouteMatch { path: path.unwrap_or_else(PathMatch::any), method, headers, query })
}

fn path(object: &Object<'_>, bad: &mut Violations) -> Option<PathMatch> {
    object.check(&fields::PATH, &[], bad);
    let given = one_of(object, "type", &fields::PATH_TYPES, bad);
    let value = object.text("value", bad).unwrap_or("/");
    if given == Some("RegularExpression") {
        return bad.take(&object.path("value"), Pattern::parse(value)).map(PathMatch::Regex);
    }
    let why = if !value.starts_with('/') {
        Some("does not begin with '/'")
    } else if value.contains("//") || value.contains("/./") || value.contains("/../") {
        Some("has an empty segment or a dot segment")
    } else if value.ends_with("/.") || value.ends_with("/..") {
        Some("ends in a dot segment")
    } else if value.contains(['?', '#']) {
        Some("has a query or a fragment; match those by queryParams")
    } else {
        None
    };
    if let Some(why) = why {
        bad.add(object.path("value"), format_args!("{value:?} {why}"));
        return None;
    }
    Some(match given {
        Some("Exact") => PathMatch::Exact(value.into()),
        _ => PathMatch::Prefix(value.trim_end_matches('/').into()),
    })
}

pub(super) fn grpc_match(value: &Value, at: &str, bad: &mut Violations) -> Option<RouteMatch> {
    let object = Object::open(value, at, bad)?;
    object.check(&fields::GRPC_MATCH, &[], bad);
    let path = object.object("method", bad).and_then(|m| grpc_method(&m, bad));
    let headers = headers(&object, bad);
    Some(RouteMatch { path: path.unwrap_or_else(PathMatch::any), headers, ..RouteMatch::any() })
}

fn grpc_method(object: &Object<'_>, bad: &mut Violations) -> Option<PathMatch> {
    object.check(&fields::GRPC_METHOD, &[], bad);
    let given = one_of(object, "type", &fields::VALUE_TYPES, bad);
    let service = object.text("service", bad);
    let method = object.text("method", bad);
    if service.is_none() && method.is_none() {
        bad.add(object.at(), "names neither a service nor a method; leave it out to match all");
        return None;
    }
    if given == Some("RegularExpression") {
        let mut pattern =
            |field: &str, text: &str| bad.take(&object.path(field), Pattern::parse(text));
        let service = service.map(|text| pattern("service", text));
        let method = method.map(|text| pattern("method", text));
        return Some(PathMatch::GrpcRegex { service: service.flatten(), method: method.flatten() });
    }
    if let Some(service) = service
        && !is_service(service)
    {
        let why = format!("{service:?} is no gRPC service, such as weir.users.v1.UsersService");
        bad.add(object.path("service"), why);
    }
    if let Some(method) = method
        && !is_word(method)
    {
        bad.add(object.path("method"), format_args!("{method:?} is no gRPC method, such as GetMe"));
    }
    Some(match (service, method) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}").into()),
        (None, method) => PathMatch::GrpcMethod(method.unwrap_or_default().into()),
    })
}

/// One name and value.
pub(super) fn name_value<'a>(
    object: &Object<'a>,
    bad: &mut Violations,
) -> Option<(&'a str, &'a str)> {
    if object.get("value").is_none() {
        bad.add(object.path("value"), "is missing");
    }
    let name = object.required("name", bad);
    name.zip(object.text("value", bad))
}

/// One name, and how its value must look.
fn value_match<'a>(
    value: &'a Value,
    at: &str,
    bad: &mut Violations,
) -> Option<(&'a str, ValueMatch)> {
    let object = Object::open(value, at, bad)?;
    object.check(&fields::TYPED_VALUE, &[], bad);
    let given = one_of(&object, "type", &fields::VALUE_TYPES, bad);
    let (name, value) = name_value(&object, bad)?;
    let value = match given {
        Some("RegularExpression") => {
            ValueMatch::Regex(bad.take(&object.path("value"), Pattern::parse(value))?)
        }
        _ => ValueMatch::Exact(value.into()),
    };
    Some((name, value))
}

fn headers(object: &Object<'_>, bad: &mut Violations) -> Vec<(HeaderName, ValueMatch)> {
    let mut pairs: Vec<(HeaderName, ValueMatch)> = Vec::new();
    for (at, value) in object.list("headers", bad) {
        let Some((name, value)) = value_match(value, &at, bad) else { continue };
        if let ValueMatch::Exact(value) = &value
            && HeaderValue::from_str(value).is_err()
        {
            bad.add(join(&at, "value"), "has a character no header may hold");
        }
        let Some(name) = bad.take(&join(&at, "name"), header_name(name)) else { continue };
        if pairs.iter().any(|(other, _)| *other == name) {
            bad.add(join(&at, "name"), format_args!("{name} is here twice"));
        }
        pairs.push((name, value));
    }
    pairs
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is no header name"))
}
