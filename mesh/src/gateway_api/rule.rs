//! Rules of a route: matches, filters, backends, timeouts.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::document::{is_service, is_word};
use super::reader::{Object, join, near, text};
use super::{KnownServices, METHODS, duration, namespace, port};
use crate::model::{
    BackendRef, HeaderModifier, PathMatch, RouteFilter, RouteKind, RouteMatch, RouteRule,
    Violations, Weight,
};

/// Filters of the Gateway API that Weir does not have, by type and field.
const OTHER_FILTERS: [(&str, &str); 6] = [
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
    ("ExtensionRef", "extensionRef"),
];

pub(super) fn rule(
    value: &Value,
    at: &str,
    kind: RouteKind,
    services: &KnownServices,
    bad: &mut Violations,
) -> Option<RouteRule> {
    let object = Object::open(value, at, bad)?;
    let known = ["name", "matches", "filters", "backendRefs", "timeouts"];
    object.check(&known, &["retry", "sessionPersistence"], bad);
    let name = object.text("name", bad).unwrap_or_default();
    let mut matches = Vec::new();
    for (at, value) in object.list("matches", bad) {
        matches.extend(match kind {
            RouteKind::Http => http_match(value, &at, bad),
            RouteKind::Grpc => grpc_match(value, &at, bad),
        });
    }
    if matches.is_empty() {
        matches.push(RouteMatch::any());
    }
    let filters = object.list("filters", bad);
    let filters = filters.iter().filter_map(|(at, value)| filter(value, at, bad)).collect();
    let backends = backends(&object, services, bad);
    let timeout = timeout(&object, bad);
    Some(RouteRule { name: name.into(), matches, filters, backends, timeout })
}

fn timeout(rule: &Object<'_>, bad: &mut Violations) -> Option<Duration> {
    let timeouts = rule.object("timeouts", bad)?;
    timeouts.check(&["request"], &["backendRequest"], bad);
    let request = timeouts.text("request", bad)?;
    // 0 means none, as the Gateway API has it.
    bad.take(&timeouts.path("request"), duration::parse(request)).filter(|d| !d.is_zero())
}

/// The `type`; notes one that Weir does not have. `known` are those that the
/// Gateway API has beside.
fn only_type<'a>(
    object: &Object<'a>,
    supported: &[&'static str],
    known: &[&str],
    bad: &mut Violations,
) -> Option<&'a str> {
    let given = object.text("type", bad)?;
    if supported.contains(&given) {
        return Some(given);
    }
    let path = object.path("type");
    if known.contains(&given) {
        bad.add(path, format_args!("{given} is not supported yet; use {}", supported.join(" or ")));
    } else {
        bad.add(path, format_args!("{given:?} is not known; use {}", supported.join(" or ")));
    }
    None
}

fn http_match(value: &Value, at: &str, bad: &mut Violations) -> Option<RouteMatch> {
    let object = Object::open(value, at, bad)?;
    object.check(&["path", "headers", "queryParams", "method"], &[], bad);
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
    let mut query: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for (at, value) in object.list("queryParams", bad) {
        if let Some((name, value)) = name_value(value, &at, true, bad) {
            if query.iter().any(|(other, _)| **other == *name) {
                bad.add(join(&at, "name"), format_args!("{name} is here twice"));
            }
            query.push((name.into(), value.into()));
        }
    }
    Some(RouteMatch { path: path.unwrap_or_else(PathMatch::any), method, headers, query })
}

fn path(object: &Object<'_>, bad: &mut Violations) -> Option<PathMatch> {
    object.check(&["type", "value"], &[], bad);
    let given = only_type(object, &["PathPrefix", "Exact"], &["RegularExpression"], bad);
    let value = object.text("value", bad).unwrap_or("/");
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

fn grpc_match(value: &Value, at: &str, bad: &mut Violations) -> Option<RouteMatch> {
    let object = Object::open(value, at, bad)?;
    object.check(&["method", "headers"], &[], bad);
    let path = object.object("method", bad).and_then(|m| grpc_method(&m, bad));
    let headers = headers(&object, bad);
    Some(RouteMatch { path: path.unwrap_or_else(PathMatch::any), headers, ..RouteMatch::any() })
}

fn grpc_method(object: &Object<'_>, bad: &mut Violations) -> Option<PathMatch> {
    object.check(&["type", "service", "method"], &[], bad);
    only_type(object, &["Exact"], &["RegularExpression"], bad);
    let service = object.text("service", bad);
    let method = object.text("method", bad);
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
    match (service, method) {
        (Some(service), Some(method)) => {
            Some(PathMatch::Exact(format!("/{service}/{method}").into()))
        }
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}").into())),
        (None, Some(_)) => {
            let why = "is missing; a method without its service is not supported yet";
            bad.add(object.path("service"), why);
            None
        }
        (None, None) => {
            bad.add(object.at(), "names neither a service nor a method; leave it out to match all");
            None
        }
    }
}

/// One name and value; `typed` when they may say how they match.
fn name_value<'a>(
    value: &'a Value,
    at: &str,
    typed: bool,
    bad: &mut Violations,
) -> Option<(&'a str, &'a str)> {
    let object = Object::open(value, at, bad)?;
    if typed {
        object.check(&["type", "name", "value"], &[], bad);
        only_type(&object, &["Exact"], &["RegularExpression"], bad);
    } else {
        object.check(&["name", "value"], &[], bad);
    }
    if object.get("value").is_none() {
        bad.add(object.path("value"), "is missing");
    }
    let name = object.required("name", bad);
    name.zip(object.text("value", bad))
}

fn headers(object: &Object<'_>, bad: &mut Violations) -> Vec<(HeaderName, HeaderValue)> {
    header_pairs(&object.list("headers", bad), true, bad)
}

fn header_pairs(
    list: &[(String, &Value)],
    typed: bool,
    bad: &mut Violations,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (at, value) in list {
        let Some((name, value)) = name_value(value, at, typed, bad) else { continue };
        let name = bad.take(&join(at, "name"), header_name(name));
        let value = HeaderValue::from_str(value).map_err(|_| "has a character no header may hold");
        let value = bad.take(&join(at, "value"), value);
        let Some((name, value)) = name.zip(value) else { continue };
        if pairs.iter().any(|(other, _)| *other == name) {
            bad.add(join(at, "name"), format_args!("{name} is here twice"));
        }
        pairs.push((name, value));
    }
    pairs
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is no header name"))
}

fn filter(value: &Value, at: &str, bad: &mut Violations) -> Option<RouteFilter> {
    const REQUEST: (&str, &str) = ("RequestHeaderModifier", "requestHeaderModifier");
    const RESPONSE: (&str, &str) = ("ResponseHeaderModifier", "responseHeaderModifier");
    let object = Object::open(value, at, bad)?;
    let given = object.required("type", bad)?;
    let field = match given {
        _ if given == REQUEST.0 => REQUEST.1,
        _ if given == RESPONSE.0 => RESPONSE.1,
        _ => {
            let other = OTHER_FILTERS.iter().any(|(name, _)| *name == given);
            let names = OTHER_FILTERS.iter().map(|(name, _)| *name);
            let why = match near(given, names.chain([REQUEST.0, RESPONSE.0])) {
                _ if other => format!("{given} is not supported yet"),
                Some(near) => format!("{given:?} is not known; did you mean {near}?"),
                None => format!("{given:?} is not known; use {} or {}", REQUEST.0, RESPONSE.0),
            };
            bad.add(object.path("type"), why);
            return None;
        }
    };
    let mut others: Vec<&str> = OTHER_FILTERS.iter().map(|(_, field)| *field).collect();
    others.extend([REQUEST.1, RESPONSE.1].iter().filter(|other| **other != field));
    let why = format!("does not belong to a filter of type {given}");
    object.check_or(&["type", field], &others, &why, bad);
    let modifier = header_modifier(&object.required_object(field, bad)?, bad);
    Some(match field {
        _ if field == REQUEST.1 => RouteFilter::RequestHeaderModifier(modifier),
        _ => RouteFilter::ResponseHeaderModifier(modifier),
    })
}

fn header_modifier(object: &Object<'_>, bad: &mut Violations) -> HeaderModifier {
    object.check(&["set", "add", "remove"], &[], bad);
    let set = header_pairs(&object.list("set", bad), false, bad);
    let add = header_pairs(&object.list("add", bad), false, bad);
    let mut remove = Vec::new();
    for (at, value) in object.list("remove", bad) {
        if let Some(name) = text(value, &at, bad) {
            remove.extend(bad.take(&at, header_name(name)));
        }
    }
    HeaderModifier { set, add, remove }
}

pub(super) fn backends(
    rule: &Object<'_>,
    services: &KnownServices,
    bad: &mut Violations,
) -> Vec<BackendRef> {
    let refs = rule.list("backendRefs", bad);
    if refs.is_empty() {
        bad.add(rule.path("backendRefs"), "is empty; name at least one backend");
        return Vec::new();
    }
    let mut weights = Vec::new();
    let mut backends = Vec::new();
    for (at, value) in &refs {
        let Some(object) = Object::open(value, at, bad) else { continue };
        let known = ["group", "kind", "name", "namespace", "port", "weight"];
        object.check(&known, &["filters"], bad);
        only(&object, "group", &["", "core"], bad);
        only(&object, "kind", &["Service"], bad);
        namespace(&object, bad);
        port(&object, bad);
        let name = object.required("name", bad);
        let target = name.and_then(|n| bad.take(&object.path("name"), services.resolve(n)));
        let weight = match object.get("weight") {
            None => Some(1),
            Some(_) => object.integer("weight", bad),
        };
        let weight = weight.and_then(|w| bad.take(&object.path("weight"), Weight::try_from(w)));
        weights.extend(weight);
        backends.extend(target.zip(weight).map(|((service, version), weight)| BackendRef {
            service,
            version,
            weight,
        }));
    }
    if weights.len() == refs.len() && weights.iter().all(|weight| weight.get() == 0) {
        bad.add(rule.path("backendRefs"), "all weights are 0; at least one must be above 0");
    }
    backends
}

fn only(object: &Object<'_>, field: &str, allowed: &[&str], bad: &mut Violations) {
    if let Some(given) = object.text(field, bad)
        && !allowed.contains(&given)
    {
        let why = format!("{given:?} is not supported yet; use {:?}", allowed[0]);
        bad.add(object.path(field), why);
    }
}
