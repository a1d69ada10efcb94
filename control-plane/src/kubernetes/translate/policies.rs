//! Weir's own kinds: what policies are attached to, and what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use weir_mesh::model::Route;
use weir_mesh::policy::{Policy, PolicyKind, Target};

use super::gateways::Gateways;
use super::grants::Grants;
use super::json::{age, generation, list, text};
use super::names::full_name;
use super::policy_spec;
use super::policy_target::{Targets, resolve};
use super::services::Services;
use super::status::{Condition, Fault, MESH_CONTROLLER, conditions, foreign};
use super::{Settings, StatusUpdate};
use crate::kubernetes::objects::{Kind, Objects};

/// Most `ancestors` of a policy's status (GEP-713).
const MAX_ANCESTORS: usize = 16;

/// Kinds of policies that are attached, and which kind of object each is.
const ATTACHED: [(Kind, PolicyKind); 4] = [
    (Kind::BackendTrafficPolicy, PolicyKind::BackendTraffic),
    (Kind::RateLimitPolicy, PolicyKind::RateLimit),
    (Kind::AuthorizationPolicy, PolicyKind::Authorization),
    (Kind::AuthenticationPolicy, PolicyKind::Authentication),
];

/// Policies by kind and name.
pub(super) type Policies = BTreeMap<(PolicyKind, Arc<str>), Policy>;

/// What policies are read with.
pub(super) struct Context<'a> {
    pub objects: &'a Objects,
    pub settings: &'a Settings,
    pub services: &'a Services<'a>,
    pub grants: &'a Grants<'a>,
    pub gateways: &'a Gateways<'a>,
    pub routes: &'a BTreeMap<Arc<str>, Route>,
}

/// HTTPRouteFilters that rules refer to: those that can be followed, by namespace
/// and name.
pub(super) fn filters<'a>(
    objects: &'a Objects,
    policies: &mut Policies,
    statuses: &mut Vec<StatusUpdate>,
) -> BTreeSet<(&'a str, &'a str)> {
    let kind = Kind::HTTPRouteFilter;
    let mut good = BTreeSet::new();
    for (namespace, name, object) in objects.all(kind) {
        let mut spec = object["spec"].clone();
        // Rules refer to filters here; what else they could be attached to has names
        // that only routes know.
        let attached = spec.as_object_mut().and_then(|spec| spec.remove("targetRefs"));
        let read = match attached {
            Some(_) => {
                let why = "spec.targetRefs is not supported; refer to it by an ExtensionRef";
                Err(Fault::new("Invalid", why))
            }
            None => {
                let policy =
                    Policy::read(kind.as_str(), &full_name(namespace, name, ""), &spec, "");
                policy.map_err(|invalid| Fault::new("Invalid", invalid.to_string()))
            }
        };
        let accepted = read.as_ref().map(drop).map_err(Clone::clone);
        let own = json!({ "group": "weir.dev", "kind": kind.as_str(), "name": name });
        statuses.push(update(kind, namespace, name, object, vec![Ancestor::new(own, accepted)]));
        if let Ok(policy) = read {
            good.insert((namespace, name));
            policies.insert((policy.kind, policy.name.clone()), policy);
        }
    }
    good
}

/// Policies that are attached. Of two that a target can have only one of, the older
/// one holds.
pub(super) fn policies(
    context: &Context<'_>,
    policies: &mut Policies,
    statuses: &mut Vec<StatusUpdate>,
) {
    for (kind, policy_kind) in ATTACHED {
        let mut taken = BTreeMap::new();
        let mut all: Vec<_> = context.objects.all(kind).collect();
        all.sort_by_cached_key(|(_, _, object)| age(object));
        for (namespace, name, object) in all {
            let object = Sent { kind, policy_kind, namespace, name, object };
            let (policy, status) = one(context, &object, &mut taken);
            statuses.push(status);
            if let Some(policy) = policy {
                policies.insert((policy.kind, policy.name.clone()), policy);
            }
        }
    }
}

/// One policy as it is in the API server.
struct Sent<'a> {
    kind: Kind,
    policy_kind: PolicyKind,
    namespace: &'a str,
    name: &'a str,
    object: &'a Value,
}

fn one(
    context: &Context<'_>,
    sent: &Sent<'_>,
    taken: &mut BTreeMap<Target, String>,
) -> (Option<Policy>, StatusUpdate) {
    let refs = list(&sent.object["spec"], "targetRefs");
    let mut ancestors = Vec::new();
    let mut targets = Targets::default();
    for target in refs {
        let found = resolve(context, sent.policy_kind, sent.namespace, target);
        let found = found.and_then(|found| free(sent, taken, found));
        let accepted = found.as_ref().map(drop).map_err(Clone::clone);
        ancestors.push(Ancestor::new(target.clone(), accepted));
        if let Ok(found) = found {
            targets.extend(found);
        }
    }
    if refs.is_empty() {
        let own = json!({ "group": "weir.dev", "kind": sent.kind.as_str(), "name": sent.name });
        let why = "spec.targetRefs: is empty; name what the policy is for";
        ancestors.push(Ancestor::new(own, Err(Fault::new("Invalid", why))));
    }
    let mut unresolved = None;
    let policy = match targets.is_empty() {
        true => None,
        false => {
            let (spec, fault) =
                policy_spec::rewrite(context, sent.kind, sent.namespace, sent.object);
            unresolved = fault;
            match read(sent, &targets, spec) {
                Ok(policy) => Some(policy),
                Err(fault) => {
                    for ancestor in ancestors.iter_mut().filter(|a| a.accepted.is_ok()) {
                        ancestor.accepted = Err(fault.clone());
                    }
                    closed(sent, &targets)
                }
            }
        }
    };
    if let Some(policy) = &policy
        && policy.kind.one_per_target()
    {
        taken.extend(policy.targets.iter().cloned().map(|t| (t, sent.full_name())));
    }
    for ancestor in &mut ancestors {
        ancestor.unresolved.clone_from(&unresolved);
    }
    let status = update(sent.kind, sent.namespace, sent.name, sent.object, ancestors);
    (policy, status)
}

impl Sent<'_> {
    fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What of it no older policy has, where there can be only one.
fn free(
    sent: &Sent<'_>,
    taken: &BTreeMap<Target, String>,
    mut found: Targets,
) -> Result<Targets, Fault> {
    if !sent.policy_kind.one_per_target() {
        return Ok(found);
    }
    let mut older = None;
    found.retain(|target| match taken.get(target) {
        Some(by) => {
            older.get_or_insert(by);
            false
        }
        None => true,
    });
    match older {
        Some(by) if found.is_empty() => {
            let kind = sent.kind.as_str();
            let why = format!("{kind} {by} is older and attached to it; a target can have one");
            Err(Fault::new("Conflicted", why))
        }
        _ => Ok(found),
    }
}

fn read(sent: &Sent<'_>, targets: &Targets, mut spec: Value) -> Result<Policy, Fault> {
    let name = full_name(sent.namespace, sent.name, "");
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("targetRefs".to_owned(), targets.to_refs());
    }
    let policy = Policy::read(sent.kind.as_str(), &name, &spec, "");
    policy.map_err(|invalid| Fault::new("Invalid", invalid.to_string()))
}

/// What stands in for a policy about who may, when it cannot be read: nobody may.
/// One that only reports, and every other kind, is left out.
fn closed(sent: &Sent<'_>, targets: &Targets) -> Option<Policy> {
    let who_may = matches!(sent.kind, Kind::AuthorizationPolicy | Kind::AuthenticationPolicy);
    if !who_may || sent.object["spec"]["mode"] == "Audit" {
        return None;
    }
    let spec = json!({ "targetRefs": targets.to_refs(), "action": "Deny", "rules": [{}] });
    let kind = sent.kind.as_str().to_ascii_lowercase();
    let name = full_name(sent.namespace, sent.name, &format!("{kind}.invalid"));
    Policy::read(Kind::AuthorizationPolicy.as_str(), &name, &spec, "").ok()
}

/// One thing that a policy is for.
pub(super) struct Ancestor {
    /// As the policy names it.
    pub reference: Value,
    /// Whether the policy holds there.
    pub accepted: Result<(), Fault>,
    /// What to say when it does.
    pub message: String,
    /// Why not all that the policy names is there.
    pub unresolved: Option<Fault>,
}

impl Ancestor {
    fn new(reference: Value, accepted: Result<(), Fault>) -> Self {
        Self { reference, accepted, message: String::new(), unresolved: None }
    }
}

pub(super) fn update(
    kind: Kind,
    namespace: &str,
    name: &str,
    object: &Value,
    ancestors: Vec<Ancestor>,
) -> StatusUpdate {
    let present = &object["status"];
    let ours = ancestors.into_iter().map(|ancestor| {
        let reference = ancestor.reference;
        let accepted = match &ancestor.accepted {
            Ok(()) => Condition::holds("Accepted", "Accepted").with_message(ancestor.message),
            Err(fault) => Condition::fails("Accepted", fault.reason, &fault.message),
        };
        let resolved = ancestor.unresolved.map_or(Ok(()), Err);
        let all = [accepted, Condition::of("ResolvedRefs", "ResolvedRefs", &resolved)];
        let entries = list(present, "ancestors").iter();
        let mut own = entries.filter(|e| text(e, "controllerName") == MESH_CONTROLLER);
        let before = own.find(|entry| entry["ancestorRef"] == reference);
        json!({
            "ancestorRef": reference,
            "controllerName": MESH_CONTROLLER,
            "conditions": conditions(object, before.unwrap_or(&Value::Null), &all),
        })
    });
    let all = ours.chain(foreign(present, "ancestors").cloned()).take(MAX_ANCESTORS);
    StatusUpdate {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        generation: generation(object),
        status: json!({ "ancestors": all.collect::<Vec<_>>() }),
    }
}
