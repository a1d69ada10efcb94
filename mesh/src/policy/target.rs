//! What a policy is attached to (GEP-713).

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{GROUP, PolicyKind};
use crate::model::{ServiceName, Violations};

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Most targetRefs of one policy, as the Gateway API's own policies have it.
const MAX: usize = 16;

/// Kinds that a policy may be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// The whole mesh.
    Mesh,
    /// What enters by the gateway.
    Gateway,
    /// One service, whoever asks it.
    Service,
    /// One HTTPRoute, or one of its rules.
    HttpRoute,
    /// One GRPCRoute, or one of its rules.
    GrpcRoute,
}

impl TargetKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Mesh, Self::Gateway, Self::Service, Self::HttpRoute, Self::GrpcRoute];

    /// Its name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Gateway => "Gateway",
            Self::Service => "Service",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
        }
    }

    /// Its group in documents.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Mesh => GROUP,
            Self::Service => "",
            Self::Gateway | Self::HttpRoute | Self::GrpcRoute => GATEWAY_GROUP,
        }
    }
}

/// What one targetRef names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The whole mesh.
    Mesh,
    /// What enters by the gateway.
    Gateway,
    /// One service.
    Service(ServiceName),
    /// A route, or one of its rules by name.
    Route {
        /// HTTPRoute or GRPCRoute.
        kind: TargetKind,
        /// The route's name.
        name: Arc<str>,
        /// The rule's name; none: all of them.
        rule: Option<Arc<str>>,
    },
}

impl Target {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        match self {
            Self::Mesh => TargetKind::Mesh,
            Self::Gateway => TargetKind::Gateway,
            Self::Service(_) => TargetKind::Service,
            Self::Route { kind, .. } => *kind,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().as_str();
        match self {
            Self::Mesh => write!(f, "{kind}/mesh"),
            Self::Gateway => write!(f, "{kind}/gateway"),
            Self::Service(name) => write!(f, "{kind}/{name}"),
            Self::Route { name, rule: None, .. } => write!(f, "{kind}/{name}"),
            Self::Route { name, rule: Some(rule), .. } => write!(f, "{kind}/{name}#{rule}"),
        }
    }
}

/// One targetRef as it is written.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TargetRef {
    /// Empty for a Service, `gateway.networking.k8s.io` for a Gateway or a route,
    /// `weir.dev` for the Mesh. May be left out.
    group: Option<String>,
    /// `Service`, `Gateway`, `HTTPRoute`, `GRPCRoute` or `Mesh`.
    kind: String,
    /// Which one. A mesh has one Gateway, `gateway`, and is called `mesh` itself.
    name: String,
    /// `default`, or left out.
    namespace: Option<String>,
    /// A rule of a route, by its name.
    section_name: Option<String>,
}

/// Takes `targetRefs` out of a spec. None only after noting why.
pub(super) fn take(
    kind: PolicyKind,
    spec: &mut Value,
    at: &str,
    bad: &mut Violations,
) -> Option<Vec<Target>> {
    let refs = spec.as_object_mut().and_then(|map| map.remove("targetRefs"));
    let at = format!("{at}.targetRefs");
    if kind.targets().is_empty() {
        if refs.is_some() {
            bad.add(at, format_args!("{kind} has none; routes refer to it by an ExtensionRef"));
            return None;
        }
        return Some(Vec::new());
    }
    if refs.is_none() && kind.targets_optional() {
        return Some(Vec::new());
    }
    let list = match refs {
        Some(Value::Array(list)) if !list.is_empty() && list.len() <= MAX => list,
        Some(Value::Array(list)) if !list.is_empty() => {
            bad.add(at, format_args!("has {} entries; at most {MAX} are possible", list.len()));
            return None;
        }
        Some(Value::Array(_) | Value::Null) | None => {
            bad.add(at, "is empty; name what the policy is for, or it would do nothing");
            return None;
        }
        Some(_) => {
            bad.add(at, "must be a list");
            return None;
        }
    };
    let count = list.len();
    let mut targets = Vec::with_capacity(count);
    for (i, value) in list.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        #[cfg(feature = "gateway-api")]
        if !super::structure::check(schemars::schema_for!(TargetRef).as_value(), &value, &at, bad) {
            continue;
        }
        if let Some(sent) = bad.take(&at, serde_json::from_value::<TargetRef>(value))
            && let Some(target) = target(kind, sent, &at, bad)
        {
            if targets.contains(&target) {
                bad.add(at, format_args!("{target} is here twice"));
            }
            targets.push(target);
        }
    }
    (targets.len() == count).then_some(targets)
}

fn target(policy: PolicyKind, sent: TargetRef, at: &str, bad: &mut Violations) -> Option<Target> {
    let allowed = policy.targets();
    let kind = TargetKind::ALL.into_iter().find(|kind| kind.as_str() == sent.kind);
    let Some(kind) = kind.filter(|kind| allowed.contains(kind)) else {
        let names: Vec<_> = allowed.iter().map(|kind| kind.as_str()).collect();
        let why =
            format!("a {policy} is not attached to {:?}; use {}", sent.kind, names.join(", "));
        bad.add(format!("{at}.kind"), why);
        return None;
    };
    if let Some(group) = &sent.group
        && group != kind.group()
        && !(kind == TargetKind::Service && group == "core")
    {
        let why = format!("{group:?} is not the group of a {}; use {:?}", sent.kind, kind.group());
        bad.add(format!("{at}.group"), why);
    }
    if let Some(namespace) = &sent.namespace
        && namespace != "default"
    {
        let why = format!("{namespace:?} is not supported yet; use default, or leave it out");
        bad.add(format!("{at}.namespace"), why);
    }
    let is_route = matches!(kind, TargetKind::HttpRoute | TargetKind::GrpcRoute);
    if sent.section_name.is_some() && !is_route {
        bad.add(format!("{at}.sectionName"), "is for rules of routes only");
    }
    let at_name = format!("{at}.name");
    match kind {
        TargetKind::Mesh | TargetKind::Gateway => {
            let (name, target) = match kind {
                TargetKind::Mesh => ("mesh", Target::Mesh),
                _ => ("gateway", Target::Gateway),
            };
            if sent.name != name {
                bad.add(at_name, format_args!("{:?} is not there; it is called {name}", sent.name));
            }
            Some(target)
        }
        TargetKind::Service => bad.take(&at_name, sent.name.parse()).map(Target::Service),
        TargetKind::HttpRoute | TargetKind::GrpcRoute => Some(Target::Route {
            kind,
            name: sent.name.into(),
            rule: sent.section_name.map(Into::into),
        }),
    }
}
