//! The control plane by its front doors: HTTP, gRPC, and routers that speak the
//! real protocol over real TLS.

// Helpers of tests are tests too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod api;
mod certificates;
mod confirm;
mod deltas;
mod durability;
mod guarded;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod observe;
mod plain;
mod plane;
mod process;
mod replicas;
mod revisions;
mod rollout;
mod router;
mod watch;
