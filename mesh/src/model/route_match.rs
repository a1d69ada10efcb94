//! What a rule of a route takes.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::Pattern;

/// How a path must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path.
    Exact(Arc<str>),
    /// This path or anything below it, by segment; without a trailing slash
    /// (the root is the empty text).
    Prefix(Arc<str>),
    /// The whole path fits.
    Regex(Pattern),
    /// `/any.service/this`: a gRPC method, whatever its service.
    GrpcMethod(Arc<str>),
    /// `/service/method`, where both fit; at least one is set.
    GrpcRegex {
        /// None: any service.
        service: Option<Pattern>,
        /// None: any method.
        method: Option<Pattern>,
    },
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
            Self::Regex(pattern) => pattern.matches(path),
            Self::GrpcMethod(want) => grpc_call(path).is_some_and(|(_, method)| method == &**want),
            Self::GrpcRegex { service, method } => grpc_call(path).is_some_and(|(s, m)| {
                service.as_ref().is_none_or(|p| p.matches(s))
                    && method.as_ref().is_none_or(|p| p.matches(m))
            }),
        }
    }

    /// Matches every path.
    #[must_use]
    pub fn any() -> Self {
        Self::Prefix("".into())
    }
}

/// Service and method that a path of gRPC names (gRPC over HTTP/2).
#[must_use]
pub fn grpc_call(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/'))
        .then_some((service, method))
}

/// How a value must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// It is this.
    Exact(Arc<str>),
    /// All of it fits.
    Regex(Pattern),
}

impl ValueMatch {
    /// Whether `value` is meant. What is no text fits no pattern.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(want) => want.as_bytes() == value,
            Self::Regex(pattern) => {
                std::str::from_utf8(value).is_ok_and(|value| pattern.matches(value))
            }
        }
    }
}

/// What a request must be, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Path.
    pub path: PathMatch,
    /// Method, if it matters.
    pub method: Option<Method>,
    /// Headers that must be there; of a repeated one, the first counts.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Query parameters that must be there (decoded).
    pub query: Vec<(Arc<str>, ValueMatch)>,
}

impl RouteMatch {
    /// Matches every request.
    #[must_use]
    pub fn any() -> Self {
        Self { path: PathMatch::any(), method: None, headers: Vec::new(), query: Vec::new() }
    }
}
