//! What a match wants, how it ranks, and why a request is not it.

use std::cmp::Reverse;
use std::fmt::{self, Write as _};

use http::{HeaderValue, Request};
use weir_mesh::model::{PathMatch, Pattern, RouteKind, RouteMatch, RouteRule, ValueMatch};

use crate::table::query_param;

/// Values longer than this are shown in part: they are told, not given.
const SHOWN: usize = 80;

/// Why a match does not take a request: the first thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The host.
    Host {
        /// As the route has it.
        wanted: String,
        /// As the request has it.
        found: String,
    },
    /// The path.
    Path {
        /// As the route has it, in words.
        wanted: String,
        /// As the request has it.
        found: String,
    },
    /// The method.
    Method {
        /// As the route has it.
        wanted: String,
        /// As the request has it.
        found: String,
    },
    /// A header.
    Header {
        /// Its name.
        name: String,
        /// As the route has it.
        wanted: String,
        /// None: it is not there.
        found: Option<String>,
    },
    /// A query parameter.
    Query {
        /// Its name.
        name: String,
        /// As the route has it.
        wanted: String,
        /// None: it is not there.
        found: Option<String>,
    },
}

impl Why {
    /// `host`, `path`, `method`, `header` or `query`.
    #[must_use]
    pub fn part(&self) -> &'static str {
        match self {
            Self::Host { .. } => "host",
            Self::Path { .. } => "path",
            Self::Method { .. } => "method",
            Self::Header { .. } => "header",
            Self::Query { .. } => "query",
        }
    }

    /// Whether only headers or the query stand in the way.
    #[must_use]
    pub fn is_of_more(&self) -> bool {
        matches!(self, Self::Header { .. } | Self::Query { .. })
    }

    /// Whether host and path fit.
    #[must_use]
    pub fn is_near(&self) -> bool {
        !matches!(self, Self::Host { .. } | Self::Path { .. })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { wanted, found } => write!(f, "host: wants {wanted}, is {found}"),
            Self::Path { wanted, found } => write!(f, "path: wants {wanted}, is {found}"),
            Self::Method { wanted, found } => write!(f, "method: wants {wanted}, is {found}"),
            Self::Header { name, wanted, found } => pair(f, "header", name, wanted, found),
            Self::Query { name, wanted, found } => pair(f, "query", name, wanted, found),
        }
    }
}

fn pair(
    f: &mut fmt::Formatter<'_>,
    part: &str,
    name: &str,
    wanted: &str,
    found: &Option<String>,
) -> fmt::Result {
    match found {
        Some(found) => write!(f, "{part} {name}: wants {wanted}, is {found}"),
        None => write!(f, "{part} {name}: wants {wanted}, is not there"),
    }
}

/// The Gateway API's order after the host, with the place of patterns that
/// [`crate::table::Matcher`] gives them. Smaller goes first.
pub fn rank(kind: RouteKind, wants: &RouteMatch) -> impl Ord + use<> {
    let of = |pattern: &Option<Pattern>| pattern.as_ref().map_or(0, |p| p.as_str().len());
    let (class, length) = match &wants.path {
        PathMatch::Exact(_) => (0, (0, 0)),
        PathMatch::Prefix(path) if path.is_empty() => (5, (0, 0)),
        // One segment is a gRPC service.
        PathMatch::Prefix(path) if kind == RouteKind::Grpc && !path[1..].contains('/') => {
            (1, (path.len(), 0))
        }
        PathMatch::Regex(pattern) => (2, (pattern.as_str().len(), 0)),
        PathMatch::GrpcRegex { service, method } => (2, (of(service), of(method))),
        PathMatch::Prefix(path) => (3, (path.len(), 0)),
        PathMatch::GrpcMethod(_) => (4, (0, 0)),
    };
    let no_method = wants.method.is_none();
    let more = (Reverse(wants.headers.len()), Reverse(wants.query.len()));
    (class, Reverse(length), no_method, more)
}

/// Why a match does not take a request; none: it does.
pub fn why_not(wants: &RouteMatch, request: &Request<()>) -> Option<Why> {
    let path = request.uri().path();
    if !wants.path.matches(path) {
        return Some(Why::Path { wanted: self::path(&wants.path), found: short(path) });
    }
    if let Some(wanted) = wants.method.as_ref().filter(|wanted| *wanted != request.method()) {
        let found = request.method().to_string();
        return Some(Why::Method { wanted: wanted.to_string(), found });
    }
    for (name, wanted) in &wants.headers {
        // Of a repeated header the Gateway API matches the first.
        let found = request.headers().get(name);
        if found.is_none_or(|found| !wanted.matches(found.as_bytes())) {
            let text = |value: &HeaderValue| short(&String::from_utf8_lossy(value.as_bytes()));
            let (name, wanted) = (name.to_string(), value(wanted));
            return Some(Why::Header { name, wanted, found: found.map(text) });
        }
    }
    for (name, wanted) in &wants.query {
        let found = query_param(request.uri().query().unwrap_or_default(), name);
        if found.as_deref().is_none_or(|found| !wanted.matches(found.as_bytes())) {
            let found = found.as_deref().map(short);
            return Some(Why::Query { name: name.to_string(), wanted: value(wanted), found });
        }
    }
    None
}

/// `GET /v1/products/* x-user: 7 ?page=1`; a regular expression has a `~` before it.
pub fn text(wants: &RouteMatch) -> String {
    let mut text = String::new();
    if let Some(method) = &wants.method {
        let _ = write!(text, "{method} ");
    }
    text.push_str(&path(&wants.path));
    for (name, wanted) in &wants.headers {
        let _ = write!(text, " {name}: {}", value(wanted));
    }
    for (name, wanted) in &wants.query {
        let _ = match wanted {
            ValueMatch::Exact(exact) => write!(text, " ?{name}={}", short(exact)),
            ValueMatch::Regex(pattern) => write!(text, " ?{name}=~{}", short(pattern.as_str())),
        };
    }
    text
}

fn path(path: &PathMatch) -> String {
    let pattern = |pattern: &Option<Pattern>| match pattern {
        Some(pattern) => format!("~{}", short(pattern.as_str())),
        None => "*".to_owned(),
    };
    match path {
        PathMatch::Exact(path) => short(path),
        PathMatch::Prefix(path) => format!("{}/*", short(path)),
        PathMatch::Regex(pattern) => format!("~{}", short(pattern.as_str())),
        PathMatch::GrpcMethod(method) => format!("/*/{}", short(method)),
        PathMatch::GrpcRegex { service, method } => {
            format!("/{}/{}", pattern(service), pattern(method))
        }
    }
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(value) => short(value),
        ValueMatch::Regex(pattern) => format!("~{}", short(pattern.as_str())),
    }
}

/// What a rule says beside its matches and backends, for comparison.
pub fn beside_matches(rule: &RouteRule) -> String {
    let rest = RouteRule { matches: Vec::new(), backends: Vec::new(), ..rule.clone() };
    format!("{rest:?}")
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
