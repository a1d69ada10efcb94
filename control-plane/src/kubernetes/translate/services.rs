//! Services and their ports: which names, addresses and protocols they have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use weir_mesh::model::{Protocol, ServiceName};

use super::json::{annotation, list, port, text};
use super::{Warning, protocol};
use crate::kubernetes::objects::{Kind, Objects};

/// One TCP port of a Service.
pub(super) struct Port<'a> {
    pub number: u16,
    /// Empty when the Service has only one.
    pub name: &'a str,
    pub service: ServiceName,
    /// None: the Service does not say; then routes do.
    declared: Option<Protocol>,
}

/// One Service that has ports of the mesh.
pub(super) struct KubeService<'a> {
    /// Never empty; the first has the bare name.
    pub ports: Vec<Port<'a>>,
    addresses: Vec<IpAddr>,
}

impl KubeService<'_> {
    pub fn port(&self, number: u16) -> Option<&Port<'_>> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// What stands for one of its ports.
    pub fn virtual_addresses(&self, port: &Port<'_>) -> Vec<SocketAddr> {
        self.addresses.iter().map(|ip| SocketAddr::new(*ip, port.number)).collect()
    }
}

/// All Services of the mesh, by namespace and name.
pub(super) struct Services<'a> {
    known: BTreeMap<&'a str, BTreeMap<&'a str, KubeService<'a>>>,
    /// By routes, where a Service does not say.
    told: BTreeMap<ServiceName, Protocol>,
}

impl<'a> Services<'a> {
    pub fn read(objects: &'a Objects, warnings: &mut Vec<Warning>) -> Self {
        let mut known: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (namespace, name, object) in objects.all(Kind::Service) {
            let spec = &object["spec"];
            if text(spec, "type") == "ExternalName" {
                continue;
            }
            let said = annotation(object, "weir.dev/opaque-ports").map(opaque_ports);
            let opaque = said.unwrap_or_else(|| Ok(BTreeSet::new())).unwrap_or_else(|why| {
                // The Service and its policies stay: a slip must not open anything.
                warnings.push(Warning::new(Kind::Service, namespace, name, why));
                BTreeSet::new()
            });
            let ports = match ports(namespace, name, object, &opaque) {
                Ok(ports) => ports,
                Err(why) => {
                    warnings.push(Warning::new(Kind::Service, namespace, name, why));
                    continue;
                }
            };
            if !ports.is_empty() {
                let addresses = addresses(spec);
                let service = KubeService { ports, addresses };
                known.entry(namespace).or_default().insert(name, service);
            }
        }
        Self { known, told: BTreeMap::new() }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&KubeService<'a>> {
        self.known.get(namespace)?.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str, &KubeService<'a>)> {
        self.known.iter().flat_map(|(namespace, services)| {
            services.iter().map(|(name, service)| (*namespace, *name, service))
        })
    }

    /// Notes what a route says that has a port as parent or backend; none: all ports.
    /// What is gRPC is also HTTP, and both are also bytes, not the other way round.
    pub fn tell(&mut self, namespace: &str, name: &str, number: Option<u16>, protocol: Protocol) {
        let service = self.known.get(namespace).and_then(|services| services.get(name));
        let Some(service) = service else { return };
        let meant = |port: &&Port<'_>| number.is_none_or(|number| port.number == number);
        for port in service.ports.iter().filter(meant).filter(|port| port.declared.is_none()) {
            let told = self.told.entry(port.service.clone()).or_insert(protocol);
            if protocol == Protocol::Grpc || *told == Protocol::Tcp {
                *told = protocol;
            }
        }
    }

    /// What a port speaks.
    pub fn protocol(&self, port: &Port<'_>) -> Protocol {
        let told = || self.told.get(&port.service).copied();
        port.declared.or_else(told).unwrap_or_else(|| protocol::by_number(port.number))
    }
}

fn ports<'a>(
    namespace: &str,
    name: &str,
    object: &'a Value,
    opaque: &BTreeSet<u16>,
) -> Result<Vec<Port<'a>>, String> {
    let mut ports: Vec<Port<'a>> = Vec::new();
    for sent in list(&object["spec"], "ports") {
        if !matches!(text(sent, "protocol"), "" | "TCP") {
            continue;
        }
        let Some(number) = port(sent, "port") else { continue };
        if ports.iter().any(|port| port.number == number) {
            continue;
        }
        let service = match ports.is_empty() {
            true => format!("{name}.{namespace}"),
            false => format!("{name}.{namespace}:{number}"),
        };
        let service = service.parse().map_err(|error| {
            format!("its name cannot be one of the mesh: {error}; rename the Service")
        })?;
        let declared = match opaque.contains(&number) {
            true => Some(Protocol::Tcp),
            false => protocol::declared(text(sent, "appProtocol"), text(sent, "name")),
        };
        ports.push(Port { number, name: text(sent, "name"), service, declared });
    }
    Ok(ports)
}

fn opaque_ports(text: &str) -> Result<BTreeSet<u16>, String> {
    let numbers = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let numbers = numbers.map(|part| {
        part.parse().map_err(|_| {
            format!(
                "metadata.annotations[\"weir.dev/opaque-ports\"]: {part:?} is no port; \
                 write numbers with commas, such as 3306,6379"
            )
        })
    });
    numbers.collect()
}

/// Cluster addresses; a headless Service has none.
fn addresses(spec: &Value) -> Vec<IpAddr> {
    let several = list(spec, "clusterIPs").iter().filter_map(Value::as_str);
    let mut found: Vec<IpAddr> = Vec::new();
    for text in several.chain([text(spec, "clusterIP")]) {
        if let Ok(ip) = text.parse::<IpAddr>()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}
