//! Objects of the API server -> what Weir desires. Pure.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_mesh::model::Instance;

use super::objects::{Kind, Objects};
use crate::store::Desired;

/// What does not come from objects.
#[derive(Debug, Clone)]
pub struct Settings {
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// The control plane's own.
    pub namespace: String,
    /// Namespace and name of the Service in front of the gateway's pods: its
    /// addresses go into the status of Gateways.
    pub gateway_service: Option<(String, String)>,
    /// What is no service may be reached.
    pub egress_allowed: bool,
    /// Share of new traces that are recorded: 0.0 to 1.0.
    pub trace_sampling: f64,
}

/// What an object's status should be.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusUpdate {
    /// What it is.
    pub kind: Kind,
    /// Empty for kinds without.
    pub namespace: String,
    /// Which.
    pub name: String,
    /// The object's generation that was looked at.
    pub generation: i64,
    /// The whole `status`, without `lastTransitionTime`s: who writes it keeps those of
    /// conditions that stay.
    pub status: Value,
}

/// What objects come to.
#[derive(Debug, Clone, Default)]
pub struct Translated {
    /// Services, routes, policies, listeners and options; its revision is 0.
    pub desired: Desired,
    /// Of EndpointSlices and pods.
    pub instances: Vec<Instance>,
    /// What objects should be told.
    pub statuses: Vec<StatusUpdate>,
    /// Namespaces whose pods may have routers: they need the roots to trust.
    pub meshed: BTreeSet<String>,
}

/// Works out what objects come to.
#[must_use]
pub fn translate(objects: &Objects, settings: &Settings) -> Translated {
    let _ = (objects, settings);
    Translated::default()
}
