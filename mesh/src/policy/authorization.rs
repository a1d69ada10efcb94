//! AuthorizationPolicy: who may.

mod document;
mod path;
mod peer;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

pub use document::AuthorizationDocument;
pub use path::PathPattern;
pub use peer::{PeerPattern, Peers};

use super::{Kind, TargetKind};
use crate::model::{HostPattern, ServiceName, Violations};

/// What a policy does with the requests that its rules take.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// They may go on. What no such policy of a target takes may not.
    Allow,
    /// They may not, whatever else allows them.
    Deny,
    /// Another service decides (Envoy's `ext_authz`).
    External(External),
}

/// The service that decides.
#[derive(Debug, Clone, PartialEq)]
pub struct External {
    /// A service of the mesh that speaks `envoy.service.auth.v3.Authorization`.
    pub service: ServiceName,
    /// For its answer.
    pub timeout: Duration,
    /// Whether requests go on when it does not answer.
    pub fail_open: bool,
    /// Headers of the request that it is told beside the usual ones; none: all.
    pub headers: Option<Vec<HeaderName>>,
}

/// Whether a decision is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It is.
    #[default]
    Enforce,
    /// It is only reported.
    Audit,
}

/// Who may.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// What happens with the requests that rules take.
    pub action: Action,
    /// Whether it does.
    pub mode: Mode,
    /// Any of these takes a request.
    pub rules: Vec<Rule>,
}

/// All of its parts must fit; a part that is not there fits everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, or its place (`0`).
    pub name: Arc<str>,
    /// Who asks.
    pub from: From,
    /// What is asked for.
    pub to: To,
    /// On which conditions.
    pub when: When,
}

/// Who asks, by the certificate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct From {
    /// One of these; none: anyone, also without an identity.
    pub peers: Option<Peers>,
    /// And none of these.
    pub not_peers: Peers,
}

/// What is asked for. An empty list fits everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct To {
    /// One of these, compared exactly.
    pub methods: Vec<Method>,
    /// None of these.
    pub not_methods: Vec<Method>,
    /// One of these.
    pub paths: Vec<PathPattern>,
    /// None of these.
    pub not_paths: Vec<PathPattern>,
    /// One of these, without port.
    pub hosts: Vec<HostPattern>,
    /// One of these: `/service/method`, or `/service` and all below it.
    pub grpc: Vec<PathPattern>,
}

/// Conditions; all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct When {
    /// Claims of a verified token.
    pub claims: Vec<ClaimMatch>,
    /// Headers of the request.
    pub headers: Vec<HeaderMatch>,
}

/// A claim that must be there.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimMatch {
    /// Its name; with dots, of claims within claims.
    pub name: Arc<str>,
    /// One of these, as text; of a list, one entry is enough. Empty: any value.
    pub values: Vec<Arc<str>>,
}

/// A header that must be there.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// One of these; empty: any value.
    pub values: Vec<Arc<str>>,
}

impl Authorization {
    /// The services that it names, by their paths below the policy.
    pub(super) fn services(&self) -> Vec<(String, &ServiceName)> {
        match &self.action {
            Action::External(external) => {
                vec![("spec.external.service".to_owned(), &external.service)]
            }
            Action::Allow | Action::Deny => Vec::new(),
        }
    }
}

impl Rule {
    /// Whether it asks for nothing but an identity, so that it can decide about
    /// what is no HTTP.
    #[must_use]
    pub fn is_identity_only(&self) -> bool {
        self.to == To::default() && self.when == When::default()
    }
}

impl To {
    /// Whether it asks for a gRPC method.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        !self.grpc.is_empty()
    }
}

impl Kind for Authorization {
    type Document = AuthorizationDocument;

    const TARGETS: &'static [TargetKind] = &TargetKind::ALL;

    const ONE_PER_TARGET: bool = false;

    fn read(document: AuthorizationDocument, at: &str, bad: &mut Violations) -> Option<Self> {
        document::read(document, at, bad)
    }
}
