//! HTTPRouteFilter: what a rule does beside the Gateway API's own filters.

mod document;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

pub use document::FilterDocument;

use super::{Kind, TargetKind};
use crate::model::Violations;

/// What a rule does beside the Gateway API's own filters. At least one is set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Harm done on purpose.
    pub fault: Option<Fault>,
    /// The router answers itself.
    pub direct_response: Option<DirectResponse>,
    /// How large bodies may be.
    pub limits: BodyLimits,
    /// Answers become smaller on the way to the client.
    pub compression: Option<Compression>,
}

/// Harm done on purpose. At least one is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Requests wait.
    pub delay: Option<Delay>,
    /// Requests fail.
    pub abort: Option<Abort>,
}

/// Requests wait before they go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Delay {
    /// 1 ms to 1 h.
    pub duration: Duration,
    /// How many do.
    pub share: Share,
}

/// Requests are answered with an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// With which.
    pub with: AbortWith,
    /// How many are.
    pub share: Share,
}

/// The error of an abort; the other protocol's client gets what corresponds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortWith {
    /// 400 to 599.
    Http(StatusCode),
    /// 1 to 16.
    Grpc(u8),
}

/// A share of all requests, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// All.
    pub const ALL: Self = Self(1_000_000);

    /// Of a percentage: 0 to 100 in steps of 0.0001.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is from 0 to a million"
    )]
    pub fn of_percentage(percentage: f64) -> Option<Self> {
        let millionths = percentage * 10_000.0;
        let whole = millionths.round();
        let fits = (0.0..=100.0).contains(&percentage) && (millionths - whole).abs() < 1e-6;
        fits.then_some(Self(whole as u32))
    }

    /// 0 to 1,000,000.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }
}

/// An answer of the router itself.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// Set on the answer, the content type among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// At most 4 KiB.
    pub body: Arc<str>,
}

/// How large bodies may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyLimits {
    /// Of a request.
    pub request: Option<u64>,
    /// Of an answer, as it comes from the backend.
    pub response: Option<u64>,
}

/// Answers become smaller on the way to the client (gzip).
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    /// Answers that are known to be smaller stay as they are.
    pub min_bytes: u64,
    /// Media types that are compressed, lower-case; `text/*` is every one of
    /// its kind.
    pub content_types: Vec<Arc<str>>,
}

impl Compression {
    /// Whether a content type (RFC 9110 §8.3) is one of them.
    #[must_use]
    pub fn is_for(&self, content_type: &str) -> bool {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let is = |wanted: &Arc<str>| match wanted.strip_suffix('*') {
            Some(kind) => {
                media.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
            }
            None => media.eq_ignore_ascii_case(wanted),
        };
        self.content_types.iter().any(is)
    }
}

impl Kind for Filter {
    type Document = FilterDocument;

    const TARGETS: &'static [TargetKind] = &[TargetKind::HttpRoute, TargetKind::GrpcRoute];

    const TARGETS_OPTIONAL: bool = true;

    const ONE_PER_TARGET: bool = false;

    fn read(document: FilterDocument, at: &str, bad: &mut Violations) -> Option<Self> {
        document.read(at, bad)
    }
}

#[cfg(test)]
mod tests;
