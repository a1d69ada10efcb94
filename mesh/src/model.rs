//! The words of the design as types. Pure: no runtime, no wire.

mod addresses;
mod audience;
mod egress;
mod invalid;
mod listener;
mod name;
mod pattern;
mod route;
mod route_check;
mod route_filter;
mod route_match;
mod service;
mod snapshot;
mod tcp_route;

pub use addresses::{AddressError, Addresses};
pub use audience::{
    Audience, AudienceBy, MAX_AUDIENCE_HEADERS, MAX_AUDIENCE_VALUES, MAX_AUDIENCES, VersionMirror,
};
pub use egress::{Egress, EgressHost, EgressTarget, EgressTargetError, TcpOptions};
pub use invalid::{Invalid, Violation, Violations};
pub use listener::{Listener, ListenerProtocol, ServerCertificate};
pub use name::{NameError, ServiceName, VersionName};
pub use pattern::{Pattern, PatternError};
pub use route::{
    BackendRef, ForceVersion, HostPattern, HostPatternError, Parent, RetryRule, Route, RouteKind,
    RouteRule, SessionKind, SessionPersistence,
};
pub use route_check::{MAX_FILTERS, MAX_MIRRORS, is_path, is_path_value};
pub(crate) use route_check::{answers, check_rule};
pub use route_filter::{
    Cors, Fraction, HeaderModifier, Mirror, Names, OriginPattern, PathModifier, Redirect, Rewrite,
    RouteFilter, Scheme,
};
pub use route_match::{PathMatch, RouteMatch, ValueMatch, grpc_call};
pub use service::{
    Instance, Protocol, Service, Split, SplitError, Sticky, Transport, Weight, WeightError,
};
pub use snapshot::{Options, Snapshot};
pub use tcp_route::{TcpParent, TcpRoute, TcpRouteKind};
