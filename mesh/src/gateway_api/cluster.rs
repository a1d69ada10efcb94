//! Routes where many things may be named and any of them may be missing: on
//! Kubernetes. Who reads them says what references lead to, and works out the
//! parents; everything else is read as [`parse_route`](super::parse_route) does.

use std::sync::Arc;

use serde_json::Value;

use super::reader::{self, Object};
use super::rule::{self, Services};
use super::{KnownServices, annotations, fields, tcp};
use crate::model::{
    BackendRef, ForceVersion, HostPattern, Invalid, RouteKind, RouteRule, ServiceName,
    TcpRouteKind, VersionName, Violations,
};

/// What a backendRef says, with the Gateway API's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendReference<'a> {
    /// Empty: core.
    pub group: &'a str,
    /// `Service` if nothing is said.
    pub kind: &'a str,
    /// None: the route's.
    pub namespace: Option<&'a str>,
    /// Which.
    pub name: &'a str,
    /// None: not given.
    pub port: Option<u16>,
}

/// Knows what references lead to.
pub trait Backends {
    /// The service, and one of its versions if a reference names one.
    ///
    /// # Errors
    /// Why it cannot be used: what it should get is answered 500, and a mirror to it
    /// is left out.
    fn find(
        &self,
        reference: BackendReference<'_>,
    ) -> Result<(ServiceName, Option<VersionName>), String>;
}

/// What an HTTPRoute or a GRPCRoute says beside its name and its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteBody {
    /// Empty: every host.
    pub hostnames: Vec<HostPattern>,
    /// Never empty.
    pub rules: Vec<RouteRule>,
    /// None: a request cannot name a version.
    pub force_version: Option<ForceVersion>,
    /// What enters by it takes its versions along.
    pub pin_versions: bool,
}

/// What a TCPRoute or a TLSRoute says beside its name and its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRouteBody {
    /// Never empty for TLSRoutes, empty for TCPRoutes.
    pub hostnames: Vec<HostPattern>,
    /// The rule's name; may be empty.
    pub rule: Arc<str>,
    /// Never empty, and the weights never sum to 0.
    pub backends: Vec<BackendRef>,
}

/// Reads an HTTPRoute or a GRPCRoute of an API server, less name and parents.
///
/// # Errors
/// All fields that are wrong, each by its path. That a backend cannot be used is no
/// error: see [`BackendRef::invalid`].
pub fn parse_route_body(
    value: &Value,
    kind: RouteKind,
    backends: &dyn Backends,
) -> Result<RouteBody, Invalid> {
    let mut bad = Violations::new();
    let body = body(value, kind, backends, &mut bad);
    bad.finish(body)
}

fn body(
    value: &Value,
    kind: RouteKind,
    backends: &dyn Backends,
    bad: &mut Violations,
) -> Option<RouteBody> {
    let object = Object::open(value, "", bad)?;
    let metadata = object.required_object("metadata", bad);
    let annotations = metadata.as_ref().map(|m| annotations::read(m, bad)).unwrap_or_default();
    let spec = object.required_object("spec", bad)?;
    spec.check(&fields::SPEC, &["useDefaultGateways"], bad);
    let hostnames = hostnames(&spec, bad);
    let services = Services::Cluster(backends);
    let list = spec.list("rules", bad);
    if list.is_empty() {
        bad.add(spec.path("rules"), "is empty; a route without rules does nothing");
    }
    let rules = list.iter().filter_map(|(at, v)| rule::rule(v, at, kind, services, bad)).collect();
    Some(RouteBody {
        hostnames,
        rules,
        force_version: annotations.force_version,
        pin_versions: annotations.pin_versions,
    })
}

fn hostnames(spec: &Object<'_>, bad: &mut Violations) -> Vec<HostPattern> {
    let mut hostnames = Vec::new();
    for (at, value) in spec.list("hostnames", bad) {
        if let Some(host) = reader::text(value, &at, bad) {
            hostnames.extend(bad.take(&at, HostPattern::parse(host)));
        }
    }
    hostnames
}

/// Reads a TCPRoute or a TLSRoute of an API server, less name and parents.
///
/// # Errors
/// All fields that are wrong, each by its path. That a backend cannot be used is no
/// error: see [`BackendRef::invalid`].
pub fn parse_tcp_route_body(
    value: &Value,
    kind: TcpRouteKind,
    backends: &dyn Backends,
) -> Result<TcpRouteBody, Invalid> {
    let mut bad = Violations::new();
    let spec = Object::open(value, "", &mut bad).and_then(|o| o.required_object("spec", &mut bad));
    let services = Services::Cluster(backends);
    let body = spec.and_then(|spec| tcp::body(&spec, kind, services, &mut bad));
    bad.finish(body.map(|(hostnames, rule, backends)| TcpRouteBody { hostnames, rule, backends }))
}

impl<'a> From<&'a KnownServices> for Services<'a> {
    fn from(services: &'a KnownServices) -> Self {
        Self::Known(services)
    }
}
