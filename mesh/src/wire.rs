//! Between protobuf and the model. Wire types stop here: what comes in is
//! checked whole, and every violation is named by its path.

mod decode;
mod encode;

mod policy;

pub use decode::{instance, options, route, service, snapshot, sticky};
pub use policy::policy;

#[cfg(test)]
mod tests;
