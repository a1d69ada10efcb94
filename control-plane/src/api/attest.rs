//! How routers prove whose they are, where it is not by join tokens.

use tonic::Status;
use weir_mesh::identity::SpiffeId;

use crate::registry::Role;

/// Knows workloads by what their platform says of them.
#[tonic::async_trait]
pub trait Attest: Send + Sync {
    /// Whose token it is.
    ///
    /// # Errors
    /// UNAUTHENTICATED with the reason, RESOURCE_EXHAUSTED, or UNAVAILABLE when the
    /// platform does not answer.
    async fn attest(&self, token: &str) -> Result<SpiffeId, Status>;

    /// Whether the holder of a certificate may speak for a router.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, peer: &SpiffeId, router_id: &str, role: Role) -> Result<(), String>;
}
