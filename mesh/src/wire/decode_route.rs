//! Protobuf -> model: routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use weir_proto::weir::mesh::v1 as pb;

use super::decode::{is_token, join};
use super::decode_filter::filters;
use crate::model::{
    BackendRef, ForceVersion, HostPattern, Invalid, Parent, PathMatch, Pattern, RetryRule, Route,
    RouteKind, RouteMatch, RouteRule, SessionKind, SessionPersistence, ValueMatch, VersionName,
    Violations, Weight, answers, check_rule,
};

/// Reads a route. Whether its backends exist is for the caller to ask.
///
/// # Errors
/// All fields that are wrong.
pub fn route(message: &pb::Route, at: &str) -> Result<Route, Invalid> {
    let mut bad = Violations::new();
    let name = message.name.as_str();
    route_name(name, at, &mut bad);
    let kind = match message.kind() {
        pb::route::Kind::GrpcRoute => RouteKind::Grpc,
        pb::route::Kind::HttpRoute | pb::route::Kind::Unspecified => RouteKind::Http,
    };
    let parents = parents(&message.parent_refs, at, &mut bad);
    let mut hostnames = Vec::new();
    for (i, host) in message.hostnames.iter().enumerate() {
        let at = join(at, &format!("hostnames[{i}]"));
        hostnames.extend(bad.take(&at, HostPattern::parse(host)));
    }
    if message.rules.is_empty() {
        bad.add(join(at, "rules"), "is empty; a route without rules does nothing");
    }
    let mut rules = Vec::new();
    for (i, message) in message.rules.iter().enumerate() {
        match rule(message, kind, &join(at, &format!("rules[{i}]"))) {
            Ok(rule) => rules.push(rule),
            Err(invalid) => bad.extend(invalid),
        }
    }
    let force_version = message.force_version.as_ref();
    let force_version = force_version.and_then(|f| force(f, &join(at, "forceVersion"), &mut bad));
    bad.finish(Some(Route {
        name: name.into(),
        kind,
        parents,
        hostnames,
        rules,
        force_version,
        pin_versions: message.pin_versions,
    }))
}

pub(super) fn route_name(name: &str, at: &str, bad: &mut Violations) {
    let label = |label: &str| label.parse::<VersionName>().is_ok();
    if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
        bad.add(join(at, "name"), format_args!("{name:?} is not a DNS subdomain name (RFC 1123)"));
    }
}

fn parents(messages: &[pb::ParentRef], at: &str, bad: &mut Violations) -> Vec<Parent> {
    if messages.is_empty() {
        let why = "is empty; name a Gateway or a Service, or the route would do nothing";
        bad.add(join(at, "parentRefs"), why);
    }
    let mut parents = Vec::new();
    for (i, parent) in messages.iter().enumerate() {
        let at = join(at, &format!("parentRefs[{i}]"));
        match parent.kind.as_str() {
            "Gateway" => parents.push(Parent::Gateway),
            "Listener" => parents.push(Parent::Listener(parent.name.as_str().into())),
            "Service" => {
                let service = bad.take(&join(&at, "name"), parent.name.parse());
                let namespace = parent.consumer_namespace.as_str();
                parents.extend(service.map(|service| match namespace {
                    "" => Parent::Service(service),
                    _ => Parent::Consumer { service, namespace: namespace.into() },
                }));
            }
            other => bad.add(
                join(&at, "kind"),
                format_args!("{other:?} is not supported; use Gateway or Service"),
            ),
        }
    }
    parents
}

fn force(message: &pb::ForceVersion, at: &str, bad: &mut Violations) -> Option<ForceVersion> {
    match &message.by {
        Some(pb::force_version::By::Header(name)) => {
            bad.take(&join(at, "header"), header_name(name)).map(ForceVersion::Header)
        }
        Some(pb::force_version::By::Cookie(name)) if is_token(name) => {
            Some(ForceVersion::Cookie(name.as_str().into()))
        }
        Some(pb::force_version::By::Cookie(name)) => {
            let why = format!("{name:?} is no cookie name (RFC 6265 §4.1.1)");
            bad.add(join(at, "cookie"), why);
            None
        }
        None => {
            bad.add(at, "is empty; set header or cookie");
            None
        }
    }
}

fn rule(message: &pb::RouteRule, kind: RouteKind, at: &str) -> Result<RouteRule, Invalid> {
    let mut bad = Violations::new();
    let mut matches = Vec::new();
    for (i, message) in message.matches.iter().enumerate() {
        match route_match(message, &join(at, &format!("matches[{i}]"))) {
            Ok(value) => matches.push(value),
            Err(invalid) => bad.extend(invalid),
        }
    }
    if message.matches.is_empty() {
        matches.push(RouteMatch::any());
    }
    let filters = filters(&message.filters, at, &mut bad);
    let may_be_empty = message.filters.len() != filters.len() || answers(&filters);
    let backends = backends(&message.backend_refs, &join(at, "backendRefs"), &mut bad);
    if backends.is_empty() && message.backend_refs.is_empty() && !may_be_empty {
        bad.add(join(at, "backendRefs"), "is empty; name at least one backend");
    }
    let retry = message.retry.as_ref().map(|r| retry(r, &join(at, "retry"), &mut bad));
    let session = message.session_persistence.as_ref();
    let session =
        session.and_then(|s| session_persistence(s, &join(at, "sessionPersistence"), &mut bad));
    let rule = RouteRule {
        name: message.name.as_str().into(),
        matches,
        filters,
        backends,
        timeout: millis(message.request_timeout_ms),
        backend_timeout: millis(message.backend_request_timeout_ms),
        retry,
        session,
    };
    if bad.is_empty() {
        check_rule(&rule, kind, at, &mut bad);
    }
    bad.finish(Some(rule))
}

fn millis(ms: u32) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms.into()))
}

fn retry(message: &pb::Retry, at: &str, bad: &mut Violations) -> RetryRule {
    let mut codes = Vec::new();
    for (i, code) in message.codes.iter().enumerate() {
        match u16::try_from(*code) {
            Ok(code) if (400..600).contains(&code) => codes.push(code),
            _ => bad.add(format!("{at}.codes[{i}]"), format_args!("{code} is not from 400 to 599")),
        }
    }
    RetryRule { codes, attempts: message.attempts, backoff: millis(message.backoff_ms) }
}

fn session_persistence(
    message: &pb::SessionPersistence,
    at: &str,
    bad: &mut Violations,
) -> Option<SessionPersistence> {
    use pb::session_persistence::Kind;
    let name = message.session_name.as_str();
    if !name.is_empty() && (!is_token(name) || name.len() > 128) {
        let why = format!("{name:?} is no name of a cookie or header (RFC 6265 §4.1.1)");
        bad.add(join(at, "sessionName"), why);
    }
    let kind = match message.kind() {
        Kind::Cookie | Kind::Unspecified => SessionKind::Cookie,
        Kind::PermanentCookie => SessionKind::PermanentCookie,
        Kind::Header => SessionKind::Header,
    };
    let absolute_timeout = millis(message.absolute_timeout_ms);
    if kind == SessionKind::PermanentCookie && absolute_timeout.is_none() {
        bad.add(join(at, "absoluteTimeoutMs"), "is missing; a permanent cookie needs it");
    }
    Some(SessionPersistence {
        name: (!name.is_empty()).then(|| name.into()),
        kind,
        absolute_timeout,
        idle_timeout: millis(message.idle_timeout_ms),
    })
}

pub(super) fn backends(
    messages: &[pb::BackendRef],
    at: &str,
    bad: &mut Violations,
) -> Vec<BackendRef> {
    let mut backends = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let service = bad.take(&join(&at, "service"), message.service.parse());
        let version = match message.version.as_str() {
            "" => Some(None),
            name => bad.take(&join(&at, "version"), name.parse()).map(Some),
        };
        let weight = bad.take(&join(&at, "weight"), Weight::try_from(message.weight));
        let filters = filters(&message.filters, &at, bad);
        let parts = service.zip(version).zip(weight);
        backends.extend(parts.map(|((service, version), weight)| BackendRef {
            filters,
            invalid: (!message.invalid.is_empty()).then(|| message.invalid.as_str().into()),
            ..BackendRef::new(service, version, weight)
        }));
    }
    if !messages.is_empty() && messages.iter().all(|m| m.weight == 0) {
        bad.add(at, "all weights are 0; at least one must be above 0");
    }
    backends
}

fn route_match(message: &pb::RouteMatch, at: &str) -> Result<RouteMatch, Invalid> {
    let mut bad = Violations::new();
    let path = path(message, at, &mut bad).unwrap_or_else(PathMatch::any);
    let method = match message.method.as_str() {
        "" => None,
        name => bad.take(
            &join(at, "method"),
            Method::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no method")),
        ),
    };
    let mut headers = Vec::new();
    for (i, message) in message.headers.iter().enumerate() {
        let at = join(at, &format!("headers[{i}]"));
        let name = bad.take(&join(&at, "name"), header_name(&message.name));
        let value = value_match(message, &at, &mut bad);
        if !message.regex && HeaderValue::from_str(&message.value).is_err() {
            bad.add(join(&at, "value"), "has a character that no header may hold");
        }
        headers.extend(name.zip(value));
    }
    let mut query = Vec::new();
    for (i, message) in message.query_params.iter().enumerate() {
        let at = join(at, &format!("queryParams[{i}]"));
        let name: Arc<str> = message.name.as_str().into();
        query.extend(Some(name).zip(value_match(message, &at, &mut bad)));
    }
    bad.finish(Some(RouteMatch { path, method, headers, query }))
}

fn value_match(message: &pb::NameValue, at: &str, bad: &mut Violations) -> Option<ValueMatch> {
    match message.regex {
        false => Some(ValueMatch::Exact(message.value.as_str().into())),
        true => bad.take(&join(at, "value"), Pattern::parse(&message.value)).map(ValueMatch::Regex),
    }
}

fn path(message: &pb::RouteMatch, at: &str, bad: &mut Violations) -> Option<PathMatch> {
    use pb::route_match::PathType;
    match message.path_type() {
        PathType::Unspecified if message.path.is_empty() => None,
        PathType::GrpcMethod => {
            let at = join(at, "grpcMethod");
            match &message.grpc_method {
                Some(method) => grpc_method(method, &at, bad),
                None => {
                    bad.add(at, "is missing; GRPC_METHOD needs it");
                    None
                }
            }
        }
        PathType::RegularExpression => {
            bad.take(&join(at, "path"), Pattern::parse(&message.path)).map(PathMatch::Regex)
        }
        _ if !message.path.starts_with('/') => {
            bad.add(join(at, "path"), format_args!("{:?} does not begin with '/'", message.path));
            None
        }
        PathType::Exact => Some(PathMatch::Exact(message.path.as_str().into())),
        PathType::Unspecified | PathType::PathPrefix => {
            Some(PathMatch::Prefix(message.path.trim_end_matches('/').into()))
        }
    }
}

fn grpc_method(message: &pb::GrpcMethodMatch, at: &str, bad: &mut Violations) -> Option<PathMatch> {
    let (service, method) = (message.service.as_str(), message.method.as_str());
    if service.is_empty() && method.is_empty() {
        bad.add(at, "names neither a service nor a method");
        return None;
    }
    if !message.regex {
        return Some(match (service, method) {
            ("", method) => PathMatch::GrpcMethod(method.into()),
            (service, "") => PathMatch::Prefix(format!("/{service}").into()),
            (service, method) => PathMatch::Exact(format!("/{service}/{method}").into()),
        });
    }
    let mut pattern = |field: &str, text: &str| match text {
        "" => None,
        text => bad.take(&join(at, field), Pattern::parse(text)),
    };
    let (service, method) = (pattern("service", service), pattern("method", method));
    Some(PathMatch::GrpcRegex { service, method })
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is no header name"))
}
