//! GatewayClasses and Gateways -> listeners, and their status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use weir_mesh::model::{HostPattern, Listener as Opened, ListenerProtocol};

use super::grants::Grants;
use super::json::{age, generation, list, port, text};
use super::listeners::{GROUP, Listener};
use super::routes::route_name;
use super::status::{Condition, Fault, GATEWAY_CONTROLLER, conditions};
use super::{Settings, StatusUpdate};
use crate::kubernetes::objects::{Kind, Objects};

/// What routes of the Gateway API can do here, by the names that its conformance
/// suite has for them; in order.
const FEATURES: [&str; 31] = [
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
];

/// One Gateway of a class of ours.
pub(super) struct Gateway<'a> {
    object: &'a Arc<Value>,
    namespace: &'a str,
    name: &'a str,
    listeners: Vec<Listener<'a>>,
    accepted: Result<(), Fault>,
    /// Those that it has taken, by their names in the mesh.
    routes: BTreeSet<Arc<str>>,
}

/// All of them, by namespace and name.
pub(super) struct Gateways<'a> {
    known: BTreeMap<&'a str, BTreeMap<&'a str, Gateway<'a>>>,
}

/// What a route wants of a Gateway.
pub(super) struct Wish<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub hostnames: &'a [HostPattern],
    /// The parentRef.
    pub parent: &'a Value,
}

impl<'a> Gateways<'a> {
    pub fn read(
        objects: &'a Objects,
        grants: &Grants<'_>,
        statuses: &mut Vec<StatusUpdate>,
    ) -> Self {
        let classes = classes(objects, statuses);
        let mut gateways: Vec<Gateway<'a>> = Vec::new();
        for (namespace, name, object) in objects.all(Kind::Gateway) {
            let spec = &object["spec"];
            if !classes.contains(text(spec, "gatewayClassName")) {
                continue;
            }
            let listener = |sent| Listener::read(sent, namespace, objects, grants);
            let mut listeners: Vec<_> = list(spec, "listeners").iter().map(listener).collect();
            conflicts(&mut listeners);
            refuse_client_certificates(spec, &mut listeners);
            let accepted = match spec["infrastructure"]["parametersRef"].is_null() {
                true => Ok(()),
                false => {
                    let why = "infrastructure.parametersRef is not supported; leave it out";
                    Err(Fault::new("InvalidParameters", why))
                }
            };
            let routes = BTreeSet::new();
            gateways.push(Gateway { object, namespace, name, listeners, accepted, routes });
        }
        // All are opened by the same routers: who is older keeps a port.
        gateways.sort_by_cached_key(|gateway| age(gateway.object));
        between(&mut gateways);
        let mut known: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for gateway in gateways {
            known.entry(gateway.namespace).or_default().insert(gateway.name, gateway);
        }
        Self { known }
    }

    /// The routes that a Gateway has taken; none: it is not ours.
    pub fn routes(&self, namespace: &str, name: &str) -> Option<&BTreeSet<Arc<str>>> {
        self.known.get(namespace)?.get(name).map(|gateway| &gateway.routes)
    }

    pub fn has(&self, namespace: &str, name: &str) -> bool {
        self.known.get(namespace).is_some_and(|gateways| gateways.contains_key(name))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &Gateway<'a>> {
        self.known.values().flat_map(BTreeMap::values)
    }

    /// Attaches a route to the listeners of a Gateway that take it: gives the ids of
    /// those that routers open. None: no such Gateway is ours.
    pub fn attach(
        &mut self,
        objects: &Objects,
        namespace: &str,
        name: &str,
        wish: &Wish<'_>,
    ) -> Option<Result<Vec<Arc<str>>, Fault>> {
        let gateway = self.known.get_mut(namespace)?.get_mut(name)?;
        let (section, number) = (text(wish.parent, "sectionName"), port(wish.parent, "port"));
        let named = |listener: &&mut Listener<'_>| {
            (section.is_empty() || listener.name == section)
                && number.is_none_or(|number| listener.port == number)
        };
        let mut named: Vec<_> = gateway.listeners.iter_mut().filter(named).collect();
        if named.is_empty() {
            let why = format!("Gateway {name} in {namespace} has no such listener");
            return Some(Err(Fault::new("NoMatchingParent", why)));
        }
        let takes = |listener: &Listener<'_>| {
            listener.kinds.contains(&wish.kind)
                && listener.admits(objects, namespace, wish.namespace)
        };
        named.retain(|listener| takes(listener));
        if named.is_empty() {
            let why = format!(
                "no listener of Gateway {name} takes a {} of namespace {}",
                wish.kind.as_str(),
                wish.namespace
            );
            return Some(Err(Fault::new("NotAllowedByListeners", why)));
        }
        named.retain(|listener| listener.accepted.is_ok());
        if named.is_empty() {
            let why = format!("no listener of Gateway {name} that would take it is accepted");
            return Some(Err(Fault::new("NoMatchingParent", why)));
        }
        named.retain(|listener| shares_host(listener.hostname.as_ref(), wish.hostnames));
        if named.is_empty() {
            let why = format!("none of the hostnames is one of a listener of Gateway {name}");
            return Some(Err(Fault::new("NoMatchingListenerHostname", why)));
        }
        let taken: Vec<&str> = named
            .into_iter()
            .map(|listener| {
                listener.attached += 1;
                listener.name
            })
            .collect();
        gateway.routes.insert(route_name(wish.kind, wish.namespace, wish.name));
        let opened = gateway
            .listeners
            .iter()
            .filter(|l| gateway.accepted.is_ok() && l.is_programmed() && taken.contains(&l.name));
        Some(Ok(opened.map(|listener| effective_id(gateway, listener)).collect()))
    }

    /// What routers open.
    pub fn opened(&self) -> Vec<Opened> {
        let of = |gateway: &Gateway<'_>| {
            let good = gateway.listeners.iter();
            let good = good.filter(|l| l.is_programmed() && l.same_as.is_none());
            let opened = good.filter_map(|listener| {
                Some(Opened {
                    id: effective_id(gateway, listener),
                    port: listener.port,
                    protocol: listener.protocol?,
                    hostname: listener.hostname.clone(),
                    certificates: listener.certificates.clone(),
                })
            });
            opened.collect::<Vec<_>>()
        };
        self.all().filter(|g| g.accepted.is_ok()).flat_map(of).collect()
    }

    /// What Gateways are told, once all routes are attached.
    pub fn statuses(&self, objects: &Objects, settings: &Settings) -> Vec<StatusUpdate> {
        let addresses = addresses(objects, settings);
        let update = |gateway: &Gateway<'_>| StatusUpdate {
            kind: Kind::Gateway,
            namespace: gateway.namespace.to_owned(),
            name: gateway.name.to_owned(),
            generation: generation(gateway.object),
            status: status(gateway, &addresses, settings.gateway_service.is_some()),
        };
        self.all().map(update).collect()
    }
}

/// Names of the classes that are ours, which are told so.
fn classes<'a>(objects: &'a Objects, statuses: &mut Vec<StatusUpdate>) -> BTreeSet<&'a str> {
    let mut classes = BTreeSet::new();
    for (_, name, object) in objects.all(Kind::GatewayClass) {
        let spec = &object["spec"];
        if text(spec, "controllerName") != GATEWAY_CONTROLLER {
            continue;
        }
        let accepted = match spec["parametersRef"].is_null() {
            true => Condition::holds("Accepted", "Accepted"),
            false => {
                let why = "parametersRef is not supported; leave it out";
                Condition::fails("Accepted", "InvalidParameters", why)
            }
        };
        if spec["parametersRef"].is_null() {
            classes.insert(name);
        }
        statuses.push(StatusUpdate {
            kind: Kind::GatewayClass,
            namespace: String::new(),
            name: name.to_owned(),
            generation: generation(object),
            status: json!({
                "conditions": conditions(object, &object["status"], &[accepted]),
                "supportedFeatures": FEATURES.map(|name| json!({ "name": name })),
            }),
        });
    }
    classes
}

/// Without them, who should prove who it is would come in unasked.
fn refuse_client_certificates(spec: &Value, listeners: &mut [Listener<'_>]) {
    if spec["tls"]["frontend"].is_null() {
        return;
    }
    let https = Some(ListenerProtocol::Https);
    for listener in listeners.iter_mut().filter(|listener| listener.protocol == https) {
        let why = "the Gateway's tls.frontend is not supported: clients are not asked for \
                   certificates";
        listener.accepted = Err(Fault::new("UnsupportedValue", why));
    }
}

/// Within one Gateway nobody goes first: both are refused.
fn conflicts(listeners: &mut [Listener<'_>]) {
    let found: Vec<_> = (0..listeners.len())
        .map(|i| {
            let others = listeners.iter().enumerate().filter(|(j, _)| *j != i);
            others.filter_map(|(_, other)| listeners[i].against(other)).next()
        })
        .collect();
    for (listener, fault) in listeners.iter_mut().zip(found) {
        if let Some(fault) = fault {
            listener.accepted = Err(fault.clone());
            listener.conflict = Some(fault);
        }
    }
}

/// Between Gateways, which share addresses here, the older one keeps its port. Two
/// that take the same host by HTTP become one, with the routes of both.
fn between(gateways: &mut [Gateway<'_>]) {
    for i in 1..gateways.len() {
        let (older, rest) = gateways.split_at_mut(i);
        let Some(gateway) = rest.first_mut() else { return };
        for listener in gateway.listeners.iter_mut().filter(|l| l.accepted.is_ok()) {
            let live = older.iter().filter(|other| other.accepted.is_ok()).flat_map(|other| {
                let opened = other.listeners.iter().filter(|l| l.is_programmed());
                opened.map(move |l| (other, l))
            });
            let mut against = live.filter_map(|(other, l)| Some((other, l, listener.against(l)?)));
            let Some((other, same, fault)) = against.next() else { continue };
            let http = Some(ListenerProtocol::Http);
            if (listener.protocol, same.protocol) == (http, http) {
                listener.same_as = Some(effective_id(other, same));
                continue;
            }
            let why = format!(
                "Gateway {} in {} is older and {}; all Gateways of this class share addresses",
                other.name, other.namespace, fault.message
            );
            listener.accepted = Err(Fault::new("PortUnavailable", why));
        }
    }
}

/// What routers call a listener.
fn effective_id(gateway: &Gateway<'_>, listener: &Listener<'_>) -> Arc<str> {
    let own = || format!("{}/{}/{}", gateway.namespace, gateway.name, listener.name).into();
    listener.same_as.clone().unwrap_or_else(own)
}

fn shares_host(listener: Option<&HostPattern>, hostnames: &[HostPattern]) -> bool {
    let Some(listener) = listener else { return true };
    let share = |host: &HostPattern| match (listener, host) {
        (HostPattern::Exact(a), HostPattern::Exact(b)) => a == b,
        (HostPattern::Exact(name), pattern) | (pattern, HostPattern::Exact(name)) => {
            pattern.matches(name)
        }
        (HostPattern::Suffix(a), HostPattern::Suffix(b)) => a.ends_with(&**b) || b.ends_with(&**a),
    };
    hostnames.is_empty() || hostnames.iter().any(share)
}

/// Those of the Service in front of the gateway's pods: of its load balancer, else
/// its own.
fn addresses(objects: &Objects, settings: &Settings) -> Vec<Value> {
    let Some((namespace, name)) = &settings.gateway_service else { return Vec::new() };
    let Some(service) = objects.get(Kind::Service, namespace, name) else { return Vec::new() };
    let mut found = Vec::new();
    for ingress in list(&service["status"]["loadBalancer"], "ingress") {
        for (field, kind) in [("ip", "IPAddress"), ("hostname", "Hostname")] {
            if !text(ingress, field).is_empty() {
                found.push(json!({ "type": kind, "value": text(ingress, field) }));
            }
        }
    }
    let own = text(&service["spec"], "clusterIP");
    if found.is_empty() && own.parse::<std::net::IpAddr>().is_ok() {
        found.push(json!({ "type": "IPAddress", "value": own }));
    }
    found
}

fn status(gateway: &Gateway<'_>, addresses: &[Value], has_service: bool) -> Value {
    let present = &gateway.object["status"];
    let total = gateway.listeners.len();
    let accepted = gateway.listeners.iter().filter(|l| l.accepted.is_ok()).count();
    let ready = gateway.listeners.iter().filter(|l| l.is_programmed()).count();
    let why = "see the conditions of its listeners";
    let is_accepted = match &gateway.accepted {
        Err(fault) => Condition::fails("Accepted", fault.reason, &fault.message),
        Ok(()) if accepted == 0 => Condition::fails("Accepted", "ListenersNotValid", why),
        Ok(()) if accepted < total => {
            Condition::holds("Accepted", "ListenersNotValid").with_message(why)
        }
        Ok(()) => Condition::holds("Accepted", "Accepted"),
    };
    let wanted = list(&gateway.object["spec"], "addresses").iter().map(|a| text(a, "value"));
    let other = wanted
        .filter(|wanted| !wanted.is_empty())
        .find(|wanted| addresses.iter().all(|address| text(address, "value") != *wanted));
    let programmed = if gateway.accepted.is_err() || ready == 0 {
        Condition::fails("Programmed", "Invalid", why)
    } else if let Some(other) = other {
        let why = format!("spec.addresses: {other} is not one of the gateway's Service");
        Condition::fails("Programmed", "AddressNotUsable", why)
    } else if has_service && addresses.is_empty() {
        let why = "the gateway's Service has no address yet";
        Condition::fails("Programmed", "AddressNotAssigned", why)
    } else {
        Condition::holds("Programmed", "Programmed")
    };
    let listeners = gateway.listeners.iter().map(|l| listener_status(gateway, l));
    json!({
        "addresses": addresses,
        "conditions": conditions(gateway.object, present, &[is_accepted, programmed]),
        "listeners": listeners.collect::<Vec<_>>(),
    })
}

fn listener_status(gateway: &Gateway<'_>, listener: &Listener<'_>) -> Value {
    let accepted = Condition::of("Accepted", "Accepted", &listener.accepted);
    let programmed = match gateway.accepted.is_ok() && listener.is_programmed() {
        true => Condition::holds("Programmed", "Programmed"),
        false => Condition::fails("Programmed", "Invalid", "see the other conditions"),
    };
    let resolved = Condition::of("ResolvedRefs", "ResolvedRefs", &listener.resolved);
    let conflicted = match &listener.conflict {
        Some(fault) => Condition::holds("Conflicted", fault.reason).with_message(&*fault.message),
        None => Condition::fails("Conflicted", "NoConflicts", ""),
    };
    let all = [accepted, programmed, resolved, conflicted];
    let listeners = list(&gateway.object["status"], "listeners");
    let present = listeners.iter().find(|one| text(one, "name") == listener.name);
    json!({
        "name": listener.name,
        "attachedRoutes": listener.attached,
        "supportedKinds": listener
            .kinds
            .iter()
            .map(|kind| json!({ "group": GROUP, "kind": kind.as_str() }))
            .collect::<Vec<_>>(),
        "conditions": conditions(gateway.object, present.unwrap_or(&Value::Null), &all),
    })
}
