//! All that one router needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Egress, Instance, Listener, Route, Service, ServiceName, TcpOptions, TcpRoute};
use crate::canonical::Slashes;
use crate::policy::Policy;

/// Mesh-wide switches.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Share of new traces that are recorded: 0.0 to 1.0.
    pub trace_sampling: f64,
    /// The gateway adds `x-weir-version` to its answers.
    pub show_version: bool,
    /// Origins that browsers may call the gateway from; `*`: any.
    pub cors_origins: Vec<Arc<str>>,
    /// What may leave the mesh; none: nothing, and such hosts are not found.
    pub egress: Option<Egress>,
    /// Limits of opaque connections.
    pub tcp: TcpOptions,
    /// What becomes of `%2F` in a path.
    pub escaped_slashes: Slashes,
    /// What no AuthorizationPolicy decides is denied.
    pub deny_by_default: bool,
    /// Who is denied is not told by which policy.
    pub hide_policies: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trace_sampling: 1.0,
            show_version: false,
            cors_origins: Vec::new(),
            egress: None,
            tcp: TcpOptions::default(),
            escaped_slashes: Slashes::Reject,
            deny_by_default: false,
            hide_policies: false,
        }
    }
}

/// Everything one router needs, at one moment. Valid by construction: every
/// backend of every route and every instance's service is among `services`.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Grows with every snapshot.
    pub sequence: u64,
    /// The desired state that it was made from.
    pub revision: u32,
    /// SPIFFE trust domain.
    pub trust_domain: Arc<str>,
    /// By name.
    pub services: BTreeMap<ServiceName, Service>,
    /// In no order that matters.
    pub routes: Vec<Route>,
    /// In no order that matters.
    pub policies: Vec<Policy>,
    /// TCPRoutes and TLSRoutes, in no order that matters.
    pub tcp_routes: Vec<TcpRoute>,
    /// Healthy and not.
    pub instances: Vec<Instance>,
    /// Switches.
    pub options: Options,
    /// What gateways listen on, for gateways alone.
    pub listeners: Vec<Listener>,
    /// DER roots to trust.
    pub trust_bundle: Vec<Bytes>,
}
