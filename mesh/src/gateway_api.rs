//! Gateway API documents (`gateway.networking.k8s.io/v1`) <-> [`Route`].
//!
//! A document is a [`serde_json::Value`], so it may have been YAML or JSON. What
//! the Gateway API knows but Weir does not do yet is refused by its name, what
//! neither knows is refused with a suggestion, and every violation is reported at
//! once.
//!
//! Three things are read but not kept, as they change nothing here:
//! `metadata.labels`, annotations that are not of `weir.dev`, and the `port` of a
//! parentRef or a backendRef (a service has one).

mod annotations;
mod cluster;
mod document;
mod document_filter;
mod fields;
mod filter;
mod known;
mod lint;
mod matches;
pub(crate) mod reader;
mod rule;
mod schema;
mod tcp;

use http::Method;
use serde_json::Value;

pub use cluster::{
    BackendReference, Backends, RouteBody, TcpRouteBody, parse_route_body, parse_tcp_route_body,
};
pub use document::to_document;
pub use duration::parse as parse_duration;
pub use known::KnownServices;
pub use lint::{Warning, lint};
pub use schema::schema;
pub use tcp::{is_tcp_route, parse_tcp_route, to_tcp_document};

use crate::duration;
use crate::model::{HostPattern, Invalid, Parent, Route, RouteKind, ServiceName, Violations};
use reader::{Object, join, near};

/// The only `apiVersion` that is read and written.
pub const API_VERSION: &str = "gateway.networking.k8s.io/v1";

/// What a Gateway is called in `parentRefs`; a mesh has one.
pub const GATEWAY_NAME: &str = "gateway";

const GROUP: &str = "gateway.networking.k8s.io";

/// Kinds of the Gateway API that are no route Weir can serve.
const OTHER_KINDS: [&str; 1] = ["UDPRoute"];

/// Methods that the Gateway API lets a match name.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Reads an HTTPRoute or a GRPCRoute. `at` is the document's path within what the
/// user wrote (`routes[0]`), empty when it is the whole.
///
/// A backendRef or a parent that is not among `services` is refused; see
/// [`KnownServices::resolve`] for how a version is named.
///
/// # Errors
/// All fields that are wrong, each by its path.
pub fn parse_route(value: &Value, at: &str, services: &KnownServices) -> Result<Route, Invalid> {
    let mut bad = Violations::new();
    let route = route(value, at, services, &mut bad);
    bad.finish(route)
}

fn route(value: &Value, at: &str, services: &KnownServices, bad: &mut Violations) -> Option<Route> {
    let object = Object::open(value, at, bad)?;
    object.check(&fields::DOCUMENT, &["status"], bad);
    match object.required("apiVersion", bad) {
        None | Some(API_VERSION) => {}
        Some(other) => {
            let why = format!("{other:?} is not supported; use {API_VERSION}");
            bad.add(object.path("apiVersion"), why);
        }
    }
    let kind = object.required("kind", bad).and_then(|kind| match kind {
        "HTTPRoute" => Some(RouteKind::Http),
        "GRPCRoute" => Some(RouteKind::Grpc),
        other => {
            bad.add(object.path("kind"), unknown_kind(other));
            None
        }
    });
    let metadata = object.required_object("metadata", bad);
    let name = metadata.as_ref().and_then(|m| self::metadata(m, bad));
    let annotations = metadata.as_ref().map(|m| annotations::read(m, bad)).unwrap_or_default();
    let spec = object.required_object("spec", bad)?;
    spec.check(&fields::SPEC, &["useDefaultGateways"], bad);
    let parents = parents(&spec, services, bad);
    let mut hostnames = Vec::new();
    for (at, value) in spec.list("hostnames", bad) {
        if let Some(host) = reader::text(value, &at, bad) {
            hostnames.extend(bad.take(&at, HostPattern::parse(host)));
        }
    }
    // Without a kind, what a match may hold is unknown: only the kind is told.
    let kind = kind?;
    let rules = spec.list("rules", bad);
    if rules.is_empty() {
        bad.add(spec.path("rules"), "is empty; a route without rules does nothing");
    }
    let rules =
        rules.iter().filter_map(|(at, v)| rule::rule(v, at, kind, services.into(), bad)).collect();
    if annotations.pin_versions && !parents.is_empty() && !parents.contains(&Parent::Gateway) {
        let why = "is for routes whose parent is the gateway, where requests begin";
        bad.add(annotations::path(at, annotations::PIN_VERSIONS), why);
    }
    Some(Route {
        name: name?.into(),
        kind,
        parents,
        hostnames,
        rules,
        force_version: annotations.force_version,
        pin_versions: annotations.pin_versions,
    })
}

fn unknown_kind(kind: &str) -> String {
    if OTHER_KINDS.contains(&kind) {
        return format!("{kind} is not supported yet");
    }
    match near(kind, ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"]) {
        Some(near) if near == kind => format!("{kind} is a route of connections, not of requests"),
        Some(near) => format!("{kind:?} is no kind of route; did you mean {near}?"),
        None => {
            format!("{kind:?} is no kind of route; use HTTPRoute, GRPCRoute, TCPRoute or TLSRoute")
        }
    }
}

fn metadata<'a>(metadata: &Object<'a>, bad: &mut Violations) -> Option<&'a str> {
    metadata.check(&fields::METADATA, &[], bad);
    namespace(metadata, bad);
    let name = metadata.required("name", bad)?;
    let label = |label: &str| label.parse::<ServiceName>().is_ok();
    if name.len() > 253 || !name.split('.').all(label) {
        let why = format!("{name:?} is not a DNS subdomain name (RFC 1123), such as web or a.web");
        bad.add(metadata.path("name"), why);
    }
    Some(name)
}

/// Weir has no namespaces but the default one.
fn namespace(object: &Object<'_>, bad: &mut Violations) {
    if let Some(name) = object.text("namespace", bad)
        && name != "default"
    {
        let why = format!("{name:?} is not supported yet; use default, or leave it out");
        bad.add(object.path("namespace"), why);
    }
}

/// A service has one port; a number that can be none is a mistake all the same.
fn port(object: &Object<'_>, bad: &mut Violations) {
    if let Some(port) = object.integer("port", bad)
        && !(1..=65535).contains(&port)
    {
        bad.add(object.path("port"), format_args!("{port} is not from 1 to 65535"));
    }
}

fn parents(spec: &Object<'_>, services: &KnownServices, bad: &mut Violations) -> Vec<Parent> {
    let refs = spec.list("parentRefs", bad);
    if refs.is_empty() {
        let why = "is empty; name a Gateway or a Service, or the route would do nothing";
        bad.add(spec.path("parentRefs"), why);
    }
    let parent = |(at, value): &(String, &Value)| {
        let object = Object::open(value, at, bad)?;
        object.check(&fields::PARENT_REF, &["sectionName"], bad);
        namespace(&object, bad);
        port(&object, bad);
        let name = object.required("name", bad);
        let group = object.text("group", bad);
        let (parent, groups) = match object.text("kind", bad).unwrap_or("Gateway") {
            "Gateway" => (gateway(&object, name, bad), [GROUP, GROUP]),
            "Service" => (service(&object, name, services, bad), ["", "core"]),
            other => {
                let why = match near(other, ["Gateway", "Service"]) {
                    Some(near) => format!("{other:?} is not supported; did you mean {near}?"),
                    None => format!("{other:?} is not supported; use Gateway or Service"),
                };
                bad.add(object.path("kind"), why);
                return None;
            }
        };
        if let Some(group) = group
            && !groups.contains(&group)
        {
            let why = format!("{group:?} is not the group of this kind; use {:?}", groups[0]);
            bad.add(object.path("group"), why);
        }
        parent
    };
    refs.iter().filter_map(parent).collect()
}

fn gateway(object: &Object<'_>, name: Option<&str>, bad: &mut Violations) -> Option<Parent> {
    match name? {
        GATEWAY_NAME => Some(Parent::Gateway),
        other => {
            let why = format!("no gateway {other:?}; a mesh has one, which is called gateway");
            bad.add(object.path("name"), why);
            None
        }
    }
}

fn service(
    object: &Object<'_>,
    name: Option<&str>,
    services: &KnownServices,
    bad: &mut Violations,
) -> Option<Parent> {
    match services.service(name?) {
        Ok(service) => Some(Parent::Service(service)),
        Err(why) => {
            bad.add(join(object.at(), "name"), why);
            None
        }
    }
}

#[cfg(test)]
mod tests;
