//! Desired state + registry -> what routers need. Pure.

pub mod policies;
mod tcp;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
#[cfg(test)]
use prost::Message as _;
use weir_mesh::model::{Instance, Route, RouteFilter, ServiceName, Snapshot, VersionName};
use weir_mesh::policy::PolicyKind;
use weir_proto::weir::mesh::v1 as pb;

use crate::registry::Role;
use crate::store::Desired;
pub use tcp::check_tcp;

/// Why a desired state makes no snapshot. `Display` says what is wrong without
/// saying where: [`SnapshotError::field`] does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// A TCPRoute or TLSRoute names what is not there, or what takes no connections;
    /// or a rule refers to a filter that is not there.
    #[error("{why}")]
    Dangling {
        /// The route's name.
        route: Arc<str>,
        /// Below the route.
        field: String,
        /// What is wrong.
        why: String,
    },
}

fn known(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        format!("there are no {what}")
    } else {
        format!("{what}: {}", names.join(", "))
    }
}

/// One backend or mirror of one rule of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendPath {
    /// The route's name.
    pub route: Arc<str>,
    /// From 0.
    pub rule: usize,
    /// Below the rule: `backendRefs[0]`, `filters[1].requestMirror`.
    pub place: String,
}

impl SnapshotError {
    /// Which route it is in.
    #[must_use]
    pub fn route(&self) -> &Arc<str> {
        match self {
            Self::UnknownService { at, .. } | Self::UnknownVersion { at, .. } => &at.route,
            Self::UnknownParent { route, .. } | Self::Dangling { route, .. } => route,
        }
    }

    /// The path of the field below the route: `rules[1].backendRefs[0].service`.
    #[must_use]
    pub fn field(&self) -> String {
        let (at, field) = match self {
            Self::UnknownService { at, .. } => (at, "service"),
            Self::UnknownVersion { at, .. } => (at, "version"),
            Self::Dangling { field, .. } => return field.clone(),
            Self::UnknownParent { parent, .. } => return format!("parentRefs[{parent}].name"),
        };
        format!("rules[{}].{}.{field}", at.rule, at.place)
    }
}

/// Everything that a desired state names and does not have.
#[must_use]
pub fn check(desired: &Desired) -> Vec<SnapshotError> {
    let mut errors = Vec::new();
    for (name, route) in &desired.routes {
        for (parent, named) in route.value.parents.iter().enumerate() {
            if let Some(service) = named.service() {
                errors.extend(check_parent(desired, name, parent, service));
            }
        }
        errors.extend(check_backends(desired, name, &route.value));
    }
    errors.extend(tcp::check(desired));
    errors
}

/// What [`check`] finds in `after` that it did not find in `before`: what an older
/// Weir let in must not keep every later change out.
#[must_use]
pub fn introduced(before: &Desired, after: &Desired) -> Vec<SnapshotError> {
    let mut errors = check(after);
    if !errors.is_empty() {
        let place = |error: &SnapshotError| (error.route().clone(), error.field());
        let old: HashSet<_> = check(before).iter().map(place).collect();
        errors.retain(|error| !old.contains(&place(error)));
    }
    errors
}

/// What a route as sent names that is not there, whatever else may be wrong with
/// it. What cannot be a name at all is left to [`weir_mesh::wire::route`].
#[must_use]
pub fn check_sent(desired: &Desired, message: &pb::Route) -> Vec<SnapshotError> {
    let name: Arc<str> = message.name.as_str().into();
    let mut errors = Vec::new();
    for (parent, sent) in message.parent_refs.iter().enumerate() {
        if let ("Service", Ok(service)) = (sent.kind.as_str(), sent.name.parse()) {
            errors.extend(check_parent(desired, &name, parent, &service));
        }
    }
    let mut check = |rule, place: String, service: &str, version: &str| {
        if let Ok(service) = service.parse() {
            let at = BackendPath { route: name.clone(), rule, place };
            errors.extend(check_backend(desired, &service, version.parse().ok().as_ref(), at));
        }
    };
    for (rule, content) in message.rules.iter().enumerate() {
        for (place, mirror) in mirrors("", &content.filters) {
            check(rule, place, &mirror.service, &mirror.version);
        }
        for (i, sent) in content.backend_refs.iter().enumerate() {
            let place = format!("backendRefs[{i}]");
            for (place, mirror) in mirrors(&format!("{place}."), &sent.filters) {
                check(rule, place, &mirror.service, &mirror.version);
            }
            if sent.invalid.is_empty() {
                check(rule, place, &sent.service, &sent.version);
            }
        }
    }
    errors
}

/// The mirrors among filters, with their places.
fn mirrors<'a>(
    at: &'a str,
    filters: &'a [pb::RouteFilter],
) -> impl Iterator<Item = (String, &'a pb::RequestMirror)> {
    filters.iter().enumerate().filter_map(move |(i, filter)| match &filter.filter {
        Some(pb::route_filter::Filter::RequestMirror(mirror)) => {
            Some((format!("{at}filters[{i}].requestMirror"), mirror))
        }
        _ => None,
    })
}

fn services(desired: &Desired) -> Vec<String> {
    desired.services.keys().map(ToString::to_string).collect()
}

fn check_parent(
    desired: &Desired,
    route: &Arc<str>,
    parent: usize,
    service: &ServiceName,
) -> Option<SnapshotError> {
    (!desired.services.contains_key(service)).then(|| SnapshotError::UnknownParent {
        route: route.clone(),
        parent,
        service: service.to_string(),
        services: services(desired),
    })
}

fn check_backends(desired: &Desired, name: &Arc<str>, route: &Route) -> Vec<SnapshotError> {
    let mut errors = Vec::new();
    for (rule, content) in route.rules.iter().enumerate() {
        for (place, service, version) in content.targets() {
            let at = BackendPath { route: name.clone(), rule, place };
            errors.extend(check_backend(desired, service, version, at));
        }
        for (i, filter) in content.filters.iter().enumerate() {
            if let RouteFilter::Extension { name: wanted, .. } = filter
                && !desired.policies.contains_key(&(PolicyKind::Filter, wanted.clone()))
            {
                let there = desired.policies.keys().filter(|(kind, _)| *kind == PolicyKind::Filter);
                let names: Vec<_> = there.map(|(_, name)| name.to_string()).collect();
                errors.push(SnapshotError::Dangling {
                    route: name.clone(),
                    field: format!("rules[{rule}].filters[{i}].extensionRef.name"),
                    why: format!("no HTTPRouteFilter {wanted:?}; {}", known("filters", &names)),
                });
            }
        }
    }
    errors
}

fn check_backend(
    desired: &Desired,
    service: &ServiceName,
    version: Option<&VersionName>,
    at: BackendPath,
) -> Option<SnapshotError> {
    let Some(held) = desired.services.get(service) else {
        let service = service.to_string();
        return Some(SnapshotError::UnknownService { at, service, services: services(desired) });
    };
    let version = version?;
    let split = &held.value.split;
    if split.weight(version.as_str()).is_some() {
        return None;
    }
    Some(SnapshotError::UnknownVersion {
        at,
        service: service.to_string(),
        version: version.to_string(),
        versions: split.versions().iter().map(|(name, _)| name.to_string()).collect(),
    })
}

/// Makes the snapshot, of `instances` that routers registered and those that have
/// no router or were found elsewhere. Instances of services that are not desired are left out: their
/// routers may be earlier than their service, or later.
///
/// # Errors
/// The first backend that is not there, which every router would refuse. A parent
/// that is not there makes a route do nothing, and keeps no snapshot back.
pub fn build(
    desired: &Desired,
    instances: Vec<Instance>,
    trust_bundle: &[Bytes],
    trust_domain: &Arc<str>,
    sequence: u64,
) -> Result<Snapshot, SnapshotError> {
    for (name, route) in &desired.routes {
        if let Some(error) = check_backends(desired, name, &route.value).into_iter().next() {
            return Err(error);
        }
    }
    if let Some(error) = tcp::dangling_backend(desired) {
        return Err(error);
    }
    let services: BTreeMap<_, _> =
        desired.services.iter().map(|(name, held)| (name.clone(), (*held.value).clone())).collect();
    Ok(Snapshot {
        sequence,
        revision: desired.newest_change,
        trust_domain: trust_domain.clone(),
        instances: desired
            .with_instances(instances)
            .into_iter()
            .filter(|i| services.contains_key(&i.service))
            .collect(),
        services,
        routes: desired.routes.values().map(|held| (*held.value).clone()).collect(),
        policies: desired.policies.values().map(|held| (*held.value).clone()).collect(),
        tcp_routes: desired.tcp_routes.values().map(|held| (*held.value).clone()).collect(),
        options: desired.options.clone(),
        listeners: desired.listeners.clone(),
        trust_bundle: trust_bundle.to_vec(),
    })
}

/// What is sent to routers of a role. Only gateways map JSON, so only they get
/// descriptor sets, which are most of the bytes.
#[must_use]
pub fn message(snapshot: &Snapshot, role: Role) -> pb::Snapshot {
    let mut message = pb::Snapshot::from(snapshot);
    if role == Role::Sidecar {
        for service in &mut message.services {
            service.descriptor_set = Bytes::new();
        }
        message.listeners = Vec::new();
    }
    message
}

/// The same as bytes.
#[cfg(test)]
pub fn encode(snapshot: &Snapshot, role: Role) -> Bytes {
    message(snapshot, role).encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Edit, Object, ObjectKey};
    use weir_mesh::model::Transport;
    use weir_mesh::wire;

    fn desired() -> Desired {
        let service = pb::Service {
            name: "products".into(),
            protocol: pb::Protocol::Grpc.into(),
            versions: vec![pb::VersionWeight {
                version: "v1".into(),
                weight: 1,
                addresses: vec!["10.0.0.7:80".into()],
            }],
            sticky: None,
            descriptor_set: Bytes::from_static(b"large"),
            ..Default::default()
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
            transport: Transport::Mesh,
            zone: "".into(),
            healthy: false,
            identity: None,
        }
    }

    #[test]
    fn it_is_what_routers_accept_and_only_gateways_get_descriptor_sets() {
        let instances = vec![instance("a", "products"), instance("b", "stranger")];
        let root = Bytes::from_static(b"root");
        let snapshot = build(&desired(), instances, &[root], &"weir.local".into(), 9).unwrap();
        assert_eq!((snapshot.sequence, snapshot.revision), (9, 3));
        let ids: Vec<_> = snapshot.instances.iter().map(|i| (&*i.id, i.transport)).collect();
        let plain = ("products-v1@10.0.0.7:80", Transport::Plain);
        assert_eq!(ids, [("a", Transport::Mesh), plain], "unhealthy stays, a stranger does not");
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
            ..Default::default()
        };
        let mirror = pb::RequestMirror { service: "lost".into(), ..Default::default() };
        let mirror = pb::route_filter::Filter::RequestMirror(mirror);
        let late = pb::BackendRef { invalid: "it is gone".into(), ..backend("gone", "") };
        let route = pb::Route {
            name: "web".into(),
            parent_refs: vec![pb::ParentRef {
                kind: "Gateway".into(),
                name: "gateway".into(),
                ..Default::default()
            }],
            rules: vec![pb::RouteRule {
                filters: vec![pb::RouteFilter { filter: Some(mirror) }],
                backend_refs: vec![backend("nobody", ""), backend("products", "v9"), late],
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
                "rules[0].filters[0].requestMirror.service: no service \"lost\"; services: products",
                "rules[0].backendRefs[0].service: no service \"nobody\"; services: products",
                "rules[0].backendRefs[1].version: no such version \"v9\"; products has v1",
            ]
        );
        assert!(build(&desired, vec![], &[], &"weir.local".into(), 1).is_err());
    }

    #[test]
    fn a_lost_parent_of_an_older_weir_keeps_nothing_back() {
        let before = desired();
        let route = pb::Route {
            name: "ghost".into(),
            parent_refs: vec![pb::ParentRef {
                kind: "Service".into(),
                name: "nobody".into(),
                ..Default::default()
            }],
            rules: vec![pb::RouteRule {
                backend_refs: vec![pb::BackendRef {
                    service: "products".into(),
                    weight: 1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let value = Arc::new(wire::route(&route, "").unwrap());
        let mut held = before.clone();
        let key = ObjectKey::Route("ghost".into());
        held.set(&Edit { key, after: Some(Object::Route(value)) }, 4);
        assert_eq!(introduced(&before, &held).len(), 1, "new, it is refused");
        assert!(introduced(&held, &held).is_empty(), "there, it stops no other change");
        assert!(build(&held, vec![], &[], &"weir.local".into(), 1).is_ok());
    }
}
