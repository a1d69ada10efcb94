//! What the mesh file asks of the control plane, next to what people have
//! changed since.

use std::collections::BTreeMap;
use std::path::Path;

use weir_mesh::file::write_secret;
use weir_proto::weir::control::v1::{ApplyRequest, ListServicesResponse};
use weir_proto::weir::mesh::v1::Service;

use crate::Error;
use crate::commands::apply::request;
use crate::mesh_file::MeshFile;

/// What the file said of each service's split when it was last applied.
type Applied = BTreeMap<String, String>;

/// The file's state, to be applied whole.
///
/// A split that was shifted by hand stays as it is when a mesh with `--data` is
/// started again, unless the file has changed what it says of that service.
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
            .filter_map(|status| status.service.as_ref())
            .find(|stored| stored.name == service.name);
        if let Some(stored) = stored
            && before.get(&service.name) == Some(&split(service))
            && same_versions(stored, service)
        {
            // Weights alone: where a version runs is for the file to say.
            for (version, stored) in service.versions.iter_mut().zip(&stored.versions) {
                version.weight = stored.weight;
            }
            service.sticky.clone_from(&stored.sticky);
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

fn same_versions(one: &Service, other: &Service) -> bool {
    let names = |service: &Service| -> Vec<String> {
        service.versions.iter().map(|version| version.version.clone()).collect()
    };
    names(one) == names(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::weir::control::v1::ServiceStatus;

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
}
