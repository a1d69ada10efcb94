//! Between protobuf and the model. Wire types stop here: what comes in is
//! checked whole, and every violation is named by its path.

mod decode;
mod encode;
mod tcp;

pub use decode::{instance, options, route, service, snapshot, sticky};
pub use tcp::tcp_route;

#[cfg(test)]
mod tests;
