//! AuthenticationPolicy: whose tokens are believed.

mod document;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

pub use document::AuthenticationDocument;

use super::{Kind, TargetKind};
use crate::model::{ServiceName, Violations};
use crate::token::{KeySet, Rules};

/// Whose tokens are believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentication {
    /// Each has another name; never empty.
    pub issuers: Vec<Issuer>,
    /// Whether there must be a token; else only one that is not valid is refused.
    pub required: bool,
    /// A cookie that may hold the token, beside `Authorization`.
    pub cookie: Option<Arc<str>>,
    /// Asks whether the user still is one.
    pub active_user: Option<ActiveUser>,
}

/// One issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// What is asked of its tokens.
    pub rules: Rules,
    /// Where its keys are.
    pub keys: Keys,
    /// Headers that the upstream gets, from claims.
    pub claims_to_headers: Vec<(Arc<str>, HeaderName)>,
    /// Whether the upstream gets the token.
    pub forward: bool,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// In the policy.
    Inline(Arc<KeySet>),
    /// A JSON Web Key Set over plain HTTP.
    Uri(Uri),
    /// A service of the mesh that speaks `weir.auth.v1.AuthService/GetJwks`.
    Service(ServiceName),
}

/// Who knows whether a user still is one.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveUser {
    /// A service of the mesh that speaks `weir.users.v1.UsersService/CheckActive`.
    pub service: ServiceName,
    /// How long its answer holds.
    pub cache: Duration,
}

impl Authentication {
    /// The services that it names, by their paths below the policy.
    pub(super) fn services(&self) -> Vec<(String, &ServiceName)> {
        let issuers = self.issuers.iter().enumerate();
        let keys = issuers.filter_map(|(i, issuer)| match &issuer.keys {
            Keys::Service(name) => Some((format!("spec.issuers[{i}].jwks.service"), name)),
            Keys::Inline(_) | Keys::Uri(_) => None,
        });
        let active = self.active_user.as_ref();
        let active = active.map(|asked| ("spec.activeUser.service".to_owned(), &asked.service));
        keys.chain(active).collect()
    }

    /// The headers that claims are written to.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.issuers.iter().flat_map(|issuer| &issuer.claims_to_headers).map(|(_, name)| name)
    }
}

impl Kind for Authentication {
    type Document = AuthenticationDocument;

    const TARGETS: &'static [TargetKind] = &TargetKind::ALL;

    const ONE_PER_TARGET: bool = true;

    fn read(document: AuthenticationDocument, at: &str, bad: &mut Violations) -> Option<Self> {
        document::read(document, at, bad)
    }
}
