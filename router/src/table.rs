//! The compiled snapshot: what a request looks things up in. Immutable; a new
//! one takes its place as a whole.

mod build;
mod filters;
mod intern;
mod matcher;
pub mod reflection;
mod split;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{HeaderModifier, Options, Protocol, ServiceName, Sticky, VersionName};
use weir_mesh::transcode::Transcoder;

use crate::limit::Attachment;
use crate::upstream::Reach;
pub use build::Builder;
pub use filters::{FilterEntry, Filters};
pub use intern::Interner;
pub use matcher::{Matcher, Query};
pub use split::{SplitState, Splitter, point};

/// A map whose keys come from the configuration: requests look things up in it
/// and put nothing in, so nobody can make its keys collide.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// One snapshot, ready for lookups.
pub struct Table {
    /// Of the snapshot.
    pub sequence: u64,
    /// The desired state behind it.
    pub revision: u32,
    /// By name.
    pub services: Map<ServiceName, Destination>,
    /// For what enters by the gateway.
    pub gateway: Matcher,
    /// Limits of services, for the routers beside their instances. A service
    /// without any is not here.
    pub inbound_limits: Map<ServiceName, Arc<[Attachment]>>,
    /// Set when a service of the snapshot had descriptors (gateway only).
    pub reflection: Option<Arc<reflection::Reflection>>,
    /// Mesh-wide switches.
    pub options: Options,
}

/// What requests inside the mesh that name a service get.
pub struct Destination {
    /// The service that was named.
    pub service: Arc<ServiceEntry>,
    /// Rules of routes whose parent it is.
    pub routes: Matcher,
    /// Without such routes: the service itself, by its own split.
    pub default: Arc<Action>,
}

/// One service.
pub struct ServiceEntry {
    /// Its name.
    pub name: ServiceName,
    /// What its instances speak.
    pub protocol: Protocol,
    /// Who its routers must prove to be.
    pub identity: Arc<SpiffeId>,
    /// In the order of the split.
    pub versions: Vec<VersionEntry>,
    /// Divides requests between `versions`, by index.
    pub splitter: Splitter,
    /// What keeps a user on a version.
    pub sticky: Option<Sticky>,
    /// Set when the snapshot had the service's descriptors (gateway only).
    pub transcoder: Option<Arc<Transcoder>>,
}

impl ServiceEntry {
    /// The index of a version.
    #[must_use]
    pub fn version(&self, name: &VersionName) -> Option<usize> {
        self.versions.iter().position(|v| v.name == *name)
    }
}

/// One version and where it runs.
pub struct VersionEntry {
    /// Its name.
    pub name: VersionName,
    /// Its weight.
    pub weight: u32,
    /// Numbers that stay the same across tables, for metrics.
    pub id: u32,
    /// Healthy or not.
    pub endpoints: Vec<Endpoint>,
}

/// Where one instance is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Stays the same across tables for the same id, address and reach: workers
    /// keep pools and latencies by it.
    pub index: u32,
    /// The instance's id.
    pub id: Arc<str>,
    /// Its router's inbound listener, or its own.
    pub address: SocketAddr,
    /// What is spoken there.
    pub reach: Reach,
    /// What its router's health checks say.
    pub healthy: bool,
}

/// What a rule does with a request.
pub struct Action {
    /// `route/rule`, for logs and metrics.
    pub label: Arc<str>,
    /// Where it goes.
    pub backends: Vec<Backend>,
    /// Divides requests between `backends`, by index.
    pub splitter: Splitter,
    /// Applied to the request in order.
    pub request_headers: Vec<HeaderModifier>,
    /// Applied to the response in order.
    pub response_headers: Vec<HeaderModifier>,
    /// For the whole request.
    pub timeout: Option<Duration>,
    /// How often it may be asked; mostly empty.
    pub limits: Vec<Attachment>,
    /// HTTPRouteFilters; mostly empty.
    pub filters: Vec<Arc<FilterEntry>>,
}

/// One backend of a rule.
pub struct Backend {
    /// The service.
    pub service: Arc<ServiceEntry>,
    /// An index into its versions; none: by its own split.
    pub version: Option<usize>,
}
