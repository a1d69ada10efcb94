//! Objects of the API server -> what Weir desires. Pure and total: an object that
//! cannot be followed is told so, and the rest goes on as if it were not there.

mod certificate;
mod endpoints;
mod gateways;
mod grants;
mod json;
mod listeners;
mod names;
mod parents;
mod policies;
mod policy_spec;
mod policy_target;
mod protocol;
mod references;
pub(super) mod rollouts;
mod routes;
mod services;
mod split;
mod status;
mod tcp_routes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use weir_mesh::model::{Addresses, Egress, Instance, Options, Service, ServiceName};

use super::objects::{Kind, Objects};
use crate::store::{Desired, Held};
use endpoints::Instances;
use gateways::Gateways;
use grants::Grants;
use routes::Context;
use services::Services;

/// What does not come from objects.
#[derive(Debug, Clone)]
pub struct Settings {
    /// SPIFFE trust domain.
    pub trust_domain: String,
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

/// Why an object is not followed, or not all of it, whose status is not ours to
/// write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub kind: Kind,
    /// Empty for kinds without.
    pub namespace: String,
    /// Which.
    pub name: String,
    /// What is wrong and what to do.
    pub why: String,
}

impl Warning {
    fn new(kind: Kind, namespace: &str, name: &str, why: String) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), why }
    }
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
    /// What is left out without a status to say so.
    pub warnings: Vec<Warning>,
    /// Namespaces whose pods may have routers: they need the roots to trust.
    pub meshed: BTreeSet<String>,
}

/// Works out what objects come to.
#[must_use]
pub fn translate(objects: &Objects, settings: &Settings) -> Translated {
    let mut out = Translated::default();
    let grants = Grants::read(objects);
    let mut services = Services::read(objects, &mut out.warnings);
    routes::tell_protocols(objects, &grants, &mut services);
    let instances = endpoints::instances(objects, settings, &services, &mut out.warnings);
    let splits = split::splits(objects, &services, &instances, &mut out.statuses);
    out.desired.services = self::services(objects, &services, &instances, &splits);

    let mut gateways = Gateways::read(objects, &grants, &mut out.statuses);
    let mut policies = policies::Policies::new();
    let filters = policies::filters(objects, &mut policies, &mut out.statuses);
    let context = Context { objects, services: &services, grants: &grants, filters: &filters };
    let routes = routes::routes(&context, &mut gateways, &mut out.statuses);
    out.desired.tcp_routes =
        held(tcp_routes::tcp_routes(&context, &mut gateways, &mut out.statuses));
    out.desired.listeners = gateways.opened();
    out.statuses.extend(gateways.statuses(objects, settings));

    let context = policies::Context {
        objects,
        settings,
        services: &services,
        grants: &grants,
        gateways: &gateways,
        routes: &routes,
    };
    policies::policies(&context, &mut policies, &mut out.statuses);
    out.desired.rollouts = held(rollouts::rollouts(objects, &mut out.statuses));
    out.desired.policies = held(policies);
    out.desired.routes = held(routes);
    out.desired.options = options(settings);
    out.instances = instances.into_values().flat_map(BTreeMap::into_values).collect();
    out.meshed = meshed(objects, settings);
    out
}

fn held<K: Ord, T>(values: BTreeMap<K, T>) -> BTreeMap<K, Held<T>> {
    let hold = |(key, value)| (key, Held { value: Arc::new(value), revision: 0 });
    values.into_iter().map(hold).collect()
}

fn services(
    objects: &Objects,
    services: &Services<'_>,
    instances: &Instances,
    splits: &split::Splits<'_>,
) -> BTreeMap<ServiceName, Held<Service>> {
    let mut found = BTreeMap::new();
    for (namespace, name, service) in services.iter() {
        for port in &service.ports {
            let of_port = instances.get(&port.service).into_iter().flat_map(BTreeMap::values);
            let wanted = splits.get(&(namespace, name));
            let Some(split) = split::split(wanted, of_port) else { continue };
            let model = Service {
                name: port.service.clone(),
                protocol: services.protocol(port),
                split,
                addresses: Addresses::new(),
                virtual_addresses: service.virtual_addresses(port),
                audiences: wanted.map(|wanted| wanted.audiences.clone()).unwrap_or_default(),
                mirror: wanted.and_then(|wanted| wanted.mirror.clone()),
                managed_by: wanted.and_then(|wanted| wanted.managed_by.clone()),
                descriptor_set: descriptor_set(objects, namespace, name),
            };
            found.insert(port.service.clone(), model);
        }
    }
    held(found)
}

/// What a gateway maps JSON by: of services that ship with Weir, when they say so.
fn descriptor_set(objects: &Objects, namespace: &str, name: &str) -> bytes::Bytes {
    let said = objects.get(Kind::Service, namespace, name);
    match said.and_then(|service| json::annotation(service, "weir.dev/descriptor-set")) {
        Some("builtin") => weir_proto::descriptors::of(name).map(Into::into).unwrap_or_default(),
        _ => bytes::Bytes::new(),
    }
}

fn options(settings: &Settings) -> Options {
    let egress = Egress { allow_by_default: settings.egress_allowed, hosts: Vec::new() };
    let sampling = settings.trace_sampling;
    Options {
        // What is no number records nothing.
        trace_sampling: if sampling.is_nan() { 0.0 } else { sampling.clamp(0.0, 1.0) },
        egress: Some(egress),
        ..Options::default()
    }
}

/// Those that are said to be, those where a pod has a router, and the control
/// plane's.
fn meshed(objects: &Objects, settings: &Settings) -> BTreeSet<String> {
    let named = |(_, name, object): (&str, &str, &Arc<Value>)| {
        let said = json::label(object, "weir.dev/inject") == Some("enabled");
        said.then(|| name.to_owned())
    };
    let has_router = |(namespace, _, pod): (&str, &str, &Arc<Value>)| {
        endpoints::is_injected(pod).then(|| namespace.to_owned())
    };
    let said = objects.all(Kind::Namespace).filter_map(named);
    let there = objects.all(Kind::Pod).filter_map(has_router);
    said.chain(there).chain([settings.namespace.clone()]).collect()
}
