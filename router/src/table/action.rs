//! What a rule does with a request, ready to be done.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use weir_mesh::model::{
    Cors, ForceVersion, HeaderModifier, Redirect, RetryRule, Rewrite, SessionKind,
};

use super::{ExtensionEntry, ServiceEntry, Splitter};
use crate::auth::Guard;
use crate::limit::rule::Attachment;

/// What a rule does with a request.
pub struct Action {
    /// `route/rule`, for logs and metrics.
    pub label: Arc<str>,
    /// Where it goes; empty when a filter answers.
    pub backends: Vec<Backend>,
    /// Divides requests between `backends`, by index.
    pub splitter: Splitter,
    /// For the whole request.
    pub timeout: Option<Duration>,
    /// For each try.
    pub backend_timeout: Option<Duration>,
    /// When an answer is asked for again; none: the service's own way.
    pub retry: Option<RetryRule>,
    /// None: nothing is changed.
    pub filters: Option<Box<Filters>>,
    /// Who may use it, where that is attached to the route itself.
    pub guard: Option<Arc<Guard>>,
    /// How often it may be asked; mostly empty.
    pub limits: Vec<Attachment>,
    /// HTTPRouteFilters; mostly empty.
    pub extensions: Vec<Arc<ExtensionEntry>>,
    /// What few rules have.
    pub rare: Option<Box<Rare>>,
}

impl Action {
    /// What pages of other origins may do; none: what the mesh says.
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.rare.as_ref()?.cors.as_ref()
    }
}

/// One backend of a rule.
pub enum Backend {
    /// It can be asked.
    Service(Target),
    /// It cannot, for this reason: its share is answered 500.
    Invalid(Arc<str>),
}

/// Where a share goes.
pub struct Target {
    /// The service.
    pub service: Arc<ServiceEntry>,
    /// An index into its versions; none: by its own split.
    pub version: Option<usize>,
    /// Of this backend alone.
    pub filters: Option<Box<Filters>>,
}

/// What filters do, in the order in which it is done.
#[derive(Default)]
pub struct Filters {
    /// Answers instead of forwarding.
    pub redirect: Option<Redirect>,
    /// Applied to the request in order.
    pub request_headers: Vec<HeaderModifier>,
    /// Of host and path.
    pub rewrite: Option<Rewrite>,
    /// Bytes of the path that the rule's prefix takes, for `redirect` and
    /// `rewrite`.
    pub prefix: usize,
    /// Copies of the request.
    pub mirrors: Vec<Mirror>,
    /// Applied to the response in order.
    pub response_headers: Vec<HeaderModifier>,
    /// Objects of `weir.dev` by kind and name; whoever knows them acts on them.
    pub extensions: Vec<(Arc<str>, Arc<str>)>,
}

/// Where copies of requests go.
pub struct Mirror {
    /// The service.
    pub service: Arc<ServiceEntry>,
    /// An index into its versions; none: by its own split.
    pub version: Option<usize>,
    /// Divides requests between those that are copied (0) and others; none: all.
    pub part: Option<Splitter>,
}

/// What few rules have.
#[derive(Default)]
pub struct Rare {
    /// Which pages of other origins may call.
    pub cors: Option<Cors>,
    /// Keeps a client where it was.
    pub session: Option<Session>,
    /// What of a request may name its version.
    pub force: Option<ForceVersion>,
    /// The version is carried along.
    pub pin: bool,
}

/// Keeps a client on the backend that it got first (GEP-1619).
pub struct Session {
    /// Of the cookie, or of the header.
    pub name: Arc<str>,
    /// The same as a header's name, when it is one.
    pub header: Option<HeaderName>,
    /// How it is carried.
    pub kind: SessionKind,
    /// From its first request on.
    pub absolute_timeout: Option<Duration>,
    /// From its last request on.
    pub idle_timeout: Option<Duration>,
}
