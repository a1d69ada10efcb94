//! Routes: HTTPRoute and GRPCRoute of the Gateway API.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::{ServiceName, VersionName, Weight};

/// Which kind a route was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute; its method matches are paths here.
    Grpc,
}

/// Whose traffic a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Requests of the mesh to this service.
    Service(ServiceName),
    /// Requests that enter by the gateway.
    Gateway,
}

/// Why a text is no host name of a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name; use `name.example.com`, or `*.example.com` for a wildcard")]
pub struct HostPatternError(String);

/// A host name, or a wildcard for every name below a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One name, lower-case.
    Exact(Arc<str>),
    /// `*.example.com`; held as `.example.com`.
    Suffix(Arc<str>),
}

impl HostPattern {
    /// Parses a Gateway API `Hostname`.
    ///
    /// # Errors
    /// [`HostPatternError`] for an IP address, a port, or a wildcard elsewhere
    /// than in place of the first label.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let error = || HostPatternError(text.chars().take(260).collect());
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
        if name.len() > 253 || numeric || !name.split('.').all(label) {
            return Err(error());
        }
        Ok(if wildcard {
            Self::Suffix(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }

    /// Whether `host` (lower-case, without port) is meant.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => &**name == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// How a path must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path.
    Exact(Arc<str>),
    /// This path or anything below it, by segment; without a trailing slash
    /// (the root is the empty text).
    Prefix(Arc<str>),
}

impl PathMatch {
    /// Whether the path (without query) is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(want) => &**want == path,
            Self::Prefix(want) => path
                .strip_prefix(&**want)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// Matches every path.
    #[must_use]
    pub fn any() -> Self {
        Self::Prefix("".into())
    }
}

/// What a request must be, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Path.
    pub path: PathMatch,
    /// Method, if it matters.
    pub method: Option<Method>,
    /// Headers that must be there with exactly this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Query parameters that must be there with exactly this value (decoded).
    pub query: Vec<(Arc<str>, Arc<str>)>,
}

impl RouteMatch {
    /// Matches every request.
    #[must_use]
    pub fn any() -> Self {
        Self { path: PathMatch::any(), method: None, headers: Vec::new(), query: Vec::new() }
    }
}

/// Changes headers, in the Gateway API's order: set, add, remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderModifier {
    /// Replaces.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appends.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Takes away.
    pub remove: Vec<HeaderName>,
}

/// What a rule does beside forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFilter {
    /// Before the request goes on.
    RequestHeaderModifier(HeaderModifier),
    /// Before the answer goes back.
    ResponseHeaderModifier(HeaderModifier),
}

/// Where a share of a rule's requests goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// The service.
    pub service: ServiceName,
    /// One version of it; none: by the service's own split.
    pub version: Option<VersionName>,
    /// Its share.
    pub weight: Weight,
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// May be empty.
    pub name: Arc<str>,
    /// Any of these; never empty.
    pub matches: Vec<RouteMatch>,
    /// In order.
    pub filters: Vec<RouteFilter>,
    /// Never empty, and the weights never sum to 0.
    pub backends: Vec<BackendRef>,
    /// For the whole request, retries included.
    pub timeout: Option<Duration>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Unique in the mesh; a DNS subdomain name.
    pub name: Arc<str>,
    /// As it was written.
    pub kind: RouteKind,
    /// Never empty.
    pub parents: Vec<Parent>,
    /// Empty: every host.
    pub hostnames: Vec<HostPattern>,
    /// Never empty.
    pub rules: Vec<RouteRule>,
}
