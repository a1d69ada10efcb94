//! What a rule does to requests and answers beside forwarding.

use std::num::NonZeroU16;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::{ServiceName, VersionName};

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

/// Changes a path. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// Becomes this path.
    Full(Arc<str>),
    /// What the rule's one `PathPrefix` took becomes this; without a trailing
    /// slash (the root is the empty text).
    Prefix(Arc<str>),
}

/// A scheme that a redirect may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`, port 80.
    Http,
    /// `https`, port 443.
    Https,
}

impl Scheme {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be written.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Answers with another place to ask (RFC 9110 §15.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// None: the request's.
    pub scheme: Option<Scheme>,
    /// A precise name, lower-case; none: the request's.
    pub hostname: Option<Arc<str>>,
    /// None: the request's.
    pub path: Option<PathModifier>,
    /// None: the scheme's, or the request's where the scheme stays.
    pub port: Option<NonZeroU16>,
    /// One of [`Redirect::STATUSES`].
    pub status: u16,
}

impl Redirect {
    /// What a redirect may answer.
    pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
}

/// Changes host and path of what is sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// A precise name, lower-case.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// A part of all requests: `numerator / denominator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: u32,
    /// Above 0.
    pub denominator: u32,
}

/// Sends a copy of requests elsewhere and forgets the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The service.
    pub service: ServiceName,
    /// One version of it; none: by the service's own split.
    pub version: Option<VersionName>,
    /// None: of every request.
    pub fraction: Option<Fraction>,
}

/// An origin (RFC 6454) that may have a wildcard in its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`.
    Any,
    /// `http://shop.test:8080`, lower-case, as browsers write it: without the
    /// scheme's own port.
    Exact(Arc<str>),
    /// `https://*.shop.test`: what is before the `*`, and what is after it.
    Wildcard(Arc<str>, Arc<str>),
}

impl OriginPattern {
    /// Parses an origin of the Gateway API.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            format!(
                "{shown:?} is not an origin, such as https://shop.test, https://*.shop.test or *"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let default = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wrong()),
        };
        let (host, port) = match rest.split_once(':') {
            None => (rest, None),
            Some((host, port)) => (host, Some(port.parse::<NonZeroU16>().map_err(|_| wrong())?)),
        };
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'*');
        let stars = host.bytes().filter(|b| *b == b'*').count();
        if host.is_empty() || host.len() > 253 || stars > 1 || !host.bytes().all(letter) {
            return Err(wrong());
        }
        let port = port.filter(|port| port.get() != default.port());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let whole = format!("{scheme}://{}{port}", host.to_ascii_lowercase());
        Ok(match whole.split_once('*') {
            None => Self::Exact(whole.into()),
            Some((before, after)) => Self::Wildcard(before.into(), after.into()),
        })
    }

    /// Whether the value of an `Origin` header is meant.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(want) => &**want == origin,
            Self::Wildcard(before, after) => {
                let middle =
                    origin.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                // A `*` at the end must not take a port that was not named.
                middle.is_some_and(|m| !m.is_empty() && !m.contains([':', '/']))
            }
        }
    }
}

impl std::fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Wildcard(before, after) => write!(f, "{before}*{after}"),
        }
    }
}

/// A list of names, or all there are (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names<T> {
    /// `*`.
    Any,
    /// These; may be empty.
    These(Vec<T>),
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// Which pages of other origins may call (Fetch standard, "CORS protocol").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Empty: none.
    pub allow_origins: Vec<OriginPattern>,
    /// With cookies and credentials.
    pub allow_credentials: bool,
    /// Beside GET, HEAD and POST, which always may.
    pub allow_methods: Names<Method>,
    /// Of requests.
    pub allow_headers: Names<HeaderName>,
    /// Of answers.
    pub expose_headers: Names<HeaderName>,
    /// Seconds that a browser may remember a preflight; above 0.
    pub max_age: u32,
}

impl Cors {
    /// The Gateway API's default, in seconds.
    pub const MAX_AGE: u32 = 5;
}

/// What a rule does beside forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFilter {
    /// Before the request goes on.
    RequestHeaderModifier(HeaderModifier),
    /// Before the answer goes back.
    ResponseHeaderModifier(HeaderModifier),
    /// Instead of forwarding.
    RequestRedirect(Redirect),
    /// Before the request goes on.
    UrlRewrite(Rewrite),
    /// Beside forwarding.
    RequestMirror(Mirror),
    /// Around it.
    Cors(Cors),
    /// An object of `weir.dev`.
    Extension {
        /// Its kind.
        kind: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
}

impl RouteFilter {
    /// Its `type` in the Gateway API.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::RequestHeaderModifier(_) => "RequestHeaderModifier",
            Self::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            Self::RequestRedirect(_) => "RequestRedirect",
            Self::UrlRewrite(_) => "URLRewrite",
            Self::RequestMirror(_) => "RequestMirror",
            Self::Cors(_) => "CORS",
            Self::Extension { .. } => "ExtensionRef",
        }
    }

    /// What it does to the path, if it does.
    #[must_use]
    pub fn path(&self) -> Option<&PathModifier> {
        match self {
            Self::RequestRedirect(redirect) => redirect.path.as_ref(),
            Self::UrlRewrite(rewrite) => rewrite.path.as_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let matches =
            |pattern: &str, origin: &str| OriginPattern::parse(pattern).unwrap().matches(origin);
        assert!(matches("*", "null"));
        assert!(matches("https://shop.test", "https://shop.test"));
        assert!(matches("https://shop.test:443", "https://shop.test"));
        assert!(!matches("https://shop.test", "http://shop.test"));
        assert!(!matches("https://shop.test", "https://shop.test:8443"));
        assert!(matches("https://*.shop.test", "https://a.b.shop.test"));
        assert!(!matches("https://*.shop.test", "https://shop.test"));
        assert!(!matches("https://*.shop.test", "https://evil.test/.shop.test"));
        assert!(!matches("https://*.shop.test", "https://a.shop.test.evil.test"));
        assert!(matches("http://*:8080", "http://any.test:8080"));
        assert!(!matches("http://*", "http://any.test:8080"));
        for bad in
            ["", "shop.test", "ftp://a", "https://", "https://a:0", "https://a/b", "http://*.*"]
        {
            assert!(OriginPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
