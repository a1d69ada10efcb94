//! Which policies hold for a request, and what they say of it.

use http::Request;
use serde::Serialize;
use weir_mesh::model::{Parent, Route, ServiceName, Snapshot};
use weir_mesh::policy::{Attached, Policy, PolicyKind, Target};

use super::Caller;
use super::tell::{BackendTold, Explanation, PolicyTold};

/// What authorization says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the request may.
    pub allowed: bool,
    /// The policy that decides; none: the mesh's default.
    pub policy: Option<String>,
    /// Its rule.
    pub rule: Option<String>,
    /// In words.
    pub why: String,
}

/// The verdict on a request. None while nothing decides: authorization policies
/// are listed with the others, and enforced nowhere yet.
pub(super) fn verdict(
    _snapshot: &Snapshot,
    _caller: &Caller,
    _request: &Request<()>,
    _told: &Explanation,
) -> Option<Verdict> {
    None
}

/// The policies that are attached to whatever the request meets, outermost first.
pub(super) fn policies(
    snapshot: &Snapshot,
    parent: Option<&Parent>,
    rule: Option<(&Route, usize)>,
    backends: &[BackendTold],
) -> Vec<PolicyTold> {
    let attached = Attached::new(&snapshot.policies);
    let mut told: Vec<PolicyTold> = Vec::new();
    let mut tell = |policy: &Policy, target: String| {
        let one = PolicyTold { kind: policy.kind.as_str(), name: policy.name.to_string(), target };
        if !told.contains(&one) {
            told.push(one);
        }
    };
    let of = |target: Target| {
        let kinds = PolicyKind::ALL.iter();
        let found: Vec<&Policy> = kinds.flat_map(|kind| attached.of(&target, *kind)).collect();
        (target.to_string(), found)
    };
    let mut targets = vec![Target::Mesh];
    if parent == Some(&Parent::Gateway) {
        targets.push(Target::Gateway);
    }
    for target in targets {
        let (name, found) = of(target);
        found.into_iter().for_each(|policy| tell(policy, name.clone()));
    }
    if let Some((route, index)) = rule {
        let name = route.rules.get(index).map(|rule| rule.name.clone()).unwrap_or_default();
        for kind in PolicyKind::ALL {
            for policy in attached.of_rule(route.kind, &route.name, &name, *kind) {
                tell(policy, format!("route {}", route.name));
            }
        }
    }
    for backend in backends {
        let Ok(service) = backend.service.parse::<ServiceName>() else { continue };
        let (name, found) = of(Target::Service(service));
        found.into_iter().for_each(|policy| tell(policy, name.clone()));
    }
    told
}
