//! The control planes of one mesh: which of them leads, and where the others are.
//!
//! Whoever knows (a Lease of Kubernetes, a session of Consul) sets it here; whoever
//! needs it follows it here. A control plane that is alone leads for ever.
//!
//! `peers` follows the others' routers and `tell` tells them of ours; `forward` sends
//! writes to the leader and `door` takes them in there; `methods` says what a write is.

mod caller;
mod door;
mod forward;
mod link;
mod methods;
mod peers;
mod tell;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};
use weir_proto::weir::mesh::v1 as pb;

use crate::store::Revision;

pub use door::{MeshDoor, not_leading};
pub use forward::{call, note};
#[allow(unused_imports, reason = "for who decides about access")]
pub use methods::writes;
pub use peers::follow;
pub use tell::Tell;
pub(crate) use tell::roots_digest;

/// Reports that a peer may be behind with; it misses some when there are more.
const REPORTS: usize = 1024;
/// Messages with spans that a peer may be behind with, likewise.
const SPANS: usize = 256;

/// Another control plane of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Unique among them.
    pub name: Arc<str>,
    /// Its mesh listener.
    pub address: SocketAddr,
}

/// Who makes changes and drives rollouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// Nobody yet, or nobody known.
    Nobody,
    /// This one.
    Own,
    /// That one.
    Other(Peer),
}

/// What another control plane last said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// What it has.
    pub revision: Revision,
    /// Whether its stream is open.
    pub in_touch: bool,
}

/// One control plane among others.
pub struct Replica {
    /// Its own name.
    pub name: Arc<str>,
    /// Where others reach its mesh listener; none: nowhere.
    pub address: Option<SocketAddr>,
    /// Who leads.
    pub lead: watch::Sender<Lead>,
    /// All others, by name.
    pub peers: watch::Sender<Vec<Peer>>,
    /// Whether what the others know has been taken in once, so that what is published
    /// is of the whole mesh. Until then no router is sent anything.
    pub settled: watch::Sender<bool>,
    /// What own routers report, for whoever follows.
    pub(crate) reports: broadcast::Sender<Arc<pb::PeerReport>>,
    /// Spans that came here, as serialized `ExportTraceServiceRequest`s, likewise.
    pub(crate) spans: broadcast::Sender<bytes::Bytes>,
    status: Mutex<BTreeMap<Arc<str>, PeerStatus>>,
}

impl Replica {
    /// One that has no others, and so leads.
    #[must_use]
    pub fn alone() -> Self {
        let alone = Self::among("control-plane".into(), None);
        alone.lead.send_replace(Lead::Own);
        alone.settled.send_replace(true);
        alone
    }

    /// One that may have others, and does not lead yet.
    #[must_use]
    pub fn among(name: Arc<str>, address: Option<SocketAddr>) -> Self {
        Self {
            name,
            address,
            lead: watch::Sender::new(Lead::Nobody),
            peers: watch::Sender::new(Vec::new()),
            settled: watch::Sender::new(false),
            reports: broadcast::Sender::new(REPORTS),
            spans: broadcast::Sender::new(SPANS),
            status: Mutex::default(),
        }
    }

    /// Whether this one leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        *self.lead.borrow() == Lead::Own
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, PeerStatus>> {
        // Each change of it is one insertion or removal.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The others that are known, each with what it last said; by name.
    #[must_use]
    pub fn others(&self) -> Vec<(Peer, PeerStatus)> {
        let status = self.lock();
        let peers = self.peers.borrow();
        let told = |peer: &Peer| status.get(&peer.name).cloned().unwrap_or_default();
        peers.iter().map(|peer| (peer.clone(), told(peer))).collect()
    }
}
