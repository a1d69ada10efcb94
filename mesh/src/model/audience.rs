//! Who gets a version whatever the weights, and which version gets copies.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::VersionName;

/// Most audiences of a service.
pub const MAX_AUDIENCES: usize = 16;
/// Most headers of an audience.
pub const MAX_AUDIENCE_HEADERS: usize = 16;
/// Most values of a claim.
pub const MAX_AUDIENCE_VALUES: usize = 64;

/// What of a request decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudienceBy {
    /// All of these headers are there with exactly these values. Never empty.
    Headers(Vec<(HeaderName, HeaderValue)>),
    /// A claim of the request's verified token (RFC 7519).
    Claim {
        /// Names of objects and, last, of the claim in them. Never empty.
        path: Vec<Arc<str>>,
        /// The claim is one of these, or a list that has one of them. Never empty.
        values: Vec<Arc<str>>,
    },
}

/// Requests that go to one version, whatever the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// Which requests.
    pub by: AudienceBy,
    /// One of its service's.
    pub version: VersionName,
}

/// Copies of requests go to a version whose answers nobody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionMirror {
    /// One of its service's.
    pub version: VersionName,
    /// Share of requests that are copied, in parts of a million: 1 to 1,000,000.
    pub per_million: u32,
}
