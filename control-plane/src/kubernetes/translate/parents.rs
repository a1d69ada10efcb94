//! What parentRefs of routes lead to, and what routes are told about it.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_mesh::model::{HostPattern, Protocol, ServiceName};

use super::gateways::{Gateways, Wish};
use super::json::{list, port, text};
use super::listeners::GROUP;
use super::services::Services;
use super::status::{Condition, Fault, GATEWAY_CONTROLLER, MESH_CONTROLLER, conditions, foreign};
use crate::kubernetes::objects::{Kind, Objects};

/// Where one parentRef leads.
pub(super) enum Found {
    /// To ports of a Service, for callers in all namespaces or in the route's alone.
    Services { ports: Vec<ServiceName>, consumer: bool },
    /// To listeners that routers open.
    Listeners(Vec<Arc<str>>),
}

/// One parentRef that is ours to answer.
pub(super) struct Parent<'a> {
    sent: &'a Value,
    controller: &'static str,
    pub found: Result<Found, Fault>,
}

/// What a route is, for its parents.
pub(super) struct Child<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub object: &'a Value,
    pub hostnames: &'a [HostPattern],
    /// What it says cannot be read: it is attached to nothing.
    pub fault: Option<&'a Fault>,
}

/// All parentRefs of a route that are ours. Others may be another controller's.
pub(super) fn parents<'a>(
    objects: &Objects,
    services: &Services<'_>,
    gateways: &mut Gateways<'_>,
    child: &Child<'a>,
) -> Vec<Parent<'a>> {
    let mut parents = Vec::new();
    for sent in list(&child.object["spec"], "parentRefs") {
        let namespace = sent["namespace"].as_str().unwrap_or(child.namespace);
        let group = sent["group"].as_str().unwrap_or(GROUP);
        match (group, sent["kind"].as_str().unwrap_or("Gateway")) {
            (GROUP, "Gateway") => {
                let name = text(sent, "name");
                let wish = Wish {
                    kind: child.kind,
                    namespace: child.namespace,
                    name: child.name,
                    hostnames: child.hostnames,
                    parent: sent,
                };
                let found = match child.fault {
                    None => gateways.attach(objects, namespace, name, &wish),
                    Some(fault) => gateways.has(namespace, name).then(|| Err(fault.clone())),
                };
                let found = found.map(|found| found.map(Found::Listeners));
                let controller = GATEWAY_CONTROLLER;
                parents.extend(found.map(|found| Parent { sent, controller, found }));
            }
            ("" | "core", "Service") => {
                let found = match child.fault {
                    None => service(services, namespace, sent, child),
                    Some(fault) => Err(fault.clone()),
                };
                parents.push(Parent { sent, controller: MESH_CONTROLLER, found });
            }
            _ => {}
        }
    }
    parents
}

fn service(
    services: &Services<'_>,
    namespace: &str,
    sent: &Value,
    child: &Child<'_>,
) -> Result<Found, Fault> {
    let none = |why: String| Err(Fault::new("NoMatchingParent", why));
    if child.kind == Kind::TLSRoute {
        let why = "a TLSRoute with a Service as parent is not supported; name a Gateway";
        return Err(Fault::new("UnsupportedValue", why));
    }
    let consumer = namespace != child.namespace;
    if consumer && child.kind == Kind::TCPRoute {
        let why = "a TCPRoute for callers of its own namespace is not supported: connections do \
                   not tell where they are from; put it into the Service's namespace";
        return Err(Fault::new("UnsupportedValue", why));
    }
    let name = text(sent, "name");
    let Some(service) = services.get(namespace, name) else {
        return none(format!("no Service {name} with TCP ports in namespace {namespace}"));
    };
    let number = port(sent, "port");
    let of_requests = child.kind != Kind::TCPRoute;
    let section = sent["sectionName"].as_str();
    let named = service.ports.iter().filter(|port| {
        number.is_none_or(|n| port.number == n) && section.is_none_or(|name| port.name == name)
    });
    let ports = named.filter(|port| (services.protocol(port) != Protocol::Tcp) == of_requests);
    let ports: Vec<_> = ports.map(|port| port.service.clone()).collect();
    if ports.is_empty() {
        let what = if of_requests { "HTTP or gRPC" } else { "opaque TCP" };
        let which = number.map(|number| number.to_string()).or(section.map(str::to_owned));
        let which = which.map_or("any port".to_owned(), |port| format!("port {port}"));
        return none(format!(
            "Service {name} in {namespace} does not speak {what} on {which}; see its appProtocol"
        ));
    }
    Ok(Found::Services { ports, consumer })
}

/// The `status` of a route: what each of its parents says, and what other
/// controllers have written.
pub(super) fn status(child: &Child<'_>, parents: &[Parent<'_>], refs: Option<&Fault>) -> Value {
    let present = &child.object["status"];
    let ours = parents.iter().map(|parent| {
        let accepted = parent.found.as_ref().map(drop).map_err(Clone::clone);
        let refs = refs.map_or(Ok(()), |fault| Err(fault.clone()));
        let all = [
            Condition::of("Accepted", "Accepted", &accepted),
            Condition::of("ResolvedRefs", "ResolvedRefs", &refs),
        ];
        let entries = list(present, "parents").iter();
        let mut entries = entries.filter(|e| text(e, "controllerName") == parent.controller);
        let before = entries.find(|entry| &entry["parentRef"] == parent.sent);
        json!({
            "parentRef": parent.sent,
            "controllerName": parent.controller,
            "conditions": conditions(child.object, before.unwrap_or(&Value::Null), &all),
        })
    });
    let foreign = foreign(present, "parents").cloned();
    json!({ "parents": ours.chain(foreign).collect::<Vec<_>>() })
}
