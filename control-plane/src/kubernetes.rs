//! The control plane on Kubernetes: desired state, discovery and identity come from
//! the API server.
//!
//! In the order in which things flow: `watches` fill the `mirror` with `objects`;
//! `translate` makes desired state, instances and status conditions of them, without
//! doing anything; `engine` records and publishes that. `resources` are what the
//! control-plane API writes. Beside that are the `lease` (one replica leads), the
//! `secrets` it keeps, `identity` by service-account tokens, and `run`, which wires
//! all of it.

pub(crate) mod cluster;
mod engine;
mod identity;
mod leader;
mod lease;
mod mirror;
mod objects;
mod options;
mod resources;
mod run;
mod secrets;
mod standby;
mod strip;
mod translate;
mod watches;

pub use cluster::ClusterError;
#[allow(unused_imports)]
pub use objects::{Kind, Objects};
pub use options::Args;
pub(crate) use run::run;
#[allow(unused_imports)]
pub use translate::{Settings, StatusUpdate, Translated, translate};
