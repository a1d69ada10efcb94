//! Weir's own kinds (`weir.dev/v1alpha1`): what is attached to services and
//! routes beside the Gateway API, by `targetRefs` (GEP-713).
//!
//! A spec travels as it was written, as JSON. Each kind has a file here with two
//! types: its document, which serde reads and whose JSON Schema is generated, and
//! what the rest of Weir sees, in which nothing invalid can be said.

mod attach;
pub mod authentication;
pub mod authorization;
mod backend_traffic;
#[cfg(feature = "gateway-api")]
pub(crate) mod document;
pub mod filter;
pub mod rate_limit;
#[cfg(feature = "gateway-api")]
pub(crate) mod structure;
mod target;
pub mod traffic;
pub mod value;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use attach::Attached;
pub use authentication::{Authentication, AuthenticationDocument};
pub use authorization::{Authorization, AuthorizationDocument};
pub use backend_traffic::{BackendTraffic, BackendTrafficDocument};
#[cfg(feature = "gateway-api")]
pub use document::{parse_policy, schema, to_document};
pub use filter::{Filter, FilterDocument};
pub use rate_limit::{RateLimit, RateLimitDocument};
pub use target::{Target, TargetKind};

use crate::model::{Invalid, ServiceName, Violations};

/// The `apiVersion` of these kinds.
pub const API_VERSION: &str = "weir.dev/v1alpha1";

/// The group of these kinds.
pub const GROUP: &str = "weir.dev";

/// What a kind consists of.
pub trait Kind: Sized {
    /// Its spec on the wire, without `targetRefs`.
    #[cfg(not(feature = "gateway-api"))]
    type Document: DeserializeOwned;
    /// Its spec on the wire, without `targetRefs`.
    #[cfg(feature = "gateway-api")]
    type Document: DeserializeOwned + schemars::JsonSchema;

    /// What it may be attached to; empty: it is referred to instead.
    const TARGETS: &'static [TargetKind];

    /// Whether it may also have no targets, because it can be referred to as well.
    const TARGETS_OPTIONAL: bool = false;

    /// Whether a target can have only one of this kind.
    const ONE_PER_TARGET: bool;

    /// Reads a spec. `at` is its path. None only after noting why.
    fn read(document: Self::Document, at: &str, bad: &mut Violations) -> Option<Self>;
}

/// Declares the kinds: their names and what reads them, in one place.
macro_rules! kinds {
    ($($variant:ident($model:ty) = $name:literal, $doc:literal;)*) => {
        /// Which kind a policy is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum PolicyKind { $(#[doc = $doc] $variant,)* }

        impl PolicyKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it may be attached to; empty: routes refer to it instead.
            #[must_use]
            pub const fn targets(self) -> &'static [TargetKind] {
                match self { $(Self::$variant => <$model as Kind>::TARGETS,)* }
            }

            /// Whether it may also have no targets.
            #[must_use]
            pub const fn targets_optional(self) -> bool {
                match self { $(Self::$variant => <$model as Kind>::TARGETS_OPTIONAL,)* }
            }

            /// Whether a target can have only one of this kind.
            #[must_use]
            pub const fn one_per_target(self) -> bool {
                match self { $(Self::$variant => <$model as Kind>::ONE_PER_TARGET,)* }
            }

            /// The JSON Schema of its spec, without `targetRefs`.
            #[cfg(feature = "gateway-api")]
            fn spec_schema(self) -> schemars::Schema {
                match self { $(Self::$variant => schemars::schema_for!(<$model as Kind>::Document),)* }
            }

            fn read(self, spec: Value, at: &str, bad: &mut Violations) -> Option<PolicySpec> {
                match self {
                    $(Self::$variant => {
                        read::<$model>(spec, at, bad).map(Arc::new).map(PolicySpec::$variant)
                    })*
                }
            }
        }

        /// What a policy says.
        #[derive(Debug, Clone)]
        pub enum PolicySpec { $(#[doc = $doc] $variant(Arc<$model>),)* }
    };
}

kinds! {
    BackendTraffic(BackendTraffic) = "BackendTrafficPolicy", "How instances of a service are chosen, limited and kept out.";
    RateLimit(RateLimit) = "RateLimitPolicy", "How often something may be asked.";
    Authorization(Authorization) = "AuthorizationPolicy", "Who may.";
    Authentication(Authentication) = "AuthenticationPolicy", "Whose tokens are believed.";
    Filter(Filter) = "HTTPRouteFilter", "What a rule does beside the Gateway API's filters.";
}

fn read<K: Kind>(spec: Value, at: &str, bad: &mut Violations) -> Option<K> {
    let document = bad.take(at, serde_json::from_value::<K::Document>(spec))?;
    K::read(document, at, bad)
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of policy; there are: {names}", names = names())]
pub struct PolicyKindError(String);

fn names() -> String {
    PolicyKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
}

impl FromStr for PolicyKind {
    type Err = PolicyKindError;

    fn from_str(text: &str) -> Result<Self, PolicyKindError> {
        let found = Self::ALL.iter().find(|kind| kind.as_str() == text);
        found.copied().ok_or_else(|| PolicyKindError(text.chars().take(80).collect()))
    }
}

/// One policy, attached or to be referred to.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its kind.
    pub kind: PolicyKind,
    /// Unique among those of its kind.
    pub name: Arc<str>,
    /// What it is attached to; empty when its kind is referred to instead.
    pub targets: Vec<Target>,
    /// What it says.
    pub spec: PolicySpec,
    /// The spec as it was written, targetRefs included.
    document: Arc<Value>,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name && self.document == other.document
    }
}

impl Policy {
    /// Reads a policy from its kind, name and spec. `at` is the path of the
    /// whole; the fields are called `kind`, `name` and `spec` below it.
    ///
    /// # Errors
    /// All fields that are wrong, each by its path.
    pub fn read(kind: &str, name: &str, spec: &Value, at: &str) -> Result<Self, Invalid> {
        let join = |field: &str| match at {
            "" => field.to_owned(),
            at => format!("{at}.{field}"),
        };
        let mut bad = Violations::new();
        let kind = bad.take(&join("kind"), kind.parse::<PolicyKind>());
        check_name(name, &join("name"), &mut bad);
        let policy = kind.and_then(|kind| Self::of_kind(kind, name, spec, &join("spec"), &mut bad));
        bad.finish(policy)
    }

    fn of_kind(
        kind: PolicyKind,
        name: &str,
        spec: &Value,
        at: &str,
        bad: &mut Violations,
    ) -> Option<Self> {
        let document = Arc::new(spec.clone());
        let mut rest = spec.clone();
        let targets = target::take(kind, &mut rest, at, bad);
        #[cfg(feature = "gateway-api")]
        if !structure::check(kind.spec_schema().as_value(), &rest, at, bad) {
            return None;
        }
        let spec = kind.read(rest, at, bad)?;
        let targets = targets?;
        if let PolicySpec::Authentication(tokens) = &spec
            && targets.contains(&Target::Mesh)
            && let Some(i) = tokens.issuers.iter().position(|issuer| !issuer.forward)
        {
            let why = "is false for the whole mesh: the gateway would take the token away that \
                       the next router asks for; attach the policy to the Gateway";
            bad.add(format!("{at}.issuers[{i}].forward"), why);
        }
        Some(Self { kind, name: name.into(), targets, spec, document })
    }

    /// The services that its spec names beside its targets, each with its path
    /// below the policy.
    #[must_use]
    pub fn services(&self) -> Vec<(String, &ServiceName)> {
        match &self.spec {
            PolicySpec::Authorization(spec) => spec.services(),
            PolicySpec::Authentication(spec) => spec.services(),
            _ => Vec::new(),
        }
    }

    /// The spec as it was written, targetRefs included.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }
}

/// Notes a name that is no DNS subdomain name (RFC 1123).
pub(crate) fn check_name(name: &str, at: &str, bad: &mut Violations) {
    let label = |label: &str| label.parse::<ServiceName>().is_ok();
    if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
        bad.add(at, format_args!("{name:?} is not a DNS subdomain name (RFC 1123)"));
    }
}

#[cfg(test)]
mod tests;
