//! A request's way through the router. Its steps, in order:
//!
//! 1. [`handler`] is the path of a request that this side sends: from the
//!    application (outbound) or from outside (gateway). Read it first.
//! 2. [`canonical`] brings the path to its one form, [`target`] finds the rule,
//!    [`crate::auth`] asks whether it may be used, [`choose`] takes a backend and a version: by
//!    weight, unless the request forces one, or its chain of calls ([`baggage`]), its audience or
//!    [`session`] has one. [`filters`] does what the rule's filters say, [`mirror`]
//!    sends copies, [`adapt`] turns JSON and gRPC-Web into gRPC at the gateway, and
//!    [`forward`] takes an instance, with deadline and retries.
//! 3. [`limit`] asks rate limits, for both of these paths. [`extension`] is what a rule's HTTPRouteFilters do:
//!    faults, direct responses, limits of bodies ([`size`]), compression
//!    ([`compress`]).
//! 4. [`inbound`] is the path of a request that arrives by mTLS for the
//!    application beside us.
//! 5. [`call`] is what is remembered of a request meanwhile; it becomes a span,
//!    a metric and a line of the access log when the answer's body ends.

pub mod adapt;
pub mod answer;
mod audience;
pub mod baggage;
pub mod body;
pub mod call;
pub mod canonical;
pub mod choose;
pub mod compress;
pub mod cors;
pub mod extension;
pub mod filters;
pub mod forward;
pub mod grpc_web;
pub mod handler;
pub mod headers;
pub mod inbound;
pub mod json;
pub mod limit;
pub mod mirror;
mod resilient;
pub mod session;
pub mod size;
pub mod target;
