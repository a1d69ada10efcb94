//! Between protobuf and the model. Wire types stop here: what comes in is
//! checked whole, and every violation is named by its path.

mod decode;
mod decode_filter;
mod decode_route;
mod encode;
mod encode_route;

mod policy;

pub use decode::{instance, options, service, snapshot, sticky};
pub use decode_route::route;
pub use policy::policy;

#[cfg(test)]
mod tests;
