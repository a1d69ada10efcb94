//! What of a mesh file is about connections: listeners of the gateway, upstreams
//! of services, egress and limits.

use std::time::Duration;

use weir_mesh::gateway_api::{parse_duration, parse_tcp_route};
use weir_mesh::model::{
    Egress, EgressHost, EgressTarget, Protocol, ServiceName, TcpOptions, TcpParent, TcpRoute,
    TcpRouteKind, Violations,
};

use super::read::{self, Fields};
use super::service::{ServiceSpec, port};
use super::tree::{Node, Value};
use weir_mesh::gateway_api::KnownServices;

/// A listener of the gateway beside the one for HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// A DNS label; `sectionName` of routes.
    pub name: String,
    /// On 127.0.0.1.
    pub port: u16,
    /// [`TcpRouteKind::Tls`]: TLS is passed through.
    pub kind: TcpRouteKind,
    /// Field path in the mesh file.
    pub at: String,
}

/// A service with protocol `tcp` that another one connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// Which.
    pub service: ServiceName,
    /// Where its caller's router listens for it, on 127.0.0.1; none: a free port.
    pub port: Option<u16>,
    /// Field path in the mesh file.
    pub at: String,
}

pub(super) fn listeners(
    fields: &mut Fields<'_>,
    violations: &mut Violations,
) -> Vec<GatewayListener> {
    let mut listeners: Vec<GatewayListener> = Vec::new();
    for (at, item) in fields.list("listeners", violations) {
        let Some(mut fields) = Fields::of(item, &at, violations) else { continue };
        let name = fields
            .need_text("name", violations)
            .and_then(|text| violations.take(&format!("{at}.name"), ServiceName::try_from(text)));
        fields.need("port", violations);
        let number = fields.integer("port", violations);
        let number = number.and_then(|value| violations.take(&format!("{at}.port"), port(value)));
        let kind = match fields.need_text("protocol", violations) {
            Some("TCP") => Some(TcpRouteKind::Tcp),
            Some("TLS") => Some(TcpRouteKind::Tls),
            Some(other) => {
                let why = format!("{other:?} is not supported; use TCP, or TLS (passed through)");
                violations.add(format!("{at}.protocol"), why);
                None
            }
            None => None,
        };
        fields.finish(violations);
        let (Some(name), Some(port), Some(kind)) = (name, number, kind) else { continue };
        let name = name.to_string();
        if listeners.iter().any(|other| other.name == name) {
            violations.add(format!("{at}.name"), format!("{name} is here twice"));
        }
        if listeners.iter().any(|other| other.port == port) {
            violations.add(format!("{at}.port"), format!("{port} is here twice"));
        }
        listeners.push(GatewayListener { name, port, kind, at });
    }
    listeners
}

pub(super) fn upstreams(
    fields: &mut Fields<'_>,
    processes: u32,
    violations: &mut Violations,
) -> Vec<UpstreamSpec> {
    let mut upstreams: Vec<UpstreamSpec> = Vec::new();
    for (at, item) in fields.list("upstreams", violations) {
        let Some(mut fields) = Fields::of(item, &at, violations) else { continue };
        let service = fields.need_text("service", violations).and_then(|text| {
            violations.take(&format!("{at}.service"), ServiceName::try_from(text))
        });
        let number = fields.integer("port", violations);
        let number = number.and_then(|value| violations.take(&format!("{at}.port"), port(value)));
        fields.finish(violations);
        if number.is_some() && processes > 1 {
            let why = "is fixed, so there can be one process of the service; leave it out and \
                       connect to the address in $WEIR_TCP_NAME";
            violations.add(format!("{at}.port"), why);
        }
        let Some(service) = service else { continue };
        if upstreams.iter().any(|other| other.service == service) {
            violations.add(format!("{at}.service"), format!("{service} is here twice"));
        }
        upstreams.push(UpstreamSpec { service, port: number, at });
    }
    upstreams
}

/// Upstreams that are no services, or speak something that a request is for.
pub(super) fn check_upstreams(services: &[ServiceSpec], violations: &mut Violations) {
    for upstream in services.iter().flat_map(|spec| &spec.upstreams) {
        let found = services.iter().find(|spec| spec.service.name == upstream.service);
        let why = match found {
            None => format!("no service {:?}", upstream.service.as_str()),
            Some(spec) if spec.service.protocol != Protocol::Tcp => format!(
                "the protocol of {} is not tcp; requests go to $WEIR_OUTBOUND",
                upstream.service
            ),
            Some(_) => continue,
        };
        violations.add(format!("{}.service", upstream.at), why);
    }
}

/// A TCPRoute or a TLSRoute of the file's `routes`.
pub(super) fn route(
    item: &Node,
    at: &str,
    services: &KnownServices,
    listeners: &[GatewayListener],
    violations: &mut Violations,
) -> Option<TcpRoute> {
    let route = match parse_tcp_route(&item.to_json(), at, services) {
        Ok(route) => route,
        Err(invalid) => {
            violations.extend(invalid);
            return None;
        }
    };
    for (i, parent) in route.parents.iter().enumerate() {
        let meant =
            |l: &GatewayListener| l.kind == route.kind && parent.is_listener(&l.name, l.port);
        if matches!(parent, TcpParent::Gateway { .. }) && !listeners.iter().any(meant) {
            let wanted = match route.kind {
                TcpRouteKind::Tcp => "TCP",
                TcpRouteKind::Tls => "TLS",
            };
            let why = format!("names no listener in gateway.listeners with protocol {wanted}");
            violations.add(format!("{at}.spec.parentRefs[{i}]"), why);
        }
    }
    Some(route)
}

pub(super) fn egress(node: Option<&Node>, violations: &mut Violations) -> Option<Egress> {
    let mut fields = Fields::of(node?, "egress", violations)?;
    let allow_by_default = match fields.text("default", violations) {
        None | Some("Deny") => false,
        Some("Allow") => true,
        Some(other) => {
            violations.add("egress.default", format!("{other:?} is not known; use Allow or Deny"));
            false
        }
    };
    let mut hosts = Vec::new();
    for (at, item) in fields.list("hosts", violations) {
        if let Value::Text(text) = &item.value {
            let target = violations.take(&at, EgressTarget::parse(text));
            hosts.extend(target.map(|target| EgressHost { target, ports: Vec::new() }));
            continue;
        }
        let Some(mut fields) = Fields::of(item, &at, violations) else { continue };
        let target = fields
            .need_text("host", violations)
            .and_then(|text| violations.take(&format!("{at}.host"), EgressTarget::parse(text)));
        let mut ports = Vec::new();
        for (at, item) in fields.list("ports", violations) {
            match item.value {
                Value::Int(value) => ports.extend(violations.take(&at, port(value))),
                _ => violations.add(at, "must be a port, 1 to 65535"),
            }
        }
        fields.finish(violations);
        hosts.extend(target.map(|target| EgressHost { target, ports }));
    }
    fields.finish(violations);
    Some(Egress { allow_by_default, hosts })
}

pub(super) fn limits(node: Option<&Node>, violations: &mut Violations) -> TcpOptions {
    let mut options = TcpOptions::default();
    let fields = node.and_then(|node| Fields::of(node, "tcp", violations));
    let Some(mut fields) = fields else { return options };
    if let Some(time) = duration(&mut fields, "idleTimeout", violations) {
        options.idle_timeout = time;
    }
    if let Some(time) = duration(&mut fields, "detectionTimeout", violations) {
        options.detection_timeout = time;
    }
    if let Some(count) = fields.integer("maxConnections", violations) {
        match u32::try_from(count) {
            Ok(count) if (1..=1_000_000).contains(&count) => options.max_connections = count,
            _ => violations.add("tcp.maxConnections", format!("{count} is not from 1 to 1000000")),
        }
    }
    fields.finish(violations);
    options
}

fn duration(
    fields: &mut Fields<'_>,
    field: &'static str,
    violations: &mut Violations,
) -> Option<Duration> {
    let at = fields.at(field);
    let node = fields.get(field)?;
    let text = read::text(node, &at, violations)?;
    let time = violations.take(&at, parse_duration(text))?;
    if time.is_zero() {
        violations.add(at, "must be above 0");
        return None;
    }
    Some(time)
}
