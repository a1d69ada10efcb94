//! Whether what policies are attached to is there, and only once, and what they
//! refer to as well.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use weir_mesh::model::{Protocol, RouteKind};
use weir_mesh::policy::{Policy, PolicyKind, PolicySpec, Target, TargetKind};

use crate::store::Desired;

/// One name in a policy that cannot stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// The policy's kind.
    pub kind: PolicyKind,
    /// The policy's name.
    pub name: Arc<str>,
    /// The path of the field below the policy.
    pub at: String,
    /// What is wrong.
    pub why: String,
}

impl PolicyFault {
    /// The path of the field below the policy.
    #[must_use]
    pub fn field(&self) -> String {
        self.at.clone()
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What [`check`] finds in `after` that it did not find in `before`.
#[must_use]
pub fn introduced(before: &Desired, after: &Desired) -> Vec<PolicyFault> {
    let mut faults = check(after);
    if !faults.is_empty() {
        let old: HashSet<_> =
            check(before).into_iter().map(|f| (f.kind, f.name.clone(), f.field())).collect();
        faults.retain(|f| !old.contains(&(f.kind, f.name.clone(), f.field())));
    }
    faults
}

/// Every name in policies of a desired state that cannot stand.
#[must_use]
pub fn check(desired: &Desired) -> Vec<PolicyFault> {
    let mut faults = Vec::new();
    let mut taken: HashMap<(PolicyKind, &Target), &Policy> = HashMap::new();
    for held in desired.policies.values() {
        let policy = &*held.value;
        for (i, target) in policy.targets.iter().enumerate() {
            let fault = |part, why| fault_of(policy, format!("spec.targetRefs[{i}].{part}"), why);
            if let Some((part, why)) = missing(desired, target) {
                faults.push(fault(part, why));
            }
            if let Some(why) = idle(desired, policy.kind, target) {
                faults.push(fault("name", why));
            }
            if policy.kind.one_per_target()
                && let Some(other) = taken.insert((policy.kind, target), policy)
            {
                let why = format!(
                    "{target} has a {} already: {:?}; a target can have one",
                    policy.kind, other.name
                );
                faults.push(fault("name", why));
            }
        }
        faults.extend(stand_ins(desired, policy));
        for (at, name) in policy.services() {
            if let Some((_, why)) = missing(desired, &Target::Service(name.clone())) {
                faults.push(fault_of(policy, at, why));
            }
        }
    }
    faults
}

/// Why a policy would do nothing for a target that is there.
fn idle(desired: &Desired, kind: PolicyKind, target: &Target) -> Option<String> {
    let Target::Service(name) = target else { return None };
    let service = desired.services.get(name)?;
    let of_requests = !matches!(kind, PolicyKind::Authorization);
    (of_requests && service.value.protocol == Protocol::Tcp).then(|| {
        format!("{name} speaks opaque TCP, and a {kind} is about requests: it would do nothing")
    })
}

/// Services that a BackendTrafficPolicy names to stand in.
fn stand_ins<'a>(desired: &'a Desired, policy: &'a Policy) -> impl Iterator<Item = PolicyFault> {
    let failover = match &policy.spec {
        PolicySpec::BackendTraffic(traffic) => traffic.failover.as_slice(),
        _ => &[],
    };
    failover.iter().enumerate().filter_map(move |(i, one)| {
        let (part, why) = match desired.services.get(&one.service) {
            None => {
                let names = list(desired.services.keys().map(ToString::to_string));
                ("service", format!("no service {:?}; services: {names}", one.service.as_str()))
            }
            Some(service) if service.value.protocol == Protocol::Tcp => {
                ("service", format!("{} speaks opaque TCP: it takes no requests", one.service))
            }
            Some(service) => {
                let wanted = one.version.as_ref()?;
                let versions = service.value.split.versions();
                if versions.iter().any(|(name, _)| name == wanted) {
                    return None;
                }
                let names = list(versions.iter().map(|(name, _)| name.to_string()));
                let service = &one.service;
                ("version", format!("{service} has no version {wanted}; versions: {names}"))
            }
        };
        Some(fault_of(policy, format!("spec.failover[{i}].{part}"), why))
    })
}

fn fault_of(policy: &Policy, at: String, why: String) -> PolicyFault {
    PolicyFault { kind: policy.kind, name: policy.name.clone(), at, why }
}

fn missing(desired: &Desired, target: &Target) -> Option<(&'static str, String)> {
    match target {
        Target::Mesh | Target::Gateway => None,
        Target::Service(name) => (!desired.services.contains_key(name)).then(|| {
            let names = desired.services.keys().map(ToString::to_string);
            (
                "name",
                format!("no service {name:?}; services: {}", list(names), name = name.as_str()),
            )
        }),
        Target::Route { kind, name, rule } => {
            let wanted = match kind {
                TargetKind::GrpcRoute => RouteKind::Grpc,
                _ => RouteKind::Http,
            };
            let route = desired.routes.get(name).filter(|held| held.value.kind == wanted);
            let Some(route) = route else {
                let of_kind = desired.routes.iter().filter(|(_, held)| held.value.kind == wanted);
                let names = list(of_kind.map(|(name, _)| name.to_string()));
                let kind = kind.as_str();
                return Some(("name", format!("no {kind} {name:?}; there are: {names}")));
            };
            let rule = rule.as_ref()?;
            let rules = &route.value.rules;
            (!rules.iter().any(|r| r.name == *rule)).then(|| {
                let named = rules.iter().filter(|r| !r.name.is_empty());
                let names = list(named.map(|r| r.name.to_string()));
                ("sectionName", format!("{name} has no rule {rule:?}; named rules: {names}"))
            })
        }
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{Edit, Object, ObjectKey};

    fn with(policies: &[(&str, &str)]) -> Desired {
        let mut desired = Desired::default();
        for (name, target) in policies {
            let spec = json!({ "targetRefs": [{ "kind": "Service", "name": target }] });
            let policy = Policy::read("BackendTrafficPolicy", name, &spec, "").unwrap();
            let key = ObjectKey::Policy(policy.kind, policy.name.clone());
            desired.set(&Edit { key, after: Some(Object::Policy(Arc::new(policy))) }, 1);
        }
        desired
    }

    #[test]
    fn who_is_to_stand_in_has_to_be_there() {
        let mut desired = Desired::default();
        let spec = json!({
            "targetRefs": [{ "kind": "Service", "name": "web" }],
            "failover": [{ "service": "spare" }],
        });
        let policy = Policy::read("BackendTrafficPolicy", "a", &spec, "").unwrap();
        let key = ObjectKey::Policy(policy.kind, policy.name.clone());
        desired.set(&Edit { key, after: Some(Object::Policy(Arc::new(policy))) }, 1);
        let told: Vec<_> = check(&desired).iter().map(|f| (f.field(), f.to_string())).collect();
        let missing = "no service \"spare\"; services: none".to_owned();
        assert!(told.contains(&("spec.failover[0].service".to_owned(), missing)), "{told:?}");
    }

    #[test]
    fn what_is_not_there_and_what_is_there_twice_is_named() {
        let before = with(&[("a", "web")]);
        let told: Vec<_> = check(&before).iter().map(|f| (f.field(), f.to_string())).collect();
        let missing = "no service \"web\"; services: none".to_owned();
        assert_eq!(told, [("spec.targetRefs[0].name".to_owned(), missing)]);
        let after = with(&[("a", "web"), ("b", "web")]);
        let new = introduced(&before, &after);
        assert!(new.iter().all(|f| &*f.name == "b"), "{new:?}");
        assert!(new.iter().any(|f| f.why.contains("has a BackendTrafficPolicy already: \"a\"")));
    }

    #[test]
    fn a_service_that_a_policy_would_ask_must_be_there() {
        let spec = json!({
            "targetRefs": [{ "kind": "Mesh", "name": "mesh" }],
            "action": "External", "external": { "service": "guard" }, "rules": [{}],
        });
        let policy = Policy::read("AuthorizationPolicy", "a", &spec, "").unwrap();
        let key = ObjectKey::Policy(policy.kind, policy.name.clone());
        let mut desired = Desired::default();
        desired.set(&Edit { key, after: Some(Object::Policy(Arc::new(policy))) }, 1);
        let told: Vec<_> = check(&desired).iter().map(|f| (f.field(), f.to_string())).collect();
        let why = "no service \"guard\"; services: none".to_owned();
        assert_eq!(told, [("spec.external.service".to_owned(), why)]);
    }
}
