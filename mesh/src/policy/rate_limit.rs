//! RateLimitPolicy: how often something may be asked.

mod document;
mod store;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub use document::RateLimitDocument;
pub use store::{Store, StoreUrl, StoreUrlError};

use super::{Kind, TargetKind};
use crate::model::{PathMatch, Violations};

/// Most rules of one policy.
pub const MAX_RULES: usize = 16;

/// How often something may be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// In the order in which they are asked; never empty.
    pub rules: Vec<LimitRule>,
    /// What a limit that is used up means.
    pub mode: LimitMode,
    /// What holds while the store cannot be asked.
    pub on_failure: OnFailure,
    /// Where the counts of rules with scope Global are kept; set when there are
    /// such rules.
    pub store: Option<Store>,
}

/// What a limit that is used up means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitMode {
    /// The request is refused.
    Enforce,
    /// The request is let through and counted as one that would be refused.
    Audit,
}

/// What holds while the store cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Each router holds the limit by itself.
    Open,
    /// Requests are refused.
    Closed,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each router by itself.
    Local,
    /// All routers together, in the store.
    Global,
}

/// One limit.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitRule {
    /// Unique in the policy; a DNS label.
    pub name: Arc<str>,
    /// Which requests it counts.
    pub matches: LimitMatch,
    /// What has a count of its own; empty: all requests share one.
    pub key: Vec<KeyPart>,
    /// How many in `per`: 1 to 1,000,000.
    pub requests: NonZeroU32,
    /// 1 s to 24 h.
    pub per: Duration,
    /// How many at once (Local): 1 to 1,000,000.
    pub burst: NonZeroU32,
    /// How many a request counts as; at most `burst`.
    pub cost: NonZeroU32,
    /// Who counts.
    pub scope: Scope,
    /// How many keys a router counts at a time: 1 to 1,000,000.
    pub max_keys: u32,
}

/// Which requests a limit counts: all that is set must be so.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LimitMatch {
    /// Method.
    pub method: Option<Method>,
    /// Path.
    pub path: Option<PathMatch>,
    /// Headers that must be there with exactly this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl LimitMatch {
    /// Whether a request is counted.
    #[must_use]
    pub fn matches(&self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        let header = |(name, value): &(HeaderName, HeaderValue)| {
            headers.get_all(name).iter().any(|found| found == value)
        };
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path.as_ref().is_none_or(|wanted| wanted.matches(path))
            && self.headers.iter().all(header)
    }
}

/// One part of what has a count of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The SPIFFE id that the caller's certificate proves.
    ClientIdentity,
    /// The address that the connection came from; of IPv6, its /64.
    SourceIp,
    /// The value of a header.
    Header(HeaderName),
    /// The value of the header that names the tenant.
    Tenant(HeaderName),
    /// A claim of a token that was verified.
    Claim(Arc<str>),
}

impl Kind for RateLimit {
    type Document = RateLimitDocument;

    const TARGETS: &'static [TargetKind] = &TargetKind::ALL;

    const ONE_PER_TARGET: bool = false;

    fn read(document: RateLimitDocument, at: &str, bad: &mut Violations) -> Option<Self> {
        document.read(at, bad)
    }
}

#[cfg(test)]
mod tests;
