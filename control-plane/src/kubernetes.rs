//! The control plane on Kubernetes: desired state, discovery and identity come from
//! the API server.
//!
//! `objects` holds what is watched, `translate` makes desired state, instances and
//! status conditions of it, without doing anything.

mod objects;
mod translate;

#[allow(unused_imports)]
pub use objects::{Kind, Objects};
#[allow(unused_imports)]
pub use translate::{Settings, StatusUpdate, Translated, translate};
