//! What a match wants, how it ranks, and why a request is not it.

use std::cmp::Reverse;
use std::fmt::{self, Write as _};

use http::Request;
use weir_mesh::model::{PathMatch, RouteKind, RouteMatch, RouteRule};

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

/// The Gateway API's order after the host. Smaller goes first.
pub fn rank(_kind: RouteKind, wants: &RouteMatch) -> impl Ord + use<> {
    let path = match &wants.path {
        PathMatch::Exact(_) => (0, Reverse(0)),
        PathMatch::Prefix(path) => (1, Reverse(path.len())),
    };
    let no_method = wants.method.is_none();
    (path, no_method, Reverse(wants.headers.len()), Reverse(wants.query.len()))
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
        let found = request.headers().get(name);
        if found.is_none_or(|found| found != wanted) {
            let text =
                |value: &http::HeaderValue| short(&String::from_utf8_lossy(value.as_bytes()));
            let (name, wanted) = (name.to_string(), text(wanted));
            return Some(Why::Header { name, wanted, found: found.map(text) });
        }
    }
    for (name, wanted) in &wants.query {
        let found = query_param(request.uri().query().unwrap_or_default(), name);
        if found.as_deref() != Some(&**wanted) {
            let found = found.as_deref().map(short);
            return Some(Why::Query { name: name.to_string(), wanted: short(wanted), found });
        }
    }
    None
}

/// `GET /v1/products/* x-user: 7 ?page=1`.
pub fn text(wants: &RouteMatch) -> String {
    let mut text = String::new();
    if let Some(method) = &wants.method {
        let _ = write!(text, "{method} ");
    }
    text.push_str(&path(&wants.path));
    for (name, value) in &wants.headers {
        let _ = write!(text, " {name}: {}", short(&String::from_utf8_lossy(value.as_bytes())));
    }
    for (name, value) in &wants.query {
        let _ = write!(text, " ?{name}={}", short(value));
    }
    text
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => short(path),
        PathMatch::Prefix(path) => format!("{}/*", short(path)),
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
