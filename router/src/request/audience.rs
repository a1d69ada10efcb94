//! Who gets a version of a service whatever its weights.

use http::request;

use crate::auth::VerifiedClaims;
use crate::table::{AudienceEntry, ServiceEntry};

/// The version (an index) of the first audience that a request is of.
///
/// Only a token that this router has verified says whose it is: what nobody has
/// verified here, such as the bearer token of a request without an
/// AuthenticationPolicy, is no claim.
#[must_use]
pub fn version(service: &ServiceEntry, parts: &request::Parts) -> Option<usize> {
    if service.audiences.is_empty() {
        return None;
    }
    let claims = parts.extensions.get::<VerifiedClaims>().map(|claims| &*claims.0);
    let has = |audience: &&AudienceEntry| audience.has(&parts.headers, claims);
    service.audiences.iter().find(has).map(|audience| audience.version)
}
