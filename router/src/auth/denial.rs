//! What those are told who may not.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::decide::Finding;
use super::who;
use crate::error::RouterError;

/// Why a request may not go on, and what its client is told. Displayed, it is
/// what the client may know.
#[derive(Debug)]
pub struct Denial {
    /// 403, or what an external decision says.
    pub status: StatusCode,
    /// Envoy's word for it.
    pub flag: &'static str,
    /// All that is known, for the access log.
    pub full: String,
    shown: String,
    /// What an external decision answers with instead.
    pub answer: Option<(HeaderMap, Bytes)>,
}

impl Denial {
    /// By a policy.
    pub(super) fn by_policy(finding: &Finding, identity: &str, hide: bool) -> Self {
        let shown = match hide {
            true => "access denied".to_owned(),
            false => format!("access denied: {finding}"),
        };
        let full = format!("access denied: {finding}; the caller is {}", who(identity));
        let flag = "RBAC_ACCESS_DENIED";
        Self { status: StatusCode::FORBIDDEN, flag, full, shown, answer: None }
    }

    /// By another service, or because it did not answer.
    pub(super) fn external(
        status: StatusCode,
        policy: &str,
        why: &str,
        hide: bool,
        answer: Option<(HeaderMap, Bytes)>,
    ) -> Self {
        let full = format!("access denied: AuthorizationPolicy {policy}: {why}");
        let shown = if hide { "access denied".to_owned() } else { full.clone() };
        Self { status, flag: "UAEX", full, shown, answer }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl From<Denial> for RouterError {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

/// A request of which is not known whose it is.
#[derive(Debug)]
pub struct Unauthenticated {
    /// For metrics: a word.
    pub reason: &'static str,
    /// What is wrong, without the token.
    pub text: String,
    /// Whether a token was sent at all (RFC 6750 §3.1).
    pub sent: bool,
}

impl Unauthenticated {
    /// `WWW-Authenticate` (RFC 6750 §3).
    #[must_use]
    pub fn challenge(&self) -> HeaderValue {
        const REALM: &str = "Bearer realm=\"weir\"";
        if !self.sent {
            return HeaderValue::from_static(REALM);
        }
        let text = self.text.replace(['"', '\\'], "'");
        let value = format!("{REALM}, error=\"invalid_token\", error_description=\"{text}\"");
        HeaderValue::from_str(&value).unwrap_or_else(|_| HeaderValue::from_static(REALM))
    }
}

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Unauthenticated> for RouterError {
    fn from(error: Unauthenticated) -> Self {
        Self::Unauthenticated(Box::new(error))
    }
}
