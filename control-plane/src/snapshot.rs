//! Desired state + registry -> what routers need. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use weir_mesh::model::{BackendRef, Instance, Parent, Route, Snapshot};
use weir_proto::weir::mesh::v1 as pb;

use crate::registry::Role;
use crate::store::Desired;

/// Why a desired state makes no snapshot. `Display` says what is wrong without
/// saying where: [`SnapshotError::field`] does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::enum_variant_names, reason = "each is something that is not known")]
pub enum SnapshotError {
    /// A backend names a service that is not there.
    #[error("no service {service:?}; {}", known("services", services))]
    UnknownService {
        /// Where.
        at: BackendPath,
        /// What it names.
        service: String,
        /// What is there.
        services: Vec<String>,
    },
    /// A parent names a service that is not there: the route would do nothing.
    #[error("no service {service:?}; {}", known("services", services))]
    UnknownParent {
        /// The route's name.
        route: Arc<str>,
        /// From 0.
        parent: usize,
        /// What it names.
        service: String,
        /// What is there.
        services: Vec<String>,
    },
    /// A backend names a version that its service does not have.
    #[error("no such version {version:?}; {service} has {}", versions.join(", "))]
    UnknownVersion {
        /// Where.
        at: BackendPath,
        /// Whose version.
        service: String,
        /// What it names.
        version: String,
        /// What is there.
        versions: Vec<String>,
    },
}

fn known(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        format!("there are no {what}")
    } else {
        format!("{what}: {}", names.join(", "))
    }
}

/// One backend of one rule of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendPath {
    /// The route's name.
    pub route: Arc<str>,
    /// From 0.
    pub rule: usize,
    /// From 0.
    pub backend: usize,
}

impl SnapshotError {
    /// Which route it is in.
    #[must_use]
    pub fn route(&self) -> &Arc<str> {
        match self {
            Self::UnknownService { at, .. } | Self::UnknownVersion { at, .. } => &at.route,
            Self::UnknownParent { route, .. } => route,
        }
    }

    /// The path of the field below the route: `rules[1].backendRefs[0].service`.
    #[must_use]
    pub fn field(&self) -> String {
        let (at, field) = match self {
            Self::UnknownService { at, .. } => (at, "service"),
            Self::UnknownVersion { at, .. } => (at, "version"),
            Self::UnknownParent { parent, .. } => return format!("parentRefs[{parent}].name"),
        };
        format!("rules[{}].backendRefs[{}].{field}", at.rule, at.backend)
    }
}

/// Everything that keeps a desired state from making a snapshot.
#[must_use]
pub fn check(desired: &Desired) -> Vec<SnapshotError> {
    let mut errors = Vec::new();
    for (name, route) in &desired.routes {
        errors.extend(check_parents(desired, name, &route.value));
        for (rule, content) in route.value.rules.iter().enumerate() {
            for (backend, content) in content.backends.iter().enumerate() {
                let at = BackendPath { route: name.clone(), rule, backend };
                errors.extend(check_backend(desired, content, at));
            }
        }
    }
    errors
}

fn check_parents<'a>(
    desired: &'a Desired,
    name: &'a Arc<str>,
    route: &'a Route,
) -> impl Iterator<Item = SnapshotError> + 'a {
    route.parents.iter().enumerate().filter_map(|(parent, named)| match named {
        Parent::Service(service) if !desired.services.contains_key(service) => {
            Some(SnapshotError::UnknownParent {
                route: name.clone(),
                parent,
                service: service.to_string(),
                services: desired.services.keys().map(ToString::to_string).collect(),
            })
        }
        Parent::Service(_) | Parent::Gateway => None,
    })
}

fn check_backend(
    desired: &Desired,
    backend: &BackendRef,
    at: BackendPath,
) -> Option<SnapshotError> {
    let Some(service) = desired.services.get(&backend.service) else {
        let services = desired.services.keys().map(ToString::to_string).collect();
        let service = backend.service.to_string();
        return Some(SnapshotError::UnknownService { at, service, services });
    };
    let version = backend.version.as_ref()?;
    let split = &service.value.split;
    if split.weight(version.as_str()).is_some() {
        return None;
    }
    Some(SnapshotError::UnknownVersion {
        at,
        service: backend.service.to_string(),
        version: version.to_string(),
        versions: split.versions().iter().map(|(name, _)| name.to_string()).collect(),
    })
}

/// Makes the snapshot. Instances of services that are not desired are left out:
/// their routers may be earlier than their service, or later.
///
/// # Errors
/// The first of [`check`]'s.
pub fn build(
    desired: &Desired,
    instances: Vec<Instance>,
    trust_bundle: &[Bytes],
    trust_domain: &Arc<str>,
    sequence: u64,
) -> Result<Snapshot, SnapshotError> {
    if let Some(error) = check(desired).into_iter().next() {
        return Err(error);
    }
    let services: BTreeMap<_, _> =
        desired.services.iter().map(|(name, held)| (name.clone(), (*held.value).clone())).collect();
    Ok(Snapshot {
        sequence,
        revision: desired.revision,
        trust_domain: trust_domain.clone(),
        instances: instances.into_iter().filter(|i| services.contains_key(&i.service)).collect(),
        services,
        routes: desired.routes.values().map(|held| (*held.value).clone()).collect(),
        options: desired.options.clone(),
        trust_bundle: trust_bundle.to_vec(),
    })
}

/// What is sent to routers of a role. Only gateways map JSON, so only they get
/// descriptor sets, which are most of the bytes.
#[must_use]
pub fn encode(snapshot: &Snapshot, role: Role) -> Bytes {
    let mut message = pb::Snapshot::from(snapshot);
    if role == Role::Sidecar {
        for service in &mut message.services {
            service.descriptor_set = Bytes::new();
        }
    }
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Edit, Object, ObjectKey};
    use weir_mesh::wire;

    fn desired() -> Desired {
        let service = pb::Service {
            name: "products".into(),
            protocol: pb::Protocol::Grpc.into(),
            versions: vec![pb::VersionWeight { version: "v1".into(), weight: 1 }],
            sticky: None,
            descriptor_set: Bytes::from_static(b"large"),
        };
        let service = wire::service(&service, "").unwrap();
        let mut desired = Desired::default();
        let key = ObjectKey::Service(service.name.clone());
        desired.set(&Edit { key, after: Some(Object::Service(Arc::new(service))) }, 3);
        desired
    }

    fn instance(id: &str, service: &str) -> Instance {
        Instance {
            id: id.into(),
            service: service.parse().unwrap(),
            version: "v1".parse().unwrap(),
            address: ([127, 0, 0, 1], 1).into(),
            zone: "".into(),
            healthy: false,
        }
    }

    #[test]
    fn it_is_what_routers_accept_and_only_gateways_get_descriptor_sets() {
        let instances = vec![instance("a", "products"), instance("b", "stranger")];
        let root = Bytes::from_static(b"root");
        let snapshot = build(&desired(), instances, &[root], &"weir.local".into(), 9).unwrap();
        assert_eq!((snapshot.sequence, snapshot.revision), (9, 3));
        assert_eq!(snapshot.instances.len(), 1, "an unhealthy one stays, a stranger does not");
        for (role, set) in [(Role::Sidecar, &b""[..]), (Role::Gateway, b"large")] {
            let message = pb::Snapshot::decode(encode(&snapshot, role)).unwrap();
            assert_eq!(message.services[0].descriptor_set, set);
            wire::snapshot(&message).unwrap();
        }
    }

    #[test]
    fn a_backend_that_is_not_there_is_named() {
        let mut desired = desired();
        let backend = |service: &str, version: &str| pb::BackendRef {
            service: service.into(),
            version: version.into(),
            weight: 1,
        };
        let route = pb::Route {
            name: "web".into(),
            parent_refs: vec![pb::ParentRef { kind: "Gateway".into(), name: "gateway".into() }],
            rules: vec![pb::RouteRule {
                backend_refs: vec![backend("nobody", ""), backend("products", "v9")],
                ..Default::default()
            }],
            ..Default::default()
        };
        let route = wire::route(&route, "").unwrap();
        let key = ObjectKey::Route("web".into());
        desired.set(&Edit { key, after: Some(Object::Route(Arc::new(route))) }, 4);
        let errors: Vec<_> =
            check(&desired).iter().map(|e| format!("{}: {e}", e.field())).collect();
        assert_eq!(
            errors,
            [
                "rules[0].backendRefs[0].service: no service \"nobody\"; services: products",
                "rules[0].backendRefs[1].version: no such version \"v9\"; products has v1",
            ]
        );
        assert!(build(&desired, vec![], &[], &"weir.local".into(), 1).is_err());
    }
}
