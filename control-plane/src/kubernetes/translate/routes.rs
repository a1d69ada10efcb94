//! HTTPRoutes and GRPCRoutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use weir_mesh::gateway_api::{RouteBody, parse_route_body};
use weir_mesh::model::{
    BackendRef, Parent as ModelParent, Protocol, Route, RouteFilter, RouteKind, RouteRule,
};

use super::StatusUpdate;
use super::gateways::Gateways;
use super::grants::{Grants, Referrer};
use super::json::{generation, list, port, text};
use super::names::full_name;
use super::parents::{self, Child, Found, Parent};
use super::references::References;
use super::services::Services;
use super::status::Fault;
use crate::kubernetes::objects::{Kind, Objects};

/// What all routes are read with.
pub(super) struct Context<'a> {
    pub objects: &'a Objects,
    pub services: &'a Services<'a>,
    pub grants: &'a Grants<'a>,
    /// HTTPRouteFilters that can be followed, by namespace and name.
    pub filters: &'a BTreeSet<(&'a str, &'a str)>,
}

/// What routers call a route.
pub(super) fn route_name(kind: Kind, namespace: &str, name: &str) -> Arc<str> {
    let suffix = match kind {
        Kind::GRPCRoute => "grpc",
        Kind::TLSRoute => "tls",
        _ => "",
    };
    full_name(namespace, name, suffix)
}

/// Notes what routes say of ports that do not say it themselves: of Services in
/// their own namespace, and of those that they may refer to.
pub(super) fn tell_protocols(objects: &Objects, grants: &Grants<'_>, services: &mut Services<'_>) {
    for (kind, protocol) in [
        (Kind::HTTPRoute, Protocol::Http1),
        (Kind::GRPCRoute, Protocol::Grpc),
        (Kind::TCPRoute, Protocol::Tcp),
        (Kind::TLSRoute, Protocol::Tcp),
    ] {
        for (own, _, object) in objects.all(kind) {
            let spec = &object["spec"];
            let referrer = Referrer { kind, namespace: own };
            let mut tell = |sent: &Value, all_ports: bool| {
                let namespace = sent["namespace"].as_str().unwrap_or(own);
                let (name, number) = (text(sent, "name"), port(sent, "port"));
                if (all_ports || number.is_some())
                    && grants.allow(referrer, Kind::Service, namespace, name)
                {
                    services.tell(namespace, name, number, protocol);
                }
            };
            for parent in list(spec, "parentRefs").iter().filter(|p| text(p, "kind") == "Service") {
                tell(parent, true);
            }
            for rule in list(spec, "rules") {
                for backend in list(rule, "backendRefs") {
                    tell(backend, false);
                }
                for filter in list(rule, "filters") {
                    tell(&filter["requestMirror"]["backendRef"], false);
                }
            }
        }
    }
}

/// Reads all HTTPRoutes and GRPCRoutes.
pub(super) fn routes(
    context: &Context<'_>,
    gateways: &mut Gateways<'_>,
    statuses: &mut Vec<StatusUpdate>,
) -> BTreeMap<Arc<str>, Route> {
    let mut routes = BTreeMap::new();
    for kind in [Kind::HTTPRoute, Kind::GRPCRoute] {
        for (namespace, name, object) in context.objects.all(kind) {
            let (route, status) = route(context, gateways, kind, namespace, name, object);
            statuses.extend(status);
            if let Some(route) = route {
                routes.insert(route.name.clone(), route);
            }
        }
    }
    routes
}

fn route(
    context: &Context<'_>,
    gateways: &mut Gateways<'_>,
    kind: Kind,
    namespace: &str,
    name: &str,
    object: &Value,
) -> (Option<Route>, Option<StatusUpdate>) {
    let route_kind = if kind == Kind::GRPCRoute { RouteKind::Grpc } else { RouteKind::Http };
    let refs = References::new(context.services, context.grants, kind, namespace, object);
    let body = parse_route_body(object, route_kind, &refs);
    let mut refs = refs.into_fault();
    let read = body.map_err(|invalid| Fault::new("UnsupportedValue", invalid.to_string()));
    let child = Child {
        kind,
        namespace,
        name,
        object,
        hostnames: read.as_ref().map_or(&[], |body| body.hostnames.as_slice()),
        fault: read.as_ref().err(),
    };
    let parents = parents::parents(context.objects, context.services, gateways, &child);
    let model_parents = model_parents(&parents, namespace);
    let route = read.as_ref().ok().map(|body| {
        let mut body = body.clone();
        extensions(context.filters, namespace, &mut body, &mut refs);
        Route {
            name: route_name(kind, namespace, name),
            kind: route_kind,
            parents: model_parents,
            hostnames: body.hostnames,
            rules: body.rules,
            force_version: body.force_version,
            pin_versions: body.pin_versions,
        }
    });
    let status = update(&child, &parents, refs.as_ref());
    (route.filter(|route| !route.parents.is_empty()), status)
}

/// What a route is told; nothing when it has no parent of ours and never had.
pub(super) fn update(
    child: &Child<'_>,
    parents: &[Parent<'_>],
    refs: Option<&Fault>,
) -> Option<StatusUpdate> {
    let status = parents::status(child, parents, refs);
    let had = list(&child.object["status"], "parents").len() != list(&status, "parents").len();
    (had || !parents.is_empty()).then(|| StatusUpdate {
        kind: child.kind,
        namespace: child.namespace.to_owned(),
        name: child.name.to_owned(),
        generation: generation(child.object),
        status,
    })
}

fn model_parents(parents: &[Parent<'_>], namespace: &str) -> Vec<ModelParent> {
    let mut found: Vec<ModelParent> = Vec::new();
    for parent in parents {
        let all: Vec<ModelParent> = match &parent.found {
            Err(_) => continue,
            Ok(Found::Listeners(ids)) => ids.iter().cloned().map(ModelParent::Listener).collect(),
            Ok(Found::Services { ports, consumer }) => {
                let of_port = |service: &weir_mesh::model::ServiceName| match consumer {
                    false => ModelParent::Service(service.clone()),
                    true => ModelParent::Consumer {
                        service: service.clone(),
                        namespace: namespace.into(),
                    },
                };
                ports.iter().map(of_port).collect()
            }
        };
        for parent in all {
            if !found.contains(&parent) {
                found.push(parent);
            }
        }
    }
    found
}

/// Gives filters that rules refer to their names in the mesh. A rule whose filter is
/// not there must not be served without it: it answers 500.
fn extensions(
    filters: &BTreeSet<(&str, &str)>,
    namespace: &str,
    body: &mut RouteBody,
    refs: &mut Option<Fault>,
) {
    for rule in &mut body.rules {
        let mut lost = None;
        for filter in &mut rule.filters {
            let RouteFilter::Extension { name, .. } = filter else { continue };
            if !filters.contains(&(namespace, &**name)) {
                let why = format!("no accepted HTTPRouteFilter {name} in namespace {namespace}");
                lost = Some(why);
            }
            *name = full_name(namespace, name, "");
        }
        if let Some(why) = lost {
            refuse(rule, &why);
            refs.get_or_insert(Fault::new("BackendNotFound", why));
        }
    }
}

/// Makes a rule answer 500.
fn refuse(rule: &mut RouteRule, why: &str) {
    rule.filters.clear();
    rule.backends = vec![BackendRef::nowhere(why)];
}
