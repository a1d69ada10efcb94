//! The control plane on Kubernetes: desired state, discovery and identity come from
//! the API server.
//!
//! In the order in which things flow: `watches` fill the `mirror` with `objects`;
//! `translate` makes desired state, instances and status conditions of them, without
//! doing anything; `engine` records and publishes that. `resources` are what the
//! control-plane API writes. Beside that are the `lease` and the `election` (one replica
//! leads), the `secrets` and the `authority` that replicas share, `identity` by service-account tokens, `status` and `trust`,
//! which write what others read, the `webhook`, and `run`, which wires all of it.

mod authority;
pub(crate) mod cluster;
mod election;
mod engine;
mod identity;
mod lease;
mod mirror;
mod objects;
mod options;
mod resources;
mod run;
mod secrets;
mod standby;
mod status;
mod strip;
mod translate;
mod trust;
mod watches;
mod webhook;
mod webhook_tls;

pub use cluster::ClusterError;
pub use options::Args;
pub(crate) use run::run;
