//! What backendRefs of routes lead to.

use std::cell::RefCell;

use serde_json::Value;
use weir_mesh::gateway_api::{BackendReference, Backends};
use weir_mesh::model::{Protocol, ServiceName, VersionName};

use super::grants::{Grants, Referrer};
use super::json::{list, text};
use super::services::Services;
use super::status::Fault;
use crate::kubernetes::objects::Kind;

/// Looks up the backends of one route, and remembers the first that cannot be used.
pub(super) struct References<'a> {
    services: &'a Services<'a>,
    grants: &'a Grants<'a>,
    route: Referrer<'a>,
    /// Namespaces whose Services it may name without a grant.
    open: Vec<&'a str>,
    fault: RefCell<Option<Fault>>,
}

impl<'a> References<'a> {
    pub fn new(
        services: &'a Services<'a>,
        grants: &'a Grants<'a>,
        kind: Kind,
        namespace: &'a str,
        route: &'a Value,
    ) -> Self {
        let route_of = Referrer { kind, namespace };
        let open = open_namespaces(route);
        Self { services, grants, route: route_of, open, fault: RefCell::default() }
    }

    /// Why not all backends can be used.
    pub fn into_fault(self) -> Option<Fault> {
        self.fault.into_inner()
    }

    fn look_up(&self, sent: BackendReference<'_>) -> Result<ServiceName, Fault> {
        let name = sent.name;
        if !matches!(sent.group, "" | "core") || sent.kind != "Service" {
            let why =
                format!("{}/{} {name} is not supported; name a Service", sent.group, sent.kind);
            return Err(Fault::new("InvalidKind", why));
        }
        let namespace = sent.namespace.unwrap_or(self.route.namespace);
        if !self.open.contains(&namespace)
            && !self.grants.allow(self.route, Kind::Service, namespace, name)
        {
            let (kind, own) = (self.route.kind.as_str(), self.route.namespace);
            let why = format!(
                "no ReferenceGrant in {namespace} lets {kind}s of {own} use Service {name}"
            );
            return Err(Fault::new("RefNotPermitted", why));
        }
        let not_found = |why: String| Fault::new("BackendNotFound", why);
        let service = self.services.get(namespace, name);
        let service = service.ok_or_else(|| {
            not_found(format!("no Service {name} with TCP ports in namespace {namespace}"))
        })?;
        let Some(number) = sent.port else {
            let why = format!("backendRef to Service {name} has no port; a Service needs one");
            return Err(not_found(why));
        };
        let port = service.port(number);
        let port = port.ok_or_else(|| {
            not_found(format!("Service {name} in {namespace} has no TCP port {number}"))
        })?;
        let is_opaque = self.services.protocol(port) == Protocol::Tcp;
        let wants_requests = matches!(self.route.kind, Kind::HTTPRoute | Kind::GRPCRoute);
        if is_opaque && wants_requests {
            let why = format!(
                "port {number} of Service {name} is declared to be opaque TCP; \
                 set its appProtocol to http, kubernetes.io/h2c or grpc"
            );
            return Err(Fault::new("UnsupportedProtocol", why));
        }
        Ok(port.service.clone())
    }
}

/// A route that only callers of Services see may send them on to Services beside
/// those: they could go there by themselves (GEP-1324).
fn open_namespaces(route: &Value) -> Vec<&str> {
    let parents = list(&route["spec"], "parentRefs");
    let all = parents.iter().all(|parent| text(parent, "kind") == "Service");
    match all {
        true => parents.iter().filter_map(|parent| parent["namespace"].as_str()).collect(),
        false => Vec::new(),
    }
}

impl Backends for References<'_> {
    fn find(
        &self,
        reference: BackendReference<'_>,
    ) -> Result<(ServiceName, Option<VersionName>), String> {
        self.look_up(reference).map(|service| (service, None)).map_err(|fault| {
            let message = fault.message.clone();
            self.fault.borrow_mut().get_or_insert(fault);
            message
        })
    }
}
