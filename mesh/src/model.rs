//! The words of the design as types. Pure: no runtime, no wire.

mod addresses;
mod invalid;
mod name;
mod route;
mod service;
mod snapshot;

pub use addresses::{AddressError, Addresses};
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
