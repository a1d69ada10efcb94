//! The compiled snapshot: what a request looks things up in. Immutable but for its
//! numbers; a new one takes its place as a whole.

mod action;
mod audience;
mod build;
mod build_route;
mod extensions;
mod intern;
mod listeners;
mod matcher;
mod places;
pub mod reflection;
mod split;
mod tcp;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Options, Protocol, ServiceName, Sticky, VersionName};
use weir_mesh::transcode::Transcoder;

use crate::auth::Guards;
use crate::limit::Attachment;
use crate::request::target;
use crate::upstream::{Host, Reach};
pub use action::{Action, Backend, Filters, Mirror, Rare, Session, Target};
pub use audience::{AudienceEntry, OwnMirror, Who};
pub use build::Builder;
pub use extensions::{ExtensionEntry, Extensions};
pub use intern::Interner;
pub use listeners::{Listeners, Port};
pub use matcher::{Matcher, Origin, Query, query_param};
pub use places::{Meant, Places};
pub use split::{SplitState, Splitter, point};
pub use tcp::{TcpAction, TcpBackend, TcpRoutes};
pub use traffic::{Traffic, TrafficBuilder};

/// A map whose keys come from the configuration: requests look things up in it
/// and put nothing in, so nobody can make its keys collide.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// One snapshot, ready for lookups.
pub struct Table {
    /// Of the snapshot.
    pub numbers: Numbers,
    /// By name.
    pub services: Map<ServiceName, Destination>,
    /// For what enters by the gateway.
    pub gateway: Matcher,
    /// What comes by listeners of Gateways.
    pub listeners: Listeners,
    /// Limits of services, for the routers beside their instances. A service
    /// without any is not here.
    pub inbound_limits: Map<ServiceName, Arc<[Attachment]>>,
    /// Set when a service of the snapshot had descriptors (gateway only).
    pub reflection: Option<Arc<reflection::Reflection>>,
    /// Where opaque connections go.
    pub tcp: TcpRoutes,
    /// What addresses mean; none: the router is in no pod.
    pub places: Option<Places>,
    /// Mesh-wide switches.
    pub options: Options,
    /// Who may; none when nobody is asked anything.
    pub guards: Option<Arc<Guards>>,
}

/// Which snapshot a table is: all of it that may change, for another snapshot may
/// say the same.
#[derive(Debug, Default)]
pub struct Numbers {
    sequence: AtomicU64,
    revision: AtomicU32,
}

impl Numbers {
    /// Of a snapshot.
    #[must_use]
    pub fn new(sequence: u64, revision: u32) -> Self {
        Self { sequence: sequence.into(), revision: revision.into() }
    }
}

impl Table {
    /// The sequence of the snapshot.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.numbers.sequence.load(Relaxed)
    }

    /// The desired state behind it.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.numbers.revision.load(Relaxed)
    }

    /// It is the table of a later snapshot too, which says the same.
    pub fn renumber(&self, sequence: u64, revision: u32) {
        self.numbers.revision.store(revision, Relaxed);
        self.numbers.sequence.store(sequence, Relaxed);
    }

    /// Whose a connection from another router is, or what came to a pod at `to`: all of
    /// these are asked whether it may. `own` is the service on a machine. A port that
    /// no service has is the mesh's, which has no name.
    pub fn owners<'a>(
        &'a self,
        to: Option<SocketAddr>,
        own: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let port = to.and_then(|to| self.places.as_ref()?.port(to.port()));
        let services = port.map_or(&[][..], |port| &port.services);
        let else_one = if to.is_some() { "" } else { own };
        let alone = services.is_empty().then_some(else_one);
        services.iter().map(|service| service.name.as_str()).chain(alone)
    }

    /// Which of the services at `to` is meant, by what it is called: for metrics alone.
    #[must_use]
    pub fn named(
        &self,
        to: Option<SocketAddr>,
        host: &str,
        port: Option<u16>,
    ) -> Option<&Arc<ServiceEntry>> {
        let services = &self.places.as_ref()?.port(to?.port())?.services;
        if let [one] = services.as_slice() {
            return Some(one);
        }
        let named = target::destination(self, host, port).map(|found| &found.service.name);
        let found = services.iter().find(|service| Some(&service.name) == named);
        found.or(services.first())
    }
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
    /// Who its routers must prove to be, where instances have no identities of their own.
    pub identity: Arc<SpiffeId>,
    /// In the order of the split.
    pub versions: Vec<VersionEntry>,
    /// Divides requests between `versions`, by index.
    pub splitter: Splitter,
    /// What keeps a user on a version.
    pub sticky: Option<Sticky>,
    /// Who gets one of `versions` whatever the weights: the first that matches.
    pub audiences: Vec<AudienceEntry>,
    /// Which of `versions` gets copies.
    pub mirror: Option<OwnMirror>,
    /// How its instances are chosen, limited and kept out.
    pub traffic: Arc<Traffic>,
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

impl VersionEntry {
    /// Whether an instance of it says that it is well.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.healthy)
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
    /// Who its router must prove to be.
    pub identity: Arc<SpiffeId>,
    /// What its router's health checks say.
    pub healthy: bool,
    /// Where it runs; may be empty.
    pub zone: Arc<str>,
    /// What this router found out, when its service has a policy.
    pub host: Option<Arc<Host>>,
}
