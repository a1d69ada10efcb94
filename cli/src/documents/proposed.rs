//! Snapshots as routers would get them, of documents that nobody has applied.

use bytes::Bytes;
use weir_mesh::model::{Invalid, Snapshot};
use weir_mesh::wire;
use weir_proto::weir::control::v1::{GetServiceRequest, GetSnapshotRequest};
use weir_proto::weir::mesh::v1::Protocol;

use super::{Documents, Object};
use crate::Error;
use crate::client::Client;
use crate::mesh_file::MeshFile;

/// The trust domain of a mesh whose file names none.
const TRUST_DOMAIN: &str = "weir.local";

/// What the routers of a mesh have now. `descriptors`: with those of its gRPC
/// services, which only gateways need.
///
/// # Errors
/// The API's; or it answers with what this program does not know.
pub async fn of_mesh(client: &mut Client, descriptors: bool) -> Result<Snapshot, Error> {
    let mut message = client.get_snapshot(GetSnapshotRequest {}).await?.into_inner();
    if descriptors {
        for service in message.services.iter_mut().filter(|s| s.protocol() == Protocol::Grpc) {
            let request = GetServiceRequest { service: service.name.clone() };
            service.descriptor_set = client.get_service(request).await?.into_inner().descriptor_set;
        }
    }
    wire::snapshot(&message).map_err(|why| {
        Error::new(format!(
            "the control plane's snapshot says what this program does not know; use the program \
             of the control plane's version ({why})"
        ))
    })
}

/// What the routers of a mesh would have that is all in files. Where its programs
/// run is not known before they do.
#[must_use]
pub fn of_file(mesh: &MeshFile) -> Snapshot {
    let services = mesh.services.iter().map(|spec| spec.service.clone());
    let services: std::collections::BTreeMap<_, _> =
        services.map(|service| (service.name.clone(), service)).collect();
    Snapshot {
        sequence: 0,
        revision: 0,
        trust_domain: mesh.trust_domain.as_deref().unwrap_or(TRUST_DOMAIN).into(),
        instances: services
            .iter()
            .flat_map(|(name, service)| service.addresses.instances(name))
            .collect(),
        services,
        routes: mesh.routes.clone(),
        policies: mesh.policies.clone(),
        tcp_routes: mesh.tcp_routes.clone(),
        listeners: Vec::new(),
        options: mesh.options.clone(),
        trust_bundle: Vec::<Bytes>::new(),
    }
}

/// What it would become by applying documents: those of the same name are
/// replaced, the others stay.
#[must_use]
pub fn with(mut snapshot: Snapshot, documents: &Documents) -> Snapshot {
    if let Some((_, mesh)) = &documents.mesh {
        let of_file = of_file(mesh);
        for (name, mut service) in of_file.services {
            let known = snapshot.services.get(&name);
            if let Some(known) = known.filter(|_| service.descriptor_set.is_empty()) {
                service.descriptor_set = known.descriptor_set.clone();
            }
            snapshot.services.insert(name, service);
        }
        snapshot.options = of_file.options;
        of_file.routes.into_iter().for_each(|route| put(&mut snapshot, Object::Route(route)));
        of_file.tcp_routes.into_iter().for_each(|r| put(&mut snapshot, Object::TcpRoute(r)));
        of_file.policies.into_iter().for_each(|policy| put(&mut snapshot, Object::Policy(policy)));
    }
    for (_, object) in &documents.objects {
        put(&mut snapshot, object.clone());
    }
    snapshot
}

fn put(snapshot: &mut Snapshot, object: Object) {
    match object {
        Object::Route(route) => {
            snapshot.routes.retain(|other| other.name != route.name);
            snapshot.routes.push(route);
        }
        Object::TcpRoute(route) => {
            snapshot.tcp_routes.retain(|other| other.name != route.name);
            snapshot.tcp_routes.push(route);
        }
        Object::Policy(policy) => {
            let same = |other: &weir_mesh::policy::Policy| {
                other.kind == policy.kind && other.name == policy.name
            };
            snapshot.policies.retain(|other| !same(other));
            snapshot.policies.push(policy);
        }
        // Routers never see it.
        Object::Rollout { .. } => {}
    }
}

/// Compiles a snapshot.
///
/// # Errors
/// What a router would refuse it for.
pub fn compile(snapshot: Snapshot) -> Result<weir_router::explain::Compiled, Error> {
    weir_router::explain::Compiled::new(snapshot).map_err(|invalid: Invalid| {
        Error::new("a router would refuse this configuration")
            .with(invalid.0.iter().map(ToString::to_string))
    })
}
