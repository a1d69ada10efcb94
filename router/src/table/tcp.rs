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
    /// Where it goes; or why this share of connections goes nowhere.
    pub backends: Vec<Result<TcpBackend, Arc<str>>>,
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

/// Compiles the routes of a snapshot. In a pod ports say more than machines do: see
/// [`super::Places`].
///
/// # Errors
/// A backend that is not there.
pub(super) fn build(
    snapshot: &Snapshot,
    entries: &HashMap<ServiceName, Arc<ServiceEntry>>,
    in_pod: bool,
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
                backends: vec![Ok(TcpBackend { service: service.clone(), version: None })],
                splitter: Splitter::new(splits.number(&"one".to_owned()), vec![1]),
            })
        });
    }
    tcp.services.retain(|name, _| entries.get(name).is_some_and(|s| s.protocol == Protocol::Tcp));
    for service in entries.values().filter(|_| !in_pod) {
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
        if let Some(why) = &backend.invalid {
            backends.push(Err(why.clone()));
            continue;
        }
        let service = entries
            .get(&backend.service)
            .ok_or_else(|| Invalid::one(at(), format!("no service {}", backend.service)))?;
        let version = match &backend.version {
            None => None,
            Some(name) => Some(service.version(name).ok_or_else(|| {
                Invalid::one(at(), format!("{} has no version {name}", backend.service))
            })?),
        };
        backends.push(Ok(TcpBackend { service: service.clone(), version }));
    }
    let weights: Vec<u32> = route.backends.iter().map(|b| b.weight.get()).collect();
    let split = splits.number(&format!("tcp-route/{}", route.name));
    Ok(TcpAction { label: route.name.clone(), backends, splitter: Splitter::new(split, weights) })
}

#[cfg(test)]
mod tests {
    use weir_mesh::wire;
    use weir_proto::weir::mesh::v1 as pb;

    use crate::table::{Builder, Table};

    fn service(name: &str, protocol: pb::Protocol) -> pb::Service {
        pb::Service {
            name: name.into(),
            protocol: protocol.into(),
            versions: vec![pb::VersionWeight {
                version: "v1".into(),
                weight: 1,
                addresses: vec![],
            }],
            ..Default::default()
        }
    }

    fn instance(service: &str, address: &str, plain: bool) -> pb::Instance {
        pb::Instance {
            id: format!("{service}@{address}"),
            service: service.into(),
            version: "v1".into(),
            address: address.into(),
            plain,
            ..Default::default()
        }
    }

    fn tls(name: &str, hostname: &str, section: &str) -> pb::TcpRoute {
        pb::TcpRoute {
            name: name.into(),
            kind: pb::tcp_route::Kind::TlsRoute.into(),
            parent_refs: vec![pb::TcpParentRef {
                kind: "Gateway".into(),
                name: "gateway".into(),
                section_name: section.into(),
                port: 0,
            }],
            hostnames: vec![hostname.into()],
            backend_refs: vec![pb::BackendRef {
                service: "db".into(),
                version: String::new(),
                weight: 1,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn table() -> Table {
        let message = pb::Snapshot {
            trust_domain: "weir.local".into(),
            services: vec![
                service("db", pb::Protocol::Tcp),
                service("mail", pb::Protocol::Tcp),
                service("web", pb::Protocol::Http1),
            ],
            instances: vec![
                instance("db", "10.0.0.1:15008", false),
                instance("mail", "10.0.0.2:15008", false),
                instance("web", "10.0.0.2:15009", false),
                instance("mail", "10.0.0.3:25", true),
                instance("db", "127.0.0.1:15008", false),
            ],
            tcp_routes: vec![
                tls("any", "*.example.com", ""),
                tls("deep", "*.deep.example.com", ""),
                tls("exact", "a.deep.example.com", ""),
                tls("other", "a.deep.example.com", "other"),
            ],
            ..Default::default()
        };
        Builder::default().build(&wire::snapshot(&message).unwrap()).unwrap()
    }

    #[test]
    fn an_address_is_its_services() {
        let table = table();
        let owner = |address: &str| {
            table.tcp.owner(address.parse().unwrap()).map(|service| service.name.to_string())
        };
        assert_eq!(owner("10.0.0.1:5432").as_deref(), Some("db"), "any port of a pod");
        assert_eq!(owner("[::ffff:10.0.0.1]:5432").as_deref(), Some("db"));
        assert_eq!(owner("10.0.0.2:15009").as_deref(), Some("web"), "exactly");
        assert_eq!(owner("10.0.0.2:25"), None, "several services are there");
        assert_eq!(owner("10.0.0.3:25").as_deref(), Some("mail"));
        assert_eq!(owner("10.0.0.3:80"), None, "without a router only the port counts");
        assert_eq!(owner("127.0.0.1:80"), None, "everything is on loopback");
    }

    #[test]
    fn the_most_specific_name_wins_on_its_listener() {
        let table = table();
        let route = |listener: &str, sni: &str| {
            table.tcp.server_name(listener, 443, sni).map(|action| action.label.to_string())
        };
        for listener in ["one", "other"] {
            assert_eq!(route(listener, "a.deep.example.com").as_deref(), Some("exact"));
            assert_eq!(route(listener, "b.deep.example.com").as_deref(), Some("deep"));
            assert_eq!(route(listener, "b.example.com").as_deref(), Some("any"));
            assert_eq!(route(listener, "example.com"), None);
        }
    }

    #[test]
    fn a_backend_that_cannot_be_used_keeps_its_share() {
        let mut route = tls("web", "a.example.com", "");
        let lost = pb::BackendRef {
            service: "nowhere".into(),
            weight: 3,
            invalid: "it is not there".into(),
            ..Default::default()
        };
        route.backend_refs.push(lost);
        let message = pb::Snapshot {
            trust_domain: "weir.local".into(),
            services: vec![service("db", pb::Protocol::Tcp)],
            tcp_routes: vec![route],
            ..Default::default()
        };
        let table = Builder::default().build(&wire::snapshot(&message).unwrap()).unwrap();
        let action = table.tcp.server_name("any", 443, "a.example.com").unwrap();
        let why = action.backends[1].as_ref().err().map(|why| &**why);
        assert!(action.backends[0].is_ok() && why == Some("it is not there"));
    }

    #[test]
    fn only_tcp_services_take_connections() {
        let table = table();
        assert!(table.tcp.service("db").is_some());
        assert!(table.tcp.service("web").is_none() && table.tcp.service("nobody").is_none());
    }
}
