//! [`Route`] -> Gateway API document.

use std::time::Duration;

use serde_json::{Value, json};

use super::document_filter::filters;
use super::{API_VERSION, GATEWAY_NAME, annotations, duration};
use crate::model::{
    BackendRef, ForceVersion, Parent, PathMatch, Pattern, RetryRule, Route, RouteKind, RouteMatch,
    RouteRule, ServiceName, SessionKind, SessionPersistence, ValueMatch, VersionName,
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
        "metadata": metadata(route),
        "spec": spec,
    })
}

fn metadata(route: &Route) -> Value {
    let mut out = json!({ "name": *route.name });
    if let Some(force) = &route.force_version {
        out["annotations"][annotations::FORCE_VERSION] = match force {
            ForceVersion::Header(name) => format!("header:{name}").into(),
            ForceVersion::Cookie(name) => format!("cookie:{name}").into(),
        };
    }
    if route.pin_versions {
        out["annotations"][annotations::PIN_VERSIONS] = "true".into();
    }
    out
}

fn parent(parent: &Parent) -> Value {
    match parent {
        Parent::Gateway => json!({ "name": GATEWAY_NAME }),
        Parent::Listener(id) => {
            let mut parts = id.splitn(3, '/');
            let mut part = || parts.next().unwrap_or_default();
            json!({ "namespace": part(), "name": part(), "sectionName": part() })
        }
        Parent::Service(service) | Parent::Consumer { service, .. } => {
            let mut out = json!({ "group": "", "kind": "Service", "name": service.label() });
            if let Some(namespace) = service.namespace() {
                out["namespace"] = namespace.into();
            }
            if let Some(port) = service.port() {
                out["port"] = port.into();
            }
            out
        }
    }
}

fn rule(rule: &RouteRule, matches: Vec<Value>) -> Value {
    let mut out = json!({});
    if !rule.backends.is_empty() {
        out["backendRefs"] = rule.backends.iter().map(backend).collect();
    }
    if !rule.name.is_empty() {
        out["name"] = (*rule.name).into();
    }
    // What matches everything needs no saying.
    if rule.matches != [RouteMatch::any()] {
        out["matches"] = matches.into();
    }
    if !rule.filters.is_empty() {
        out["filters"] = filters(&rule.filters);
    }
    let mut timeouts = json!({});
    time(&mut timeouts, "request", rule.timeout);
    time(&mut timeouts, "backendRequest", rule.backend_timeout);
    if timeouts != json!({}) {
        out["timeouts"] = timeouts;
    }
    if let Some(retry) = &rule.retry {
        out["retry"] = self::retry(retry);
    }
    if let Some(session) = &rule.session {
        out["sessionPersistence"] = self::session(session);
    }
    out
}

fn time(out: &mut Value, field: &str, time: Option<Duration>) {
    if let Some(time) = time {
        out[field] = duration::print(time).into();
    }
}

fn retry(retry: &RetryRule) -> Value {
    let mut out = json!({});
    if !retry.codes.is_empty() {
        out["codes"] = retry.codes.clone().into();
    }
    if let Some(attempts) = retry.attempts {
        out["attempts"] = attempts.into();
    }
    time(&mut out, "backoff", retry.backoff);
    out
}

fn session(session: &SessionPersistence) -> Value {
    let mut out = json!({});
    if let Some(name) = &session.name {
        out["sessionName"] = (**name).into();
    }
    time(&mut out, "absoluteTimeout", session.absolute_timeout);
    time(&mut out, "idleTimeout", session.idle_timeout);
    match session.kind {
        SessionKind::Cookie => out["type"] = "Cookie".into(),
        SessionKind::PermanentCookie => {
            out["type"] = "Cookie".into();
            out["cookieConfig"] = json!({ "lifetimeType": "Permanent" });
        }
        SessionKind::Header => out["type"] = "Header".into(),
    }
    out
}

/// What a reference to a backend calls it.
pub(super) fn name(service: &ServiceName, version: Option<&VersionName>) -> String {
    match version {
        Some(version) => format!("{service}-{version}"),
        None => service.to_string(),
    }
}

pub(super) fn backend(backend: &BackendRef) -> Value {
    let name = name(&backend.service, backend.version.as_ref());
    let mut out = json!({ "name": name, "weight": backend.weight.get() });
    if !backend.filters.is_empty() {
        out["filters"] = filters(&backend.filters);
    }
    out
}

fn http_matches(rule: &RouteRule) -> Vec<Value> {
    rule.matches.iter().map(http_match).collect()
}

fn http_match(matched: &RouteMatch) -> Value {
    let typed = |kind: &str, value: &str| json!({ "type": kind, "value": value });
    let mut out = json!({ "path": match &matched.path {
        PathMatch::Exact(path) => typed("Exact", path),
        PathMatch::Prefix(path) if path.is_empty() => typed("PathPrefix", "/"),
        PathMatch::Prefix(path) => typed("PathPrefix", path),
        PathMatch::Regex(pattern) => typed("RegularExpression", pattern.as_str()),
        // Only a route of another kind says these; a path that means the same.
        PathMatch::GrpcMethod(method) => typed("RegularExpression", &format!("/[^/]+/{method}")),
        PathMatch::GrpcRegex { service, method } => {
            let part = |pattern: &Option<Pattern>| match pattern {
                Some(pattern) => format!("({})", pattern.as_str()),
                None => "[^/]+".to_owned(),
            };
            typed("RegularExpression", &format!("/{}/{}", part(service), part(method)))
        }
    } });
    if let Some(method) = &matched.method {
        out["method"] = method.as_str().into();
    }
    add_headers(&mut out, matched);
    if !matched.query.is_empty() {
        out["queryParams"] = matched.query.iter().map(|(name, v)| wanted(name, v)).collect();
    }
    out
}

fn add_headers(out: &mut Value, matched: &RouteMatch) {
    if !matched.headers.is_empty() {
        let header = matched.headers.iter().map(|(name, value)| wanted(name.as_str(), value));
        out["headers"] = header.collect();
    }
}

fn wanted(name: &str, value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Exact(value) => json!({ "name": name, "value": **value }),
        ValueMatch::Regex(pattern) => {
            json!({ "type": "RegularExpression", "name": name, "value": pattern.as_str() })
        }
    }
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
        PathMatch::Regex(_) => return None,
        PathMatch::GrpcMethod(method) => Some(json!({ "method": **method })),
        PathMatch::GrpcRegex { service, method } => {
            let mut out = json!({ "type": "RegularExpression" });
            for (field, pattern) in [("service", service), ("method", method)] {
                if let Some(pattern) = pattern {
                    out[field] = pattern.as_str().into();
                }
            }
            Some(out)
        }
    };
    let mut out = json!({});
    if let Some(method) = method {
        out["method"] = method;
    }
    add_headers(&mut out, matched);
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
