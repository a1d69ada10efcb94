//! The control plane's side of a router: certificate, snapshots, reports. It
//! runs on a thread of its own and is never needed by a request (invariant 1).

mod apply;
mod connect;
mod disk;
mod join;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch as cell};
use weir_mesh::identity::{IdentityError, Secret, TrustBundle};
use weir_mesh::shutdown::Shutdown;

use crate::table::Builder;
use crate::worker::Shared;

pub use disk::Disk;

/// What is told to the control plane about this router.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// `ip:port` that other routers use.
    pub inbound: Option<std::net::SocketAddr>,
    /// Admin listener.
    pub admin: Option<std::net::SocketAddr>,
}

/// Everything that talks to the control plane.
pub struct Control {
    shared: Arc<Shared>,
    disk: Disk,
    trust_bundle: PathBuf,
    join_token: PathBuf,
    addresses: Addresses,
    /// The application's health.
    healthy: cell::Receiver<bool>,
    /// Asks for a new certificate now.
    renew: Arc<Notify>,
    /// `not_after` of the newest certificate.
    renewed: cell::Sender<i64>,
    /// The snapshot in use.
    applied: cell::Sender<apply::Kept>,
}

impl Control {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        addresses: Addresses,
        healthy: cell::Receiver<bool>,
    ) -> Arc<Self> {
        let args = &shared.config.args;
        Arc::new(Self {
            disk: Disk::new(args.state_dir.clone()),
            trust_bundle: args.trust_bundle.clone(),
            join_token: args.join_token_file.clone(),
            addresses,
            healthy,
            renew: Arc::default(),
            renewed: cell::Sender::new(0),
            applied: cell::Sender::new(apply::Kept::default()),
            shared,
        })
    }

    /// Puts into use what an earlier run has left on disk. Before the first
    /// connection is accepted: else a restart would begin with errors.
    #[must_use]
    pub fn restore(&self) -> Builder {
        let pod = self.shared.config.pod.clone();
        let mut builder = Builder::new(self.shared.metrics.registry(), pod);
        self.disk.restore(self, &mut builder);
        builder
    }

    /// Runs until `shutdown`; says goodbye then. `builder` is that of [`Self::restore`].
    pub async fn run(self: Arc<Self>, builder: Builder, shutdown: Shutdown) {
        let join = tokio::spawn(self.clone().keep_certificate());
        let keep = tokio::spawn(self.clone().keep_snapshots());
        watch::run(&self, builder, shutdown).await;
        join.abort();
        keep.abort();
    }

    /// The roots to trust: those in use, or at the start the file's.
    fn roots(&self) -> Result<TrustBundle, IdentityError> {
        match self.shared.identity.current() {
            Some((_, bundle)) => Ok(bundle),
            None => TrustBundle::load(&self.trust_bundle),
        }
    }

    fn token(&self) -> Result<Secret, IdentityError> {
        Secret::read(&self.join_token)
    }
}
