//! The control planes of one mesh: which of them leads, and where the others are.
//!
//! Whoever knows (a Lease of Kubernetes, a session of Consul) sets it here; whoever
//! needs it follows it here. A control plane that is alone leads for ever.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

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

/// One control plane among others.
pub struct Replica {
    /// Its own name.
    pub name: Arc<str>,
    /// Who leads.
    pub lead: watch::Sender<Lead>,
    /// All others, by name.
    pub peers: watch::Sender<Vec<Peer>>,
}

impl Replica {
    /// One that has no others, and so leads.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            name: "control-plane".into(),
            lead: watch::Sender::new(Lead::Own),
            peers: watch::Sender::new(Vec::new()),
        }
    }

    /// One that may have others, and does not lead yet.
    #[must_use]
    pub fn among(name: Arc<str>, _address: Option<SocketAddr>) -> Self {
        Self { name, lead: watch::Sender::new(Lead::Nobody), peers: watch::Sender::new(Vec::new()) }
    }

    /// Whether this one leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        *self.lead.borrow() == Lead::Own
    }
}
