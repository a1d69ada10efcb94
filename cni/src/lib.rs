//! How connections of a pod come to its router: what is redirected, said in one form
//! by the injector and understood by `weir-cni`; and the kernel's rules for it.

mod install;
mod netlink;
mod nftables;
mod plugin;
mod redirection;
mod rules;
mod text;
mod verify;

pub use install::{Installation, install};
pub use plugin::plugin;
pub use redirection::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, ROUTER_UID, Redirection};
pub use rules::{apply, is_applied};
pub use text::{Cidr, PortRange, joined, list};
pub use verify::verify;
