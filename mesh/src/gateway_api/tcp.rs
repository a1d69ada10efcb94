//! TCPRoute and TLSRoute documents <-> [`TcpRoute`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::document::backend;
use super::reader::{self, Object};
use super::rule::{Services, backends};
use super::{
    API_VERSION, GATEWAY_NAME, GROUP, KnownServices, gateway, metadata, namespace, service,
};
use crate::model::{
    BackendRef, HostPattern, Invalid, Parent, RouteKind, TcpParent, TcpRoute, TcpRouteKind,
    Violations,
};

/// Read as well as [`API_VERSION`], for documents from before the kinds were in
/// the Gateway API's standard channel.
pub(super) const OLDER: [&str; 2] =
    ["gateway.networking.k8s.io/v1alpha2", "gateway.networking.k8s.io/v1alpha3"];

pub(super) const PARENT_REF: [&str; 6] =
    ["group", "kind", "name", "namespace", "sectionName", "port"];
pub(super) const RULE: [&str; 2] = ["name", "backendRefs"];
pub(super) const BACKEND_REF: [&str; 6] = ["group", "kind", "name", "namespace", "port", "weight"];

/// Whether a document says that it is a TCPRoute or a TLSRoute: then
/// [`parse_tcp_route`] reads it.
#[must_use]
pub fn is_tcp_route(value: &Value) -> bool {
    kind(value).is_some()
}

fn kind(value: &Value) -> Option<TcpRouteKind> {
    match value.get("kind")?.as_str()? {
        "TCPRoute" => Some(TcpRouteKind::Tcp),
        "TLSRoute" => Some(TcpRouteKind::Tls),
        _ => None,
    }
}

/// Reads a TCPRoute or a TLSRoute; see [`parse_route`](super::parse_route).
///
/// # Errors
/// All fields that are wrong, each by its path.
pub fn parse_tcp_route(
    value: &Value,
    at: &str,
    services: &KnownServices,
) -> Result<TcpRoute, Invalid> {
    let mut bad = Violations::new();
    let route = route(value, at, services, &mut bad);
    bad.finish(route)
}

fn route(
    value: &Value,
    at: &str,
    services: &KnownServices,
    bad: &mut Violations,
) -> Option<TcpRoute> {
    let object = Object::open(value, at, bad)?;
    object.check(&["apiVersion", "kind", "metadata", "spec"], &["status"], bad);
    match object.required("apiVersion", bad) {
        None | Some(API_VERSION) => {}
        Some(older) if OLDER.contains(&older) => {}
        Some(other) => {
            let why = format!("{other:?} is not supported; use {API_VERSION}");
            bad.add(object.path("apiVersion"), why);
        }
    }
    let Some(kind) = kind(value) else {
        bad.add(object.path("kind"), "is neither TCPRoute nor TLSRoute");
        return None;
    };
    let name = object.required_object("metadata", bad).and_then(|m| metadata(&m, bad));
    let spec = object.required_object("spec", bad)?;
    let parents = parents(&spec, kind, services, bad);
    let (hostnames, rule, backends) = body(&spec, kind, services.into(), bad)?;
    Some(TcpRoute { name: name?.into(), kind, parents, hostnames, rule, backends })
}

/// What a route says beside its parents: hostnames, the rule's name, backends.
pub(super) fn body(
    spec: &Object<'_>,
    kind: TcpRouteKind,
    services: Services<'_>,
    bad: &mut Violations,
) -> Option<(Vec<HostPattern>, Arc<str>, Vec<BackendRef>)> {
    match kind {
        TcpRouteKind::Tls => {
            spec.check(&["parentRefs", "hostnames", "rules"], &["useDefaultGateways"], bad);
        }
        TcpRouteKind::Tcp => {
            let why = "is not a TCPRoute's: only TLS tells a name before it is answered";
            spec.check_or(&["parentRefs", "rules"], &["hostnames"], why, bad);
        }
    }
    let hostnames = if kind == TcpRouteKind::Tls { hostnames(spec, bad) } else { Vec::new() };
    let rules = spec.list("rules", bad);
    if rules.len() != 1 {
        let why = "must have exactly one rule: nothing tells connections apart any further";
        bad.add(spec.path("rules"), why);
    }
    let (at, value) = rules.first()?;
    let rule = Object::open(value, at, bad)?;
    rule.check(&RULE, &[], bad);
    let name = rule.text("name", bad).unwrap_or_default();
    Some((hostnames, name.into(), tcp_backends(&rule, services, bad)))
}

fn hostnames(spec: &Object<'_>, bad: &mut Violations) -> Vec<HostPattern> {
    let list = spec.list("hostnames", bad);
    if list.is_empty() {
        bad.add(spec.path("hostnames"), "is empty; a TLSRoute needs the server names it is for");
    }
    let mut hostnames = Vec::new();
    for (at, value) in list {
        if let Some(host) = reader::text(value, &at, bad) {
            hostnames.extend(bad.take(&at, HostPattern::parse(host)));
        }
    }
    hostnames
}

fn parents(
    spec: &Object<'_>,
    kind: TcpRouteKind,
    services: &KnownServices,
    bad: &mut Violations,
) -> Vec<TcpParent> {
    let refs = spec.list("parentRefs", bad);
    if refs.is_empty() {
        let why = "is empty; name a Gateway or a Service, or the route would do nothing";
        bad.add(spec.path("parentRefs"), why);
    }
    let mut parents = Vec::new();
    for (at, value) in &refs {
        if let Some(object) = Object::open(value, at, bad) {
            parents.extend(parent(&object, kind, services, bad));
        }
    }
    parents
}

fn parent(
    object: &Object<'_>,
    kind: TcpRouteKind,
    services: &KnownServices,
    bad: &mut Violations,
) -> Option<TcpParent> {
    object.check(&PARENT_REF, &[], bad);
    namespace(object, bad);
    let name = object.required("name", bad);
    let port = match object.integer("port", bad) {
        None => None,
        Some(number) => match u16::try_from(number) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                bad.add(object.path("port"), format_args!("{number} is not from 1 to 65535"));
                None
            }
        },
    };
    let group = object.text("group", bad);
    let (parent, groups) = match object.text("kind", bad).unwrap_or("Gateway") {
        "Gateway" => {
            let section = object.text("sectionName", bad).map(Into::into);
            let parent = gateway(object, name, bad).map(|_| TcpParent::Gateway { section, port });
            (parent, [GROUP, GROUP])
        }
        "Service" if kind == TcpRouteKind::Tcp => {
            let parent = match service(object, name, services, bad) {
                Some(Parent::Service(name)) => Some(TcpParent::Service(name)),
                _ => None,
            };
            (parent, ["", "core"])
        }
        "Service" => {
            bad.add(
                object.path("kind"),
                "Service is not supported for a TLSRoute yet; use Gateway",
            );
            return None;
        }
        other => {
            let why = format!("{other:?} is not supported; use Gateway or Service");
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
}

/// Writes a route as the Gateway API has it, such that [`parse_tcp_route`] reads
/// the same route again.
#[must_use]
pub fn to_tcp_document(route: &TcpRoute) -> Value {
    let parent = |parent: &TcpParent| match parent {
        TcpParent::Service(name) => {
            json!({ "group": "", "kind": "Service", "name": name.as_str() })
        }
        TcpParent::Gateway { section, port } => {
            let mut out = json!({ "name": GATEWAY_NAME });
            if let Some(section) = section {
                out["sectionName"] = (**section).into();
            }
            if let Some(port) = port {
                out["port"] = (*port).into();
            }
            out
        }
    };
    let backends: Vec<Value> = route.backends.iter().map(backend).collect();
    let mut rule = json!({ "backendRefs": backends });
    if !route.rule.is_empty() {
        rule["name"] = (*route.rule).into();
    }
    let mut spec = json!({
        "parentRefs": route.parents.iter().map(parent).collect::<Vec<_>>(),
        "rules": [rule],
    });
    if !route.hostnames.is_empty() {
        spec["hostnames"] = route.hostnames.iter().map(ToString::to_string).collect();
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": match route.kind {
            TcpRouteKind::Tcp => "TCPRoute",
            TcpRouteKind::Tls => "TLSRoute",
        },
        "metadata": { "name": *route.name },
        "spec": spec,
    })
}

fn tcp_backends(
    rule: &Object<'_>,
    services: Services<'_>,
    bad: &mut Violations,
) -> Vec<BackendRef> {
    for (at, value) in rule.list("backendRefs", bad) {
        if value.get("filters").is_some_and(|filters| !filters.is_null()) {
            bad.add(reader::join(&at, "filters"), "is not known; opaque bytes have no filters");
        }
    }
    backends(rule, RouteKind::Http, false, services, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServiceName, VersionName};
    use crate::wire;
    use weir_proto::weir::mesh::v1 as pb;

    fn services() -> KnownServices {
        let service = |name: &str| {
            let versions: Vec<VersionName> = vec!["v1".parse().unwrap(), "v2".parse().unwrap()];
            (name.parse::<ServiceName>().unwrap(), versions)
        };
        [service("db"), service("cache")].into_iter().collect()
    }

    fn document(kind: &str, spec: Value) -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": "one" }, "spec": spec,
        })
    }

    fn mistakes(document: &Value) -> Vec<String> {
        let Invalid(all) = parse_tcp_route(document, "routes[0]", &services()).unwrap_err();
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_written_is_read_again_also_by_wire() {
        let tcp = document(
            "TCPRoute",
            json!({
                "parentRefs": [
                    { "group": "", "kind": "Service", "name": "db" },
                    { "name": "gateway", "sectionName": "postgres", "port": 5432 },
                ],
                "rules": [{
                    "name": "all",
                    "backendRefs": [
                        { "name": "db-v1", "weight": 50 }, { "name": "db-v2", "weight": 50 },
                    ],
                }],
            }),
        );
        let tls = document(
            "TLSRoute",
            json!({
                "parentRefs": [{ "name": "gateway" }],
                "hostnames": ["a.example.com", "*.example.org"],
                "rules": [{ "backendRefs": [{ "name": "cache", "weight": 1 }] }],
            }),
        );
        for document in [tcp, tls] {
            assert!(is_tcp_route(&document));
            let route = parse_tcp_route(&document, "", &services()).unwrap();
            assert_eq!(to_tcp_document(&route), document);
            assert_eq!(wire::tcp_route(&pb::TcpRoute::from(&route), "").unwrap(), route);
            let mut older = document;
            older["apiVersion"] = OLDER[0].into();
            assert_eq!(parse_tcp_route(&older, "", &services()).unwrap(), route);
        }
    }

    #[test]
    fn every_mistake_is_told_by_its_path() {
        let wrong = document(
            "TCPRoute",
            json!({
                "parentRefs": [{ "kind": "Service", "name": "nobody" }, { "name": "other", "port": 0 }],
                "hostnames": ["a.example.com"],
                "rules": [{ "matches": [], "backendRefs": [{ "name": "db-v3" }] }, {}],
            }),
        );
        let found = mistakes(&wrong).join("\n");
        for wanted in [
            "routes[0].spec.hostnames: is not a TCPRoute's",
            "routes[0].spec.parentRefs[0].name: no service \"nobody\"",
            "routes[0].spec.parentRefs[1].port: 0 is not from 1 to 65535",
            "routes[0].spec.parentRefs[1].name: no gateway \"other\"",
            "routes[0].spec.rules: must have exactly one rule",
            "routes[0].spec.rules[0].matches: is not known",
            "routes[0].spec.rules[0].backendRefs[0].name: service db has no version \"v3\"",
        ] {
            assert!(found.contains(wanted), "{wanted}\n{found}");
        }
        let nameless = document(
            "TLSRoute",
            json!({
                "parentRefs": [{ "kind": "Service", "name": "db" }],
                "rules": [{ "backendRefs": [{ "name": "db", "weight": 0 }] }],
            }),
        );
        let found = mistakes(&nameless).join("\n");
        for wanted in ["hostnames: is empty", "use Gateway", "all weights are 0"] {
            assert!(found.contains(wanted), "{wanted}\n{found}");
        }
    }
}
