//! [`Route`] -> Gateway API document.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{API_VERSION, GATEWAY_NAME, duration};
use crate::model::{
    BackendRef, HeaderModifier, Parent, PathMatch, Route, RouteFilter, RouteKind, RouteMatch,
    RouteRule,
};

/// Writes a route as the Gateway API has it, such that
/// [`parse_route`](super::parse_route) reads the same route again.
///
/// A GRPCRoute that matches what only an HTTPRoute can say (it was made by the
/// gRPC API then, not by a document) is written as an HTTPRoute.
#[must_use]
pub fn to_document(route: &Route) -> Value {
    let grpc = (route.kind == RouteKind::Grpc).then(|| grpc_rules(route)).flatten();
    let (kind, matches) = match grpc {
        Some(matches) => ("GRPCRoute", matches),
        None => ("HTTPRoute", route.rules.iter().map(http_matches).collect()),
    };
    let rules = route.rules.iter().zip(matches).map(|(rule, matches)| self::rule(rule, matches));
    let mut spec = json!({
        "parentRefs": route.parents.iter().map(parent).collect::<Vec<_>>(),
        "rules": rules.collect::<Vec<_>>(),
    });
    if !route.hostnames.is_empty() {
        spec["hostnames"] = route.hostnames.iter().map(ToString::to_string).collect();
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": { "name": *route.name },
        "spec": spec,
    })
}

fn parent(parent: &Parent) -> Value {
    match parent {
        Parent::Gateway => json!({ "name": GATEWAY_NAME }),
        Parent::Service(name) => json!({ "group": "", "kind": "Service", "name": name.as_str() }),
    }
}

fn rule(rule: &RouteRule, matches: Vec<Value>) -> Value {
    let backends: Vec<Value> = rule.backends.iter().map(backend).collect();
    let mut out = json!({ "backendRefs": backends });
    if !rule.name.is_empty() {
        out["name"] = (*rule.name).into();
    }
    // What matches everything needs no saying.
    if rule.matches != [RouteMatch::any()] {
        out["matches"] = matches.into();
    }
    if !rule.filters.is_empty() {
        out["filters"] = rule.filters.iter().map(filter).collect();
    }
    if let Some(timeout) = rule.timeout {
        out["timeouts"] = json!({ "request": duration::print(timeout) });
    }
    out
}

pub(super) fn backend(backend: &BackendRef) -> Value {
    let name = match &backend.version {
        Some(version) => format!("{}-{version}", backend.service),
        None => backend.service.to_string(),
    };
    json!({ "name": name, "weight": backend.weight.get() })
}

fn filter(filter: &RouteFilter) -> Value {
    match filter {
        RouteFilter::RequestHeaderModifier(modifier) => json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": header_modifier(modifier),
        }),
        RouteFilter::ResponseHeaderModifier(modifier) => json!({
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": header_modifier(modifier),
        }),
    }
}

fn header_modifier(modifier: &HeaderModifier) -> Value {
    let mut out = json!({});
    if !modifier.set.is_empty() {
        out["set"] = headers(&modifier.set);
    }
    if !modifier.add.is_empty() {
        out["add"] = headers(&modifier.add);
    }
    if !modifier.remove.is_empty() {
        out["remove"] = modifier.remove.iter().map(HeaderName::as_str).collect();
    }
    out
}

fn headers(headers: &[(HeaderName, HeaderValue)]) -> Value {
    let pair = |(name, value): &(HeaderName, HeaderValue)| json!({ "name": name.as_str(), "value": String::from_utf8_lossy(value.as_bytes()) });
    headers.iter().map(pair).collect()
}

fn http_matches(rule: &RouteRule) -> Vec<Value> {
    rule.matches.iter().map(http_match).collect()
}

fn http_match(matched: &RouteMatch) -> Value {
    let mut out = json!({ "path": match &matched.path {
        PathMatch::Exact(path) => json!({ "type": "Exact", "value": **path }),
        PathMatch::Prefix(path) if path.is_empty() => json!({ "type": "PathPrefix", "value": "/" }),
        PathMatch::Prefix(path) => json!({ "type": "PathPrefix", "value": **path }),
    } });
    if let Some(method) = &matched.method {
        out["method"] = method.as_str().into();
    }
    if !matched.headers.is_empty() {
        out["headers"] = headers(&matched.headers);
    }
    if !matched.query.is_empty() {
        let pair =
            |(name, value): &(Arc<str>, Arc<str>)| json!({ "name": **name, "value": **value });
        out["queryParams"] = matched.query.iter().map(pair).collect();
    }
    out
}

/// The matches of each rule as a GRPCRoute has them, if it can say all of them.
fn grpc_rules(route: &Route) -> Option<Vec<Vec<Value>>> {
    let rule = |rule: &RouteRule| rule.matches.iter().map(grpc_match).collect();
    route.rules.iter().map(rule).collect()
}

fn grpc_match(matched: &RouteMatch) -> Option<Value> {
    if matched.method.is_some() || !matched.query.is_empty() {
        return None;
    }
    let method = match &matched.path {
        PathMatch::Prefix(path) if path.is_empty() => None,
        PathMatch::Prefix(path) => {
            let service = path.strip_prefix('/').filter(|service| is_service(service))?;
            Some(json!({ "service": service }))
        }
        PathMatch::Exact(path) => {
            let (service, method) = path.strip_prefix('/')?.split_once('/')?;
            if !is_service(service) || !is_word(method) {
                return None;
            }
            Some(json!({ "service": service, "method": method }))
        }
    };
    let mut out = json!({});
    if let Some(method) = method {
        out["method"] = method;
    }
    if !matched.headers.is_empty() {
        out["headers"] = headers(&matched.headers);
    }
    Some(out)
}

/// Whether a GRPCRoute can name this service: words with dots between them.
pub(super) fn is_service(text: &str) -> bool {
    text.split('.').all(is_word)
}

/// Whether a GRPCRoute can name this method.
pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
