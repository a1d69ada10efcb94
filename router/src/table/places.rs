//! What addresses mean in a pod of Kubernetes: where its connections go, and whose
//! the ports of its own are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_mesh::model::{Protocol, ServiceName, Snapshot};

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
            traffic: service.traffic.clone(),
            transcoder: None,
        })
    }
}

/// Of a snapshot, for a router in `pod`.
pub(super) fn build(
    pod: &Pod,
    snapshot: &Snapshot,
    services: &Map<ServiceName, Destination>,
    inbound_limits: &Map<ServiceName, Arc<[Attachment]>>,
    limits: Vec<Attachment>,
    one: u32,
) -> Places {
    let mut places = Places {
        namespace: pod.namespace.clone(),
        services: Map::default(),
        instances: Map::default(),
        ports: Map::default(),
        opaque_ports: pod.opaque_ports.0.clone(),
        limits,
        one,
    };
    let mut own: BTreeMap<u16, Vec<Arc<ServiceEntry>>> = BTreeMap::new();
    // In the order of their names: of two with one address the first has it.
    for (name, service) in &snapshot.services {
        let Some(Destination { service: entry, .. }) = services.get(name) else { continue };
        for address in &service.virtual_addresses {
            places.services.entry(canonical(*address)).or_insert_with(|| entry.clone());
        }
        for (v, version) in entry.versions.iter().enumerate() {
            for (e, endpoint) in version.endpoints.iter().enumerate() {
                let address = canonical(endpoint.address);
                if Some(address.ip()) == pod.ip {
                    let there = own.entry(address.port()).or_default();
                    if there.last().is_none_or(|last| last.name != entry.name) {
                        there.push(entry.clone());
                    }
                }
                places.instances.entry(address).or_insert_with(|| (entry.clone(), v, e));
            }
        }
    }
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
