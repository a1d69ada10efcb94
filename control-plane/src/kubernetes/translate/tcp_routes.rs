//! TCPRoutes and TLSRoutes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use weir_mesh::gateway_api::parse_tcp_route_body;
use weir_mesh::model::{TcpParent, TcpRoute, TcpRouteKind};

use super::StatusUpdate;
use super::gateways::Gateways;
use super::parents::{self, Child, Found, Parent};
use super::references::References;
use super::routes::{Context, route_name, update};
use super::status::Fault;
use crate::kubernetes::objects::Kind;

/// Reads all TCPRoutes and TLSRoutes.
pub(super) fn tcp_routes(
    context: &Context<'_>,
    gateways: &mut Gateways<'_>,
    statuses: &mut Vec<StatusUpdate>,
) -> BTreeMap<Arc<str>, TcpRoute> {
    let mut routes = BTreeMap::new();
    for kind in [Kind::TCPRoute, Kind::TLSRoute] {
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
) -> (Option<TcpRoute>, Option<StatusUpdate>) {
    let route_kind = if kind == Kind::TLSRoute { TcpRouteKind::Tls } else { TcpRouteKind::Tcp };
    let refs = References::new(context.services, context.grants, kind, namespace, object);
    let body = parse_tcp_route_body(object, route_kind, &refs);
    let refs = refs.into_fault();
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
    let status = update(&child, &parents, refs.as_ref());
    let model_parents = model_parents(&parents);
    let route = read.as_ref().ok().filter(|_| !model_parents.is_empty()).map(|body| TcpRoute {
        name: route_name(kind, namespace, name),
        kind: route_kind,
        parents: model_parents,
        hostnames: body.hostnames.clone(),
        rule: body.rule.clone(),
        backends: body.backends.clone(),
    });
    (route, status)
}

/// A listener's id stands for its name: it is unique in the mesh.
fn model_parents(parents: &[Parent<'_>]) -> Vec<TcpParent> {
    let mut found: Vec<TcpParent> = Vec::new();
    for parent in parents {
        let all: Vec<TcpParent> = match &parent.found {
            Err(_) => continue,
            Ok(Found::Listeners(ids)) => {
                let listener =
                    |id: &Arc<str>| TcpParent::Gateway { section: Some(id.clone()), port: None };
                ids.iter().map(listener).collect()
            }
            Ok(Found::Services { ports, .. }) => {
                ports.iter().cloned().map(TcpParent::Service).collect()
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
