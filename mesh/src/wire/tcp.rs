//! TCPRoutes, TLSRoutes, egress and limits of opaque connections.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_proto::weir::mesh::v1 as pb;

use super::decode::join;
use super::decode_route::{backends, route_name};
use crate::model::{
    Egress, EgressHost, EgressTarget, HostPattern, Invalid, Service, ServiceName, TcpOptions,
    TcpParent, TcpRoute, TcpRouteKind, Violations,
};

/// Reads a TCPRoute or TLSRoute. Whether its backends exist is for the caller to
/// ask.
///
/// # Errors
/// All fields that are wrong.
pub fn tcp_route(message: &pb::TcpRoute, at: &str) -> Result<TcpRoute, Invalid> {
    let mut bad = Violations::new();
    route_name(&message.name, at, &mut bad);
    let kind = match message.kind() {
        pb::tcp_route::Kind::TlsRoute => TcpRouteKind::Tls,
        pb::tcp_route::Kind::TcpRoute | pb::tcp_route::Kind::Unspecified => TcpRouteKind::Tcp,
    };
    if message.parent_refs.is_empty() {
        let why = "is empty; name a Gateway or a Service, or the route would do nothing";
        bad.add(join(at, "parentRefs"), why);
    }
    let mut parents = Vec::new();
    for (i, message) in message.parent_refs.iter().enumerate() {
        parents.extend(parent(message, kind, &join(at, &format!("parentRefs[{i}]")), &mut bad));
    }
    let mut hostnames = Vec::new();
    for (i, host) in message.hostnames.iter().enumerate() {
        let at = join(at, &format!("hostnames[{i}]"));
        hostnames.extend(bad.take(&at, HostPattern::parse(host)));
    }
    match kind {
        TcpRouteKind::Tls if message.hostnames.is_empty() => {
            bad.add(join(at, "hostnames"), "is empty; a TLSRoute needs the server names it is for");
        }
        TcpRouteKind::Tcp if !message.hostnames.is_empty() => {
            let why = "a TCPRoute cannot see names; use a TLSRoute, or leave them out";
            bad.add(join(at, "hostnames"), why);
        }
        TcpRouteKind::Tcp | TcpRouteKind::Tls => {}
    }
    if message.backend_refs.is_empty() {
        bad.add(join(at, "backendRefs"), "is empty; name at least one backend");
    }
    let backends = backends(&message.backend_refs, &join(at, "backendRefs"), &mut bad);
    bad.finish(Some(TcpRoute {
        name: message.name.as_str().into(),
        kind,
        parents,
        hostnames,
        rule: message.rule_name.as_str().into(),
        backends,
    }))
}

fn parent(
    message: &pb::TcpParentRef,
    kind: TcpRouteKind,
    at: &str,
    bad: &mut Violations,
) -> Option<TcpParent> {
    match message.kind.as_str() {
        "Gateway" => {
            let section = message.section_name.as_str();
            let section = (!section.is_empty()).then(|| section.into());
            let port = match u16::try_from(message.port) {
                Ok(0) => None,
                Ok(port) => Some(port),
                Err(_) => {
                    bad.add(join(at, "port"), format_args!("{} is no port", message.port));
                    None
                }
            };
            Some(TcpParent::Gateway { section, port })
        }
        "Service" if kind == TcpRouteKind::Tls => {
            let why = "Service is not supported for a TLSRoute yet; use Gateway";
            bad.add(join(at, "kind"), why);
            None
        }
        "Service" => bad.take(&join(at, "name"), message.name.parse()).map(TcpParent::Service),
        other => {
            let why = format!("{other:?} is not supported; use Gateway or Service");
            bad.add(join(at, "kind"), why);
            None
        }
    }
}

/// Those of a snapshot. Their backends must be among `services`.
pub(super) fn tcp_routes(
    snapshot: &pb::Snapshot,
    services: &BTreeMap<ServiceName, Service>,
    keep: &mut dyn FnMut(Invalid),
) -> Vec<TcpRoute> {
    let mut routes = Vec::with_capacity(snapshot.tcp_routes.len());
    for (i, message) in snapshot.tcp_routes.iter().enumerate() {
        let at = format!("tcpRoutes[{i}]");
        match tcp_route(message, &at) {
            Ok(route) => {
                for (j, backend) in route.backends.iter().enumerate() {
                    if backend.invalid.is_none() && !services.contains_key(&backend.service) {
                        let field = format!("{at}.backendRefs[{j}].service");
                        let why = format!("no service {:?}", backend.service.as_str());
                        keep(Invalid::one(field, why));
                    }
                }
                routes.push(route);
            }
            Err(invalid) => keep(invalid),
        }
    }
    routes
}

/// Reads what may leave.
pub(super) fn egress(
    message: Option<&pb::Egress>,
    at: &str,
    bad: &mut Violations,
) -> Option<Egress> {
    let message = message?;
    let mut hosts = Vec::new();
    for (i, entry) in message.hosts.iter().enumerate() {
        let at = format!("{at}.hosts[{i}]");
        let target = bad.take(&format!("{at}.host"), EgressTarget::parse(&entry.host));
        let mut ports = Vec::new();
        for (j, port) in entry.ports.iter().enumerate() {
            match u16::try_from(*port) {
                Ok(port) if port > 0 => ports.push(port),
                _ => bad
                    .add(format!("{at}.ports[{j}]"), format_args!("{port} is not from 1 to 65535")),
            }
        }
        hosts.extend(target.map(|target| EgressHost { target, ports }));
    }
    Some(Egress { allow_by_default: message.allow_by_default, hosts })
}

/// Reads limits; what is 0 is as by default.
pub(super) fn options(message: Option<&pb::TcpOptions>) -> TcpOptions {
    let default = TcpOptions::default();
    let Some(message) = message else { return default };
    let or = |ms: u32, default| match ms {
        0 => default,
        ms => Duration::from_millis(ms.into()),
    };
    TcpOptions {
        idle_timeout: or(message.idle_timeout_ms, default.idle_timeout),
        detection_timeout: or(message.detection_timeout_ms, default.detection_timeout),
        max_connections: match message.max_connections {
            0 => default.max_connections,
            count => count,
        },
    }
}

/// Absent when all is as by default, so that a mesh without such options is
/// written as it always was.
pub(super) fn encode_options(options: &TcpOptions) -> Option<pb::TcpOptions> {
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    (*options != TcpOptions::default()).then(|| pb::TcpOptions {
        idle_timeout_ms: ms(options.idle_timeout),
        detection_timeout_ms: ms(options.detection_timeout),
        max_connections: options.max_connections,
    })
}

impl From<&Egress> for pb::Egress {
    fn from(egress: &Egress) -> Self {
        let host = |entry: &EgressHost| pb::EgressHost {
            host: entry.target.to_string(),
            ports: entry.ports.iter().map(|port| u32::from(*port)).collect(),
        };
        Self {
            allow_by_default: egress.allow_by_default,
            hosts: egress.hosts.iter().map(host).collect(),
        }
    }
}

impl From<&TcpRoute> for pb::TcpRoute {
    fn from(route: &TcpRoute) -> Self {
        let kind = match route.kind {
            TcpRouteKind::Tcp => pb::tcp_route::Kind::TcpRoute,
            TcpRouteKind::Tls => pb::tcp_route::Kind::TlsRoute,
        };
        let parent = |parent: &TcpParent| match parent {
            TcpParent::Service(name) => pb::TcpParentRef {
                kind: "Service".into(),
                name: name.to_string(),
                ..Default::default()
            },
            TcpParent::Gateway { section, port } => pb::TcpParentRef {
                kind: "Gateway".into(),
                name: "gateway".into(),
                section_name: section.as_deref().unwrap_or_default().to_owned(),
                port: port.unwrap_or_default().into(),
            },
        };
        Self {
            name: route.name.to_string(),
            kind: kind.into(),
            parent_refs: route.parents.iter().map(parent).collect(),
            hostnames: route.hostnames.iter().map(ToString::to_string).collect(),
            rule_name: route.rule.to_string(),
            backend_refs: route.backends.iter().map(Into::into).collect(),
        }
    }
}
