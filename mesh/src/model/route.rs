//! Routes: HTTPRoute and GRPCRoute of the Gateway API.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::route_filter::RouteFilter;
use super::route_match::RouteMatch;
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
    /// Requests that callers in one namespace send to this service; such routes go
    /// before those for every caller (GEP-1324's consumer routes).
    Consumer {
        /// The service.
        service: ServiceName,
        /// The callers' namespace.
        namespace: Arc<str>,
    },
    /// Requests that enter by one listener of a gateway: a [`Listener`]'s id.
    ///
    /// [`Listener`]: super::Listener
    Listener(Arc<str>),
}

impl Parent {
    /// The service whose requests are meant; none for gateways.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(service) | Self::Consumer { service, .. } => Some(service),
            Self::Gateway | Self::Listener(_) => None,
        }
    }
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

/// Where a share of a rule's requests goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// The service.
    pub service: ServiceName,
    /// One version of it; none: by the service's own split.
    pub version: Option<VersionName>,
    /// Its share.
    pub weight: Weight,
    /// For its share alone, after those of the rule.
    pub filters: Vec<RouteFilter>,
    /// Why it cannot be used: its share is answered 500, as the Gateway API has
    /// it. No document says so; a control plane that finds out later does.
    pub invalid: Option<Arc<str>>,
}

impl BackendRef {
    /// A usable one without filters.
    #[must_use]
    pub fn new(service: ServiceName, version: Option<VersionName>, weight: Weight) -> Self {
        Self { service, version, weight, filters: Vec::new(), invalid: None }
    }

    /// One that leads nowhere, of weight 1. Its service is never looked for.
    #[must_use]
    pub fn nowhere(why: &str) -> Self {
        let new = Self::new(ServiceName::nowhere(), None, Weight::ONE);
        Self { invalid: Some(why.into()), ..new }
    }
}

/// When an answer is asked for again (GEP-1731).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryRule {
    /// HTTP statuses from 400 to 599, each once; empty: the router's own choice.
    pub codes: Vec<u16>,
    /// Tries after the first; none: the router's own choice.
    pub attempts: Option<u32>,
    /// Least time before another try; none: the router's own choice.
    pub backoff: Option<Duration>,
}

/// What carries a session from one request to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// A cookie that goes with the browser.
    Cookie,
    /// A cookie that outlives the browser, for the absolute timeout.
    PermanentCookie,
    /// A header of answers, which clients send back.
    Header,
}

/// Keeps a client on the backend that it got first (GEP-1619).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPersistence {
    /// Of the cookie or header; none: one of the rule's own.
    pub name: Option<Arc<str>>,
    /// How it is carried.
    pub kind: SessionKind,
    /// From its first request on.
    pub absolute_timeout: Option<Duration>,
    /// From its last request on.
    pub idle_timeout: Option<Duration>,
}

/// What of a request may force a version: `weir.dev/force-version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForceVersion {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie (RFC 6265).
    Cookie(Arc<str>),
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
    /// Empty only when a filter answers in their place. The weights never sum
    /// to 0.
    pub backends: Vec<BackendRef>,
    /// For the whole request, retries included.
    pub timeout: Option<Duration>,
    /// For each try; never above `timeout`.
    pub backend_timeout: Option<Duration>,
    /// None: the router's own way.
    pub retry: Option<RetryRule>,
    /// None: each request is for itself.
    pub session: Option<SessionPersistence>,
}

impl RouteRule {
    /// Sends everything to these.
    #[must_use]
    pub fn to(backends: Vec<BackendRef>) -> Self {
        Self {
            name: "".into(),
            matches: vec![RouteMatch::any()],
            filters: Vec::new(),
            backends,
            timeout: None,
            backend_timeout: None,
            retry: None,
            session: None,
        }
    }
}

impl RouteRule {
    /// Everything that it names and that must be there, with its place below the
    /// rule: `backendRefs[0]`, `filters[1].requestMirror`.
    pub fn targets(&self) -> impl Iterator<Item = (String, &ServiceName, Option<&VersionName>)> {
        let of_rule = mirrors(String::new(), &self.filters);
        let of_backends = self.backends.iter().enumerate().flat_map(|(i, backend)| {
            let place = format!("backendRefs[{i}]");
            let mirrors = mirrors(format!("{place}."), &backend.filters);
            let own = (place, &backend.service, backend.version.as_ref());
            backend.invalid.is_none().then_some(own).into_iter().chain(mirrors)
        });
        of_rule.chain(of_backends)
    }
}

fn mirrors(
    at: String,
    filters: &[RouteFilter],
) -> impl Iterator<Item = (String, &ServiceName, Option<&VersionName>)> {
    filters.iter().enumerate().filter_map(move |(i, filter)| match filter {
        RouteFilter::RequestMirror(mirror) => {
            let place = format!("{at}filters[{i}].requestMirror");
            Some((place, &mirror.service, mirror.version.as_ref()))
        }
        _ => None,
    })
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
    /// None: a request cannot name a version.
    pub force_version: Option<ForceVersion>,
    /// What enters by it takes the versions that it got along, as baggage.
    pub pin_versions: bool,
}
