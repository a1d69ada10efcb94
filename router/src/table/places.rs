//! What addresses mean in a pod of Kubernetes: where its connections go, and whose
//! the ports of its own are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_mesh::model::{Instance, Protocol, ServiceName, Snapshot};

use super::{
    Action, Backend, Destination, Map, ServiceEntry, Splitter, Target, TcpAction, TcpBackend,
    VersionEntry,
};
use crate::config::Pod;
use crate::limit::Attachment;

/// What addresses mean.
pub struct Places {
    /// The pod's own.
    pub namespace: Arc<str>,
    /// Where the pod runs, if it is an instance; may be empty.
    pub zone: Option<Arc<str>>,
    /// Of Services: their cluster addresses.
    services: Map<SocketAddr, Arc<ServiceEntry>>,
    /// Of pods, with indexes of version and endpoint.
    instances: Map<SocketAddr, (Arc<ServiceEntry>, usize, usize)>,
    /// Of this pod.
    ports: Map<u16, Port>,
    opaque_ports: Vec<u16>,
    /// Limits of everything that this router sends.
    limits: Vec<Attachment>,
    /// Of splitters with one part.
    one: u32,
}

/// A port of this pod that is an instance of services.
pub struct Port {
    /// At least one, by name.
    pub services: Vec<Arc<ServiceEntry>>,
    /// What the application speaks there.
    pub protocol: Protocol,
    /// Limits of all of the services; mostly empty.
    pub limits: Arc<[Attachment]>,
}

/// Where a connection was meant to go.
#[derive(Clone, Copy)]
pub enum Meant<'a> {
    /// A Service: any of its instances.
    Service(&'a Arc<ServiceEntry>),
    /// This instance (indexes of version and endpoint) and no other.
    Instance(&'a Arc<ServiceEntry>, usize, usize),
}

impl<'a> Meant<'a> {
    /// The service.
    #[must_use]
    pub fn service(self) -> &'a Arc<ServiceEntry> {
        match self {
            Self::Service(service) | Self::Instance(service, ..) => service,
        }
    }
}

impl Places {
    /// Where a connection to an address was meant to go; none: out of the mesh.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<Meant<'_>> {
        let address = canonical(address);
        if let Some(service) = self.services.get(&address) {
            return Some(Meant::Service(service));
        }
        let (service, version, endpoint) = self.instances.get(&address)?;
        Some(Meant::Instance(service, *version, *endpoint))
    }

    /// A port of this pod; none: no service has it.
    #[must_use]
    pub fn port(&self, port: u16) -> Option<&Port> {
        self.ports.get(&port)
    }

    /// Whether plaintext to a port of this pod is HTTP.
    #[must_use]
    pub fn takes_http(&self, port: u16) -> bool {
        !self.opaque_ports.contains(&port)
            && self.port(port).is_some_and(|port| port.protocol != Protocol::Tcp)
    }

    /// What is done with a request to an instance and no other: no split, and no
    /// routes, which are the service's.
    #[must_use]
    pub fn action(&self, service: &ServiceEntry, version: usize, endpoint: usize) -> Arc<Action> {
        let alone = self.alone(service, version, endpoint);
        Arc::new(Action::of_service(alone, self.splitter(), self.limits.clone()))
    }

    /// What is done with bytes, whatever the service's protocol.
    #[must_use]
    pub fn bytes(&self, meant: Meant<'_>) -> TcpAction {
        let service = match meant {
            Meant::Service(service) => service.clone(),
            Meant::Instance(service, version, endpoint) => self.alone(service, version, endpoint),
        };
        TcpAction {
            label: service.name.as_str().into(),
            backends: vec![Ok(TcpBackend { service, version: None })],
            splitter: self.splitter(),
        }
    }

    fn splitter(&self) -> Splitter {
        Splitter::new(self.one, vec![1])
    }

    /// A service as if it had one instance.
    fn alone(&self, service: &ServiceEntry, version: usize, endpoint: usize) -> Arc<ServiceEntry> {
        let of = &service.versions[version];
        Arc::new(ServiceEntry {
            name: service.name.clone(),
            protocol: service.protocol,
            identity: service.identity.clone(),
            versions: vec![VersionEntry {
                name: of.name.clone(),
                weight: 1,
                id: of.id,
                endpoints: vec![of.endpoints[endpoint].clone()],
            }],
            splitter: self.splitter(),
            sticky: None,
            audiences: Vec::new(),
            mirror: None,
            traffic: service.traffic.clone(),
            transcoder: None,
        })
    }
}

/// Services of the pod's ports, as they were last known.
pub(super) type Known = BTreeMap<u16, Vec<ServiceName>>;

/// Of a snapshot, for a router in `pod`.
pub(super) fn build(
    pod: &Pod,
    known: &mut Known,
    snapshot: &Snapshot,
    services: &Map<ServiceName, Destination>,
    inbound_limits: &Map<ServiceName, Arc<[Attachment]>>,
    limits: Vec<Attachment>,
    one: u32,
) -> Places {
    let is_here = |instance: &&Instance| is_own(Some(pod), instance.address.ip());
    let mut places = Places {
        namespace: pod.namespace.clone(),
        zone: snapshot.instances.iter().find(is_here).map(|i| i.zone.clone()),
        services: Map::default(),
        instances: Map::default(),
        ports: Map::default(),
        opaque_ports: pod.opaque_ports.0.clone(),
        limits,
        one,
    };
    // In the order of their names: of two with one address the first has it.
    for (name, service) in &snapshot.services {
        let Some(Destination { service: entry, .. }) = services.get(name) else { continue };
        for address in &service.virtual_addresses {
            places.services.entry(canonical(*address)).or_insert_with(|| entry.clone());
        }
        for (v, version) in entry.versions.iter().enumerate() {
            for (e, endpoint) in version.endpoints.iter().enumerate() {
                let address = canonical(endpoint.address);
                places.instances.entry(address).or_insert_with(|| (entry.clone(), v, e));
            }
        }
    }
    let own = own_ports(pod, known, snapshot, services);
    let port = |(port, services): (u16, Vec<Arc<ServiceEntry>>)| {
        let of = services.iter().filter_map(|service| inbound_limits.get(&service.name));
        let limits = of.flat_map(|limits| limits.iter().cloned()).collect();
        // One that says what is spoken knows more than one that says nothing of it.
        let http = services.iter().find(|service| service.protocol != Protocol::Tcp);
        let protocol = http.map_or(Protocol::Tcp, |service| service.protocol);
        (port, Port { services, protocol, limits })
    };
    places.ports = own.into_iter().map(port).collect();
    places
}

/// Services of the pod's ports: also those whose version gets nothing, and is no
/// endpoint.
fn own_ports(
    pod: &Pod,
    known: &mut Known,
    snapshot: &Snapshot,
    services: &Map<ServiceName, Destination>,
) -> BTreeMap<u16, Vec<Arc<ServiceEntry>>> {
    let mut there: BTreeMap<u16, BTreeSet<&ServiceName>> = BTreeMap::new();
    for instance in snapshot.instances.iter().filter(|i| is_own(Some(pod), i.address.ip())) {
        there.entry(instance.address.port()).or_default().insert(&instance.service);
    }
    let of = |name: &&ServiceName| Some(services.get(*name)?.service.clone());
    let entries = |names: BTreeSet<_>| names.iter().filter_map(of).collect::<Vec<_>>();
    let own = there.into_iter().map(|(port, names)| (port, entries(names)));
    let mut own: BTreeMap<u16, Vec<_>> = own.filter(|(_, of)| !of.is_empty()).collect();
    // A pod that goes may be no instance any more, and still serves: it must not be
    // left without its policies.
    for (port, names) in known.iter() {
        let of = names.iter().filter_map(|name| services.get(name));
        let left: Vec<_> = of.map(|destination| destination.service.clone()).collect();
        if !left.is_empty() {
            own.entry(*port).or_insert(left);
        }
    }
    let names = |of: &[Arc<ServiceEntry>]| of.iter().map(|service| service.name.clone()).collect();
    *known = own.iter().map(|(port, of)| (*port, names(of))).collect();
    own
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an address is the pod's own: the kernel does not redirect what its router
/// sends there.
pub(super) fn is_own(pod: Option<&Pod>, ip: IpAddr) -> bool {
    pod.is_some_and(|pod| pod.ip == Some(ip.to_canonical()))
}

impl Action {
    /// Everything to a service, by its own split.
    #[must_use]
    pub(super) fn of_service(
        service: Arc<ServiceEntry>,
        splitter: Splitter,
        limits: Vec<Attachment>,
    ) -> Self {
        Self {
            label: service.name.to_string().into(),
            backends: vec![Backend::Service(Target { service, version: None, filters: None })],
            splitter,
            timeout: None,
            backend_timeout: None,
            retry: None,
            filters: None,
            limits,
            extensions: Vec::new(),
            guard: None,
            rare: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_mesh::telemetry::metrics::Registry;
    use weir_mesh::wire;
    use weir_proto::weir::mesh::v1 as pb;

    use super::*;
    use crate::request::target;
    use crate::table::{Builder, Table};
    use crate::upstream::Reach;

    const OWN: &str = "10.1.0.1";

    fn builder() -> Builder {
        let ip = Some(OWN.parse().unwrap());
        let pod = Pod { ip, namespace: "shop".into(), ..Pod::default() };
        Builder::new(&Registry::default(), Some(Arc::new(pod)))
    }

    fn service(name: &str, addresses: &[&str]) -> pb::Service {
        pb::Service {
            name: name.into(),
            protocol: pb::Protocol::Http1.into(),
            versions: vec![pb::VersionWeight {
                version: "v1".into(),
                weight: 1,
                addresses: vec![],
            }],
            virtual_addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn instance(service: &str, address: &str, account: &str) -> pb::Instance {
        pb::Instance {
            id: format!("pod-{address}"),
            service: service.into(),
            version: "v1".into(),
            address: address.into(),
            identity: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
            ..Default::default()
        }
    }

    fn table(
        builder: &mut Builder,
        services: Vec<pb::Service>,
        instances: Vec<pb::Instance>,
    ) -> Table {
        let trust_domain = "cluster.local".into();
        let message = pb::Snapshot { trust_domain, services, instances, ..Default::default() };
        builder.build(&wire::snapshot(&message).unwrap()).unwrap()
    }

    #[test]
    fn an_address_is_a_service_or_an_instance() {
        let services = vec![service("web.shop", &["10.96.0.1:80"]), service("a.out:81", &[])];
        let instances = vec![
            instance("web.shop", "10.1.0.2:8080", "a"),
            instance("a.out:81", "10.1.0.3:1", "b"),
        ];
        let table = table(&mut builder(), services, instances);
        let found = |address: &str| {
            let found = table.places.as_ref().unwrap().find(address.parse().unwrap());
            found
                .map(|meant| (meant.service().name.to_string(), matches!(meant, Meant::Service(_))))
        };
        assert_eq!(found("10.96.0.1:80"), Some(("web.shop".into(), true)));
        assert_eq!(found("[::ffff:10.96.0.1]:80"), Some(("web.shop".into(), true)));
        assert_eq!(found("10.1.0.2:8080"), Some(("web.shop".into(), false)));
        assert_eq!(found("10.1.0.3:1"), Some(("a.out:81".into(), false)));
        for unknown in ["10.96.0.1:81", "10.1.0.2:80", "10.1.0.4:8080"] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
        let named = |host, port| {
            target::destination(&table, host, port).map(|found| found.service.name.to_string())
        };
        for host in ["web", "WEB", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"] {
            assert_eq!(named(host, Some(8080)).as_deref(), Some("web.shop"), "{host}");
        }
        assert_eq!(named("a.out", Some(81)).as_deref(), Some("a.out:81"));
        for (host, port) in [("a", Some(81)), ("a.out", None), ("web.out", None)] {
            assert_eq!(named(host, port), None, "{host}");
        }
    }

    #[test]
    fn two_identities_at_one_address_are_two_endpoints() {
        let mut builder = builder();
        let mut endpoint = |address: &str, account: &str| {
            let instances = vec![instance("web.shop", address, account)];
            let table = table(&mut builder, vec![service("web.shop", &[])], instances);
            let endpoint = &table.services["web.shop"].service.versions[0].endpoints[0];
            (endpoint.index, endpoint.reach)
        };
        let (first, reach) = endpoint("10.1.0.2:80", "a");
        assert_eq!(reach, Reach::Mesh);
        assert_eq!(endpoint("10.1.0.2:80", "a").0, first);
        assert_ne!(endpoint("10.1.0.2:80", "b").0, first);
        assert_eq!(endpoint("10.1.0.1:80", "a").1, Reach::Http1, "nobody redirects that");
    }

    proptest! {
        #[test]
        fn a_port_is_of_all_services_that_have_it_and_of_none_that_do_not(
            all in prop::collection::vec((0..4usize, 1..3u8, 80..83u16), 0..12),
        ) {
            let names = ["a.x", "b.x", "c.x", "d.x"];
            let services = || names.iter().map(|name| service(name, &[])).collect();
            let instances = all.iter().map(|(service, host, port)| {
                instance(names[*service], &format!("10.1.0.{host}:{port}"), "a")
            });
            let mut builder = builder();
            let owners = |table: &Table, port| {
                let port = table.places.as_ref().unwrap().port(port);
                let names = port.into_iter().flat_map(|port| &port.services);
                names.map(|service| service.name.to_string()).collect::<Vec<_>>()
            };
            let before = table(&mut builder, services(), instances.collect());
            let after = table(&mut builder, services(), vec![]);
            for port in 80..83 {
                let has = |name: &&&str| {
                    all.iter().any(|(s, host, p)| names[*s] == **name && *host == 1 && *p == port)
                };
                let wanted: Vec<_> = names.iter().filter(has).copied().collect();
                prop_assert_eq!(&owners(&before, port), &wanted);
                prop_assert_eq!(&owners(&after, port), &wanted, "it keeps its policies");
            }
        }
    }
}
