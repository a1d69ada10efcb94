//! The words of the design as types. Pure: no runtime, no wire.

mod addresses;
mod egress;
mod invalid;
mod name;
mod route;
mod service;
mod snapshot;
mod tcp_route;

pub use addresses::{AddressError, Addresses};
pub use egress::{Egress, EgressHost, EgressTarget, EgressTargetError, TcpOptions};
pub use invalid::{Invalid, Violation, Violations};
pub use name::{NameError, ServiceName, VersionName};
pub use route::{
    BackendRef, HeaderModifier, HostPattern, HostPatternError, Parent, PathMatch, Route,
    RouteFilter, RouteKind, RouteMatch, RouteRule,
};
pub use service::{
    Instance, Protocol, Service, Split, SplitError, Sticky, Transport, Weight, WeightError,
};
pub use snapshot::{Options, Snapshot};
pub use tcp_route::{TcpParent, TcpRoute, TcpRouteKind};
