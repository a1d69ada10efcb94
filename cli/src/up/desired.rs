//! What the mesh file asks of the control plane, next to what people have
//! changed since.

use std::collections::BTreeMap;
use std::path::Path;

use weir_mesh::file::write_secret;
use weir_proto::weir::control::v1::{ApplyRequest, ListServicesResponse, ServiceStatus};
use weir_proto::weir::mesh::v1::Service;

use crate::Error;
use crate::commands::apply::request;
use crate::mesh_file::MeshFile;

/// What the file said of each service's split when it was last applied.
type Applied = BTreeMap<String, String>;

/// The file's state, to be applied whole.
///
/// A split that was shifted by hand stays as it is when a mesh with `--data` is
/// started again, unless the file has changed what it says of that service. So does
/// that of a service that the file does not name and Consul has.
#[must_use]
pub fn apply_request(mesh: &MeshFile, now: &ListServicesResponse, applied: &Path) -> ApplyRequest {
    let before: Applied = std::fs::read(applied)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut request = request(mesh);
    for service in &mut request.services {
        let stored = now
            .services
            .iter()
            .filter_map(|status| Some((status.service.as_ref()?, is_found(status))))
            .find(|(stored, _)| stored.name == service.name);
        if let Some((stored, found)) = stored
            && before.get(&service.name) == Some(&split(service))
            && same_versions(stored, service, found)
        {
            // Weights alone: where a version runs is for the file to say.
            for (version, stored) in service.versions.iter_mut().zip(&stored.versions) {
                version.weight = stored.weight;
            }
            // Versions that Consul has beside those of the file.
            let more = &stored.versions[service.versions.len()..];
            if more.iter().any(|version| version.weight > 0) {
                service.versions.extend(more.iter().cloned());
            }
            service.sticky.clone_from(&stored.sticky);
        }
    }
    let shifted = now.services.iter().filter(|status| is_found(status) && status.revision > 0);
    for stored in shifted.filter_map(|status| status.service.as_ref()) {
        if !request.services.iter().any(|service| service.name == stored.name) {
            request.services.push(stored.clone());
        }
    }
    ApplyRequest { prune: true, reason: "weir up".into(), ..request }
}

/// Remembers what the file said.
///
/// # Errors
/// The file cannot be written.
pub fn remember(mesh: &MeshFile, applied: &Path) -> Result<(), Error> {
    let said: Applied = request(mesh)
        .services
        .iter()
        .map(|service| (service.name.clone(), split(service)))
        .collect();
    serde_json::to_vec(&said)
        .map_err(std::io::Error::from)
        .and_then(|bytes| write_secret(applied, bytes))
        .map_err(|error| Error::new(format!("cannot write {error}")))
}

fn split(service: &Service) -> String {
    format!("{} {:?}", crate::commands::get::weights(&service.versions), service.sticky)
}

/// Whether Consul has it.
fn is_found(status: &ServiceStatus) -> bool {
    status.sources.iter().any(|source| source == "consul")
}

/// Whether `stored` has the versions of the file, and only those; or more behind
/// them, where others are `found`.
fn same_versions(stored: &Service, of_file: &Service, found: bool) -> bool {
    let names = |service: &Service| -> Vec<String> {
        service.versions.iter().map(|version| version.version.clone()).collect()
    };
    let (stored, of_file) = (names(stored), names(of_file));
    if found { stored.starts_with(&of_file) } else { stored == of_file }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::weir::mesh::v1::VersionWeight;

    fn weights(request: &ApplyRequest) -> Vec<i32> {
        let products = request.services.iter().find(|service| service.name == "products").unwrap();
        products.versions.iter().map(|version| version.weight).collect()
    }

    #[test]
    fn a_shift_outlives_a_restart_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let applied = dir.path().join("applied.json");
        let mesh = MeshFile::example().unwrap();
        let mut shifted = request(&mesh).services;
        for service in &mut shifted {
            service.versions[0].weight = 40;
            service.versions[1].weight = 60;
        }
        let now = ListServicesResponse {
            services: shifted
                .into_iter()
                .map(|service| ServiceStatus { service: Some(service), ..Default::default() })
                .collect(),
        };
        assert_eq!(weights(&apply_request(&mesh, &now, &applied)), [100, 0]);
        remember(&mesh, &applied).unwrap();
        assert_eq!(weights(&apply_request(&mesh, &now, &applied)), [40, 60]);
        // The file says where a version runs, whatever its weight is now.
        let mut moved = mesh.clone();
        let products = moved.services.iter_mut().find(|s| s.service.name.as_str() == "products");
        let products = &mut products.unwrap().service;
        let v2 = products.split.versions()[1].0.clone();
        products.addresses.add(&v2, "10.0.0.7:80").unwrap();
        let request = apply_request(&moved, &now, &applied);
        assert_eq!(weights(&request), [40, 60]);
        let products = request.services.iter().find(|service| service.name == "products").unwrap();
        assert_eq!(products.versions[1].addresses, ["10.0.0.7:80"]);

        let text = crate::mesh_file::EXAMPLE.replace("weight: 0", "weight: 5");
        let origin =
            crate::mesh_file::Origin { name: "mesh.yaml", directory: Path::new("."), public: true };
        let changed = MeshFile::parse(&text, origin).unwrap();
        assert_eq!(weights(&apply_request(&changed, &now, &applied)), [100, 5]);
    }
    #[test]
    fn what_consul_has_stays_shifted_too() {
        let dir = tempfile::tempdir().unwrap();
        let applied = dir.path().join("applied.json");
        let mesh = MeshFile::example().unwrap();
        remember(&mesh, &applied).unwrap();
        let version = |name: &str, weight| VersionWeight {
            version: name.into(),
            weight,
            addresses: Vec::new(),
        };
        let found = |service: Service, revision| ServiceStatus {
            service: Some(service),
            revision,
            sources: vec!["mesh".into(), "consul".into()],
            ..Default::default()
        };
        let mut products =
            request(&mesh).services.into_iter().find(|s| s.name == "products").unwrap();
        products.versions[0].weight = 0;
        products.versions.push(version("v3", 7));
        let only = |name: &str| Service {
            name: name.into(),
            versions: vec![version("v1", 1)],
            ..Default::default()
        };
        let services = vec![found(products, 3), found(only("shifted"), 4), found(only("found"), 0)];
        let request = apply_request(&mesh, &ListServicesResponse { services }, &applied);
        assert_eq!(weights(&request), [0, 0, 7]);
        let names: Vec<_> = request.services.iter().map(|service| &*service.name).collect();
        assert!(names.contains(&"shifted") && !names.contains(&"found"), "{names:?}");
    }
}
