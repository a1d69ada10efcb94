//! What was known of Consul, kept beside the store, so that a control plane that
//! starts while Consul is away serves what it knew.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use weir_mesh::file;
use weir_mesh::model::{Instance, Protocol, ServiceName, Transport};

use super::answer::Seen;
use crate::files;
use crate::store::{Discovered, Found};

/// Name of the file in the data directory.
pub const FILE: &str = "consul.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    services: BTreeMap<String, SavedService>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedService {
    protocol: String,
    instances: Vec<SavedInstance>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedInstance {
    id: String,
    version: String,
    address: SocketAddr,
    #[serde(default)]
    mesh: bool,
    #[serde(default)]
    zone: String,
    healthy: bool,
}

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("http1", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("tcp", Protocol::Tcp),
];

/// Writes it down.
///
/// # Errors
/// What the file system answers.
pub fn save(path: &Path, discovered: &Discovered) -> io::Result<()> {
    let service = |found: &Found| SavedService {
        protocol: PROTOCOLS
            .iter()
            .find(|(_, protocol)| *protocol == found.protocol)
            .map_or_else(String::new, |(name, _)| (*name).to_owned()),
        instances: found.instances.iter().map(instance).collect(),
    };
    let services =
        discovered.services.iter().map(|(name, found)| (name.to_string(), service(found)));
    let saved = Saved { services: services.collect() };
    file::write_atomic(path, serde_json::to_vec(&saved)?)
}

fn instance(instance: &Instance) -> SavedInstance {
    SavedInstance {
        id: instance.id.to_string(),
        version: instance.version.to_string(),
        address: instance.address,
        mesh: instance.transport == Transport::Mesh,
        zone: instance.zone.to_string(),
        healthy: instance.healthy,
    }
}

/// Reads it back; nothing when there is no file or it makes no sense: Consul tells
/// it again.
#[must_use]
pub fn load(path: &Path) -> BTreeMap<ServiceName, Vec<Seen>> {
    let contents = files::read(path).ok().flatten().unwrap_or_default();
    let saved: Saved = serde_json::from_slice(&contents).unwrap_or_default();
    let mut services = BTreeMap::new();
    for (name, service) in saved.services {
        let Ok(name) = name.parse::<ServiceName>() else { continue };
        let protocol = PROTOCOLS.iter().find(|(known, _)| *known == service.protocol);
        let protocol = protocol.map(|(_, protocol)| *protocol);
        let seen = service.instances.into_iter().filter_map(|saved| {
            let instance = Instance {
                id: saved.id.into(),
                service: name.clone(),
                version: saved.version.parse().ok()?,
                address: saved.address,
                transport: if saved.mesh { Transport::Mesh } else { Transport::Plain },
                zone: saved.zone.into(),
                healthy: saved.healthy,
                identity: None,
            };
            Some(Seen { instance, protocol })
        });
        services.insert(name.clone(), seen.collect());
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_saved_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert!(load(&path).is_empty());
        let name: ServiceName = "web".parse().unwrap();
        let instance = Instance {
            id: "consul:n/a".into(),
            service: name.clone(),
            version: "v2".parse().unwrap(),
            address: ([10, 0, 0, 1], 80).into(),
            transport: Transport::Mesh,
            zone: "eu".into(),
            healthy: true,
            identity: None,
        };
        let instances = vec![instance.clone()];
        let found = Found { protocol: Protocol::Tcp, instances, missed: BTreeSet::new() };
        save(&path, &Discovered { services: [(name.clone(), found)].into() }).unwrap();
        let seen = load(&path).remove(&name).unwrap();
        assert_eq!(seen, [Seen { instance, protocol: Some(Protocol::Tcp) }]);
        std::fs::write(&path, "{").unwrap();
        assert!(load(&path).is_empty());
    }
}
