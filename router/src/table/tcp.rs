//! Where connections go: TCPRoutes, TLSRoutes, and whose an address is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_mesh::model::{
    HostPattern, Invalid, Protocol, ServiceName, Snapshot, TcpParent, TcpRoute, TcpRouteKind,
};

use super::{Interner, Map, ServiceEntry, Splitter};
use crate::upstream::Reach;

/// All that is known of connections.
#[derive(Default)]
pub struct TcpRoutes {
    services: Map<ServiceName, Arc<TcpAction>>,
    /// By name, so that of two for one listener the same always wins.
    gateway: Vec<GatewayRoute>,
    addresses: HashMap<SocketAddr, Arc<ServiceEntry>>,
    /// None: several services'.
    machines: HashMap<IpAddr, Option<Arc<ServiceEntry>>>,
}

struct GatewayRoute {
    kind: TcpRouteKind,
    parents: Vec<TcpParent>,
    hostnames: Vec<HostPattern>,
    action: Arc<TcpAction>,
}

/// What is done with a connection.
pub struct TcpAction {
    /// Route or service, for logs and metrics.
    pub label: Arc<str>,
    /// Where it goes.
    pub backends: Vec<TcpBackend>,
    /// Divides connections between `backends`, by index.
    pub splitter: Splitter,
}

/// One backend of a route.
pub struct TcpBackend {
    /// The service.
    pub service: Arc<ServiceEntry>,
    /// An index into its versions; none: by its own split.
    pub version: Option<usize>,
}

impl TcpRoutes {
    /// For connections of the mesh to a service; none when it is no `tcp` service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<TcpAction>> {
        self.services.get(name)
    }

    /// For connections to a TCP listener of the gateway.
    #[must_use]
    pub fn listener(&self, name: &str, port: u16) -> Option<&Arc<TcpAction>> {
        let mut routes = self.of_listener(TcpRouteKind::Tcp, name, port);
        routes.next().map(|route| &route.action)
    }

    /// For connections to a TLS listener of the gateway that ask for `sni`
    /// (lower-case): an exact name first, then the longest wildcard.
    #[must_use]
    pub fn server_name(&self, name: &str, port: u16, sni: &str) -> Option<&Arc<TcpAction>> {
        let mut best: Option<(usize, &GatewayRoute)> = None;
        for route in self.of_listener(TcpRouteKind::Tls, name, port) {
            for pattern in route.hostnames.iter().filter(|pattern| pattern.matches(sni)) {
                let rank = match pattern {
                    HostPattern::Exact(_) => usize::MAX,
                    HostPattern::Suffix(suffix) => suffix.len(),
                };
                if best.is_none_or(|(other, _)| rank > other) {
                    best = Some((rank, route));
                }
            }
        }
        best.map(|(_, route)| &route.action)
    }

    fn of_listener(
        &self,
        kind: TcpRouteKind,
        name: &str,
        port: u16,
    ) -> impl Iterator<Item = &GatewayRoute> {
        let meant = move |route: &&GatewayRoute| {
            route.kind == kind && route.parents.iter().any(|p| p.is_listener(name, port))
        };
        self.gateway.iter().filter(meant)
    }

    /// Whose an address is: an instance's, or else the only service's that has
    /// instances behind routers on that machine (a pod's address).
    #[must_use]
    pub fn owner(&self, address: SocketAddr) -> Option<&Arc<ServiceEntry>> {
        let ip = address.ip().to_canonical();
        self.addresses
            .get(&SocketAddr::new(ip, address.port()))
            .or_else(|| self.machines.get(&ip).and_then(Option::as_ref))
    }
}

/// Compiles the routes of a snapshot.
///
/// # Errors
/// A backend that is not there.
pub(super) fn build(
    snapshot: &Snapshot,
    entries: &HashMap<ServiceName, Arc<ServiceEntry>>,
    splits: &mut Interner<String>,
) -> Result<TcpRoutes, Invalid> {
    let mut tcp = TcpRoutes::default();
    let mut routes: Vec<&TcpRoute> = snapshot.tcp_routes.iter().collect();
    routes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for route in routes {
        let action = Arc::new(action(route, entries, splits)?);
        for parent in &route.parents {
            if let TcpParent::Service(name) = parent {
                tcp.services.entry(name.clone()).or_insert_with(|| action.clone());
            }
        }
        tcp.gateway.push(GatewayRoute {
            kind: route.kind,
            parents: route.parents.clone(),
            hostnames: route.hostnames.clone(),
            action,
        });
    }
    for (name, service) in entries.iter().filter(|(_, s)| s.protocol == Protocol::Tcp) {
        tcp.services.entry(name.clone()).or_insert_with(|| {
            Arc::new(TcpAction {
                label: name.as_str().into(),
                backends: vec![TcpBackend { service: service.clone(), version: None }],
                splitter: Splitter::new(splits.number(&"one".to_owned()), vec![1]),
            })
        });
    }
    tcp.services.retain(|name, _| entries.get(name).is_some_and(|s| s.protocol == Protocol::Tcp));
    for service in entries.values() {
        for endpoint in service.versions.iter().flat_map(|version| &version.endpoints) {
            let ip = endpoint.address.ip().to_canonical();
            let address = SocketAddr::new(ip, endpoint.address.port());
            tcp.addresses.insert(address, service.clone());
            // Behind a router the port is the router's; the application's is not known.
            if endpoint.reach == Reach::Mesh && !ip.is_loopback() {
                let owner = tcp.machines.entry(ip).or_insert_with(|| Some(service.clone()));
                if owner.as_ref().is_some_and(|other| other.name != service.name) {
                    *owner = None;
                }
            }
        }
    }
    Ok(tcp)
}

fn action(
    route: &TcpRoute,
    entries: &HashMap<ServiceName, Arc<ServiceEntry>>,
    splits: &mut Interner<String>,
) -> Result<TcpAction, Invalid> {
    let mut backends = Vec::new();
    for (i, backend) in route.backends.iter().enumerate() {
        let at = || format!("tcpRoutes[{}].backendRefs[{i}]", route.name);
        let service = entries
            .get(&backend.service)
            .ok_or_else(|| Invalid::one(at(), format!("no service {}", backend.service)))?;
        let version = match &backend.version {
            None => None,
            Some(name) => Some(service.version(name).ok_or_else(|| {
                Invalid::one(at(), format!("{} has no version {name}", backend.service))
            })?),
        };
        backends.push(TcpBackend { service: service.clone(), version });
    }
    let weights: Vec<u32> = route.backends.iter().map(|b| b.weight.get()).collect();
    let split = splits.number(&format!("tcp-route/{}", route.name));
    Ok(TcpAction { label: route.name.clone(), backends, splitter: Splitter::new(split, weights) })
}
