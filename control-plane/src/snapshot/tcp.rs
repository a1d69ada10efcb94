//! What TCPRoutes and TLSRoutes name and is not there, or takes no connections.

use weir_mesh::model::{Protocol, ServiceName, TcpParent, TcpRoute, VersionName};

use super::{SnapshotError, known, services};
use crate::store::Desired;

/// Everything that a desired state's routes of connections name and it does not
/// have.
pub(super) fn check(desired: &Desired) -> Vec<SnapshotError> {
    desired.tcp_routes.values().flat_map(|held| check_tcp(desired, &held.value)).collect()
}

/// The first backend that is not there: every router would refuse it.
pub(super) fn dangling_backend(desired: &Desired) -> Option<SnapshotError> {
    let mut routes = desired.tcp_routes.values();
    routes.find_map(|held| {
        let backends = held.value.backends.iter().enumerate();
        backends.filter(|(_, backend)| backend.invalid.is_none()).find_map(|(i, backend)| {
            let (field, why) = missing(desired, &backend.service, backend.version.as_ref())?;
            Some(error(&held.value, format!("backendRefs[{i}].{field}"), why))
        })
    })
}

/// What one route names and is not there, or speaks something else than `tcp`.
#[must_use]
pub fn check_tcp(desired: &Desired, route: &TcpRoute) -> Vec<SnapshotError> {
    let mut errors = Vec::new();
    for (i, parent) in route.parents.iter().enumerate() {
        if let TcpParent::Service(name) = parent
            && let Some(why) = no_tcp_service(desired, name)
        {
            errors.push(error(route, format!("parentRefs[{i}].name"), why));
        }
    }
    for (i, backend) in route.backends.iter().enumerate().filter(|(_, b)| b.invalid.is_none()) {
        let found = missing(desired, &backend.service, backend.version.as_ref());
        let other = || Some(("service", no_tcp_service(desired, &backend.service)?));
        if let Some((field, why)) = found.or_else(other) {
            errors.push(error(route, format!("backendRefs[{i}].{field}"), why));
        }
    }
    errors
}

fn error(route: &TcpRoute, field: String, why: String) -> SnapshotError {
    SnapshotError::Dangling { route: route.name.clone(), field, why }
}

fn no_tcp_service(desired: &Desired, name: &ServiceName) -> Option<String> {
    match desired.services.get(name) {
        None => Some(no_service(desired, name)),
        Some(held) if held.value.protocol != Protocol::Tcp => Some(format!(
            "the protocol of {name} is not tcp; requests need an HTTPRoute or GRPCRoute"
        )),
        Some(_) => None,
    }
}

fn missing(
    desired: &Desired,
    service: &ServiceName,
    version: Option<&VersionName>,
) -> Option<(&'static str, String)> {
    let Some(held) = desired.services.get(service) else {
        return Some(("service", no_service(desired, service)));
    };
    let version = version?;
    let split = &held.value.split;
    if split.weight(version.as_str()).is_some() {
        return None;
    }
    let versions: Vec<_> = split.versions().iter().map(|(name, _)| name.as_str()).collect();
    let there = versions.join(", ");
    Some(("version", format!("no such version {:?}; {service} has {there}", version.as_str())))
}

fn no_service(desired: &Desired, name: &ServiceName) -> String {
    format!("no service {:?}; {}", name.as_str(), known("services", &services(desired)))
}
