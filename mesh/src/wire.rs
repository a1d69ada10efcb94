//! Between protobuf and the model. Wire types stop here: what comes in is
//! checked whole, and every violation is named by its path.

pub(crate) mod audience;
mod decode;
mod decode_filter;
mod decode_route;
pub mod digest;
mod encode;
mod encode_route;
mod latency;
mod listener;
mod policy;
mod tcp;

#[cfg(feature = "gateway-api")]
pub(crate) use decode::managed_by;
pub use decode::{instance, options, service, snapshot, sticky};
pub use decode_route::route;
pub use policy::policy;
pub use tcp::tcp_route;

#[cfg(test)]
mod tests;
