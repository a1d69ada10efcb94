//! The routers that are known, kept beside the store so that a restarted control
//! plane serves them at once. Losing this file loses nothing that the routers do not
//! tell again within seconds; so it is not part of the store.

use std::io;
use std::path::Path;

use prost::Message;
use weir_mesh::file;
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::{Registration, Registry, Role};
use crate::files;

/// Name of the file in the data directory.
pub const SAVED_FILE: &str = "routers.bin";

#[derive(Clone, PartialEq, Message)]
struct SavedRouters {
    #[prost(message, repeated, tag = "1")]
    routers: Vec<pb::Hello>,
}

/// Writes all routers that are known.
///
/// # Errors
/// What the file system answers.
pub fn save(registry: &Registry, path: &Path) -> io::Result<()> {
    let routers = registry.look(|all| all.map(|router| hello(&router.registration)).collect());
    file::write_secret(path, SavedRouters { routers }.encode_to_vec())
}

/// Reads them back; none when there is no file or it makes no sense.
///
/// # Errors
/// What the file system answers.
pub fn load(path: &Path) -> io::Result<Vec<Registration>> {
    let contents = files::read(path)?.unwrap_or_default();
    let saved = SavedRouters::decode(contents.as_slice()).unwrap_or_default();
    Ok(saved.routers.iter().filter_map(registration).collect())
}

pub(super) fn hello(registration: &Registration) -> pb::Hello {
    let role = match registration.role {
        Role::Sidecar => pb::hello::Role::Sidecar,
        Role::Gateway => pb::hello::Role::Gateway,
    };
    pb::Hello {
        router_id: registration.id.to_string(),
        role: role.into(),
        instance: registration.instance.as_ref().map(Into::into),
        admin_address: registration.admin_address.to_string(),
        sequence: 0,
        certificate_not_after: registration.certificate_not_after,
        service: registration.service.to_string(),
        ..Default::default()
    }
}

pub(super) fn registration(hello: &pb::Hello) -> Option<Registration> {
    let instance = match &hello.instance {
        Some(instance) => Some(wire::instance(instance, "").ok()?),
        None => None,
    };
    let role = match hello.role() {
        pb::hello::Role::Gateway => Role::Gateway,
        _ => Role::Sidecar,
    };
    Some(Registration {
        id: hello.router_id.as_str().into(),
        role,
        service: hello.service.parse().ok()?,
        instance,
        admin_address: hello.admin_address.as_str().into(),
        certificate_not_after: hello.certificate_not_after,
    })
}
