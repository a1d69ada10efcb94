//! What a gRPC service needs around it, so that its own `main` is a page.
//!
//! ```no_run
//! # use weir_mesh::server::{self, Common, Setup, ServeError};
//! # use tonic::service::Routes;
//! fn run(common: &Common) -> Result<(), ServeError> {
//!     server::run(common, "users", weir_proto::descriptors::USERS, async |setup: Setup| {
//!         let auth = setup.outbound.channel("auth")?;
//!         # let _ = auth;
//!         Ok(Routes::default())
//!     })
//! }
//! ```
//!
//! A call comes in through [`CallLayer`], which gives it its span, its deadline
//! and a status whatever happens; calls that the handler makes by [`Outbound`]
//! belong to the same trace and share the deadline. Health (gRPC Health
//! Checking Protocol v1) and reflection (v1) are served beside the service.

mod call;
mod common;
#[cfg(feature = "sqlite")]
pub mod database;
mod database_url;
mod deadline;
mod layer;
mod outbound;
mod peer;
#[cfg(feature = "postgres")]
mod postgres;
mod process;
mod span;
#[cfg(feature = "sqlite")]
mod sqlite;
mod status;
mod watched;

#[cfg(test)]
mod tests;

pub use call::Call;
pub use common::Common;
pub use database_url::DatabaseUrl;
pub use layer::{CallLayer, CallService, MAX_CONCURRENT_CALLS};
pub use outbound::{InvalidOutbound, InvalidService, Outbound, OutboundChannel};
pub use peer::peer;
pub use process::{Running, ServeError, Setup, run, start};
pub use status::{BadRequest, details, error_info, retry_after};
pub use watched::{WatchedBody, WatchedFuture};
