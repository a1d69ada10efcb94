//! Which policies hold for a request, and what they say of it.

use serde::Serialize;
use serde_json::Value;
use weir_mesh::model::{Parent, Route, ServiceName, Snapshot};
use weir_mesh::policy::{Attached, Policy, PolicyKind, Target};

use super::tell::{BackendTold, PolicyTold};
use crate::auth::Why;
use crate::auth::told::Told;

/// What is said of a request at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `gateway`, `caller`, or the service whose router is asked.
    pub at: String,
    /// Who asks there: a SPIFFE id; empty: nobody that is known.
    pub identity: String,
    /// Whether the request may, as far as its claims are known.
    pub allowed: bool,
    /// The policy that decides; null: the mesh's default.
    pub policy: Option<String>,
    /// Its rule.
    pub rule: Option<String>,
    /// In words.
    pub why: String,
    /// What policies that only report would deny it for.
    pub audited: Option<String>,
    /// Claims of its token that could change the verdict; they are not known.
    pub depends_on_claims: Vec<String>,
    /// The AuthenticationPolicy there.
    pub tokens: Option<TokensVerdict>,
    /// AuthorizationPolicies by which another service is asked.
    pub external: Vec<String>,
}

/// Whose tokens are believed at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokensVerdict {
    /// The policy.
    pub policy: String,
    /// Whether there must be one.
    pub required: bool,
    /// Whose.
    pub issuers: Vec<String>,
    /// Headers that are set from claims.
    pub headers: Vec<String>,
    /// Whether the token goes on.
    pub forward: bool,
}

impl Verdict {
    /// Of what would be said `at` a place.
    pub(super) fn of(at: &str, told: &Told) -> Self {
        let decision = &told.decision;
        let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().map(str::to_owned);
        let texts = |all: &[std::sync::Arc<str>]| all.iter().map(ToString::to_string).collect();
        let mut verdict = Self {
            at: at.to_owned(),
            identity: told.identity.clone(),
            allowed: told.refusal.is_none(),
            policy: name(&decision.policy),
            rule: name(&decision.rule),
            why: match decision.why {
                Why::Allowed => format!("{} allows it", decision.finding()),
                Why::Denied => format!("{} denies it", decision.finding()),
                Why::Default if decision.allowed => {
                    "no AuthorizationPolicy decides, and the mesh allows by default".to_owned()
                }
                Why::NotAllowed | Why::Default => decision.finding().to_string(),
            },
            audited: decision.audited.as_ref().map(|finding| format!("{finding}")),
            depends_on_claims: texts(&told.claims),
            tokens: told.tokens.as_ref().map(|tokens| TokensVerdict {
                policy: tokens.policy.to_string(),
                required: tokens.required,
                issuers: texts(&tokens.issuers),
                headers: tokens.headers.iter().map(ToString::to_string).collect(),
                forward: tokens.forward,
            }),
            external: texts(&told.external),
        };
        if let (Some(error), true, Some(tokens)) =
            (&told.refusal, decision.allowed, &verdict.tokens)
        {
            verdict.why = format!("AuthenticationPolicy {}: {error}", tokens.policy);
            verdict.policy = Some(tokens.policy.clone());
            verdict.rule = None;
        }
        verdict
    }
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
        let (kind, name) = (policy.kind.as_str(), policy.name.to_string());
        if !told.iter().any(|one| (one.kind, &one.name, &one.target) == (kind, &name, &target)) {
            told.push(PolicyTold { kind, name, target, spec: spec(policy) });
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

/// As it was written, of policies that are told by nothing else; others may hold
/// keys.
fn spec(policy: &Policy) -> Value {
    if policy.kind != PolicyKind::BackendTraffic {
        return Value::Null;
    }
    let mut spec = policy.document().clone();
    if let Some(map) = spec.as_object_mut() {
        map.remove("targetRefs");
    }
    spec
}
