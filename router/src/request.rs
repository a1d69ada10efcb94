//! A request's way through the router. Its steps, in order:
//!
//! 1. [`handler`] is the path of a request that this side sends: from the
//!    application (outbound) or from outside (gateway). Read it first.
//! 2. [`canonical`] brings the path to its one form, [`target`] finds the rule,
//!    [`crate::auth`] asks whether it may be used, [`adapt`] turns JSON and gRPC-Web into gRPC at
//!    the gateway, [`choose`] takes a backend and a version by weight,
//!    [`forward`] an instance, with deadline and retries.
//! 3. [`inbound`] is the path of a request that arrives by mTLS for the
//!    application beside us.
//! 4. [`call`] is what is remembered of a request meanwhile; it becomes a span,
//!    a metric and a line of the access log when the answer's body ends.

pub mod adapt;
pub mod answer;
pub mod body;
pub mod call;
pub mod canonical;
pub mod choose;
pub mod cors;
pub mod forward;
pub mod grpc_web;
pub mod handler;
pub mod headers;
pub mod inbound;
pub mod json;
pub mod target;
