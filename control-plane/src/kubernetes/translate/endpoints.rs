//! EndpointSlices and pods -> instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Instance, ServiceName, Transport, VersionName};

use super::json::{annotation, label, list, port, text};
use super::services::Services;
use super::{Settings, Warning};
use crate::inject;
use crate::kubernetes::objects::{Kind, Objects};

/// Instances by service and id.
pub(super) type Instances = BTreeMap<ServiceName, BTreeMap<Arc<str>, Instance>>;

/// What is known of an endpoint beside its address and port.
struct Endpoint {
    /// The last part of an instance's id.
    name: String,
    ip: IpAddr,
    version: VersionName,
    zone: Arc<str>,
    healthy: bool,
    router: Option<Router>,
}

/// The router of an endpoint's pod.
struct Router {
    identity: Arc<SpiffeId>,
    pod: Arc<Value>,
}

/// Works out all instances. An endpoint that several slices have is one instance.
pub(super) fn instances(
    objects: &Objects,
    settings: &Settings,
    services: &Services<'_>,
    warnings: &mut Vec<Warning>,
) -> Instances {
    let mut instances = Instances::new();
    for (namespace, name, slice) in objects.all(Kind::EndpointSlice) {
        let Some(service) = label(slice, "kubernetes.io/service-name") else { continue };
        let Some(service) = services.get(namespace, service) else { continue };
        let mut refused = None;
        let endpoints: Vec<_> = list(slice, "endpoints")
            .iter()
            .filter_map(|sent| match endpoint(objects, settings, namespace, sent) {
                Ok(endpoint) => endpoint,
                Err(why) => {
                    refused.get_or_insert(why);
                    None
                }
            })
            .collect();
        if let Some(why) = refused {
            warnings.push(Warning::new(Kind::EndpointSlice, namespace, name, why));
        }
        for sent in list(slice, "ports") {
            let of_service = service.ports.iter().find(|port| port.name == text(sent, "name"));
            let is_tcp = matches!(text(sent, "protocol"), "" | "TCP");
            let (Some(of_service), Some(number), true) = (of_service, port(sent, "port"), is_tcp)
            else {
                continue;
            };
            let known = instances.entry(of_service.service.clone()).or_default();
            for endpoint in &endpoints {
                add(known, endpoint, &of_service.service, number);
            }
        }
    }
    instances
}

/// Of two that are the same the healthy one stays, then IPv4, then the lower
/// address: no order of slices matters.
fn add(
    known: &mut BTreeMap<Arc<str>, Instance>,
    endpoint: &Endpoint,
    service: &ServiceName,
    port: u16,
) {
    let id: Arc<str> = format!("{service}/{}", endpoint.name).into();
    let rank = |healthy: bool, address: SocketAddr| (!healthy, address.is_ipv6(), address);
    let address = SocketAddr::new(endpoint.ip, port);
    let better = known
        .get(&id)
        .is_none_or(|other| rank(endpoint.healthy, address) < rank(other.healthy, other.address));
    if better {
        // Ports that are skipped come to the application as they are.
        let router = endpoint.router.as_ref().filter(|router| inject::receives(&router.pod, port));
        let instance = Instance {
            id: id.clone(),
            service: service.clone(),
            version: endpoint.version.clone(),
            address,
            transport: if router.is_some() { Transport::Mesh } else { Transport::Plain },
            zone: endpoint.zone.clone(),
            healthy: endpoint.healthy,
            identity: router.map(|router| router.identity.clone()),
        };
        known.insert(id, instance);
    }
}

fn endpoint(
    objects: &Objects,
    settings: &Settings,
    namespace: &str,
    sent: &Value,
) -> Result<Option<Endpoint>, String> {
    // Further addresses of an endpoint are the same; the API says that the first
    // is enough.
    let address = list(sent, "addresses").first().and_then(Value::as_str).unwrap_or_default();
    let ip: IpAddr =
        address.parse().map_err(|_| format!("endpoint {address:?} is no IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("endpoint {ip} cannot be connected to"));
    }
    let conditions = &sent["conditions"];
    let ready = conditions["ready"] != false && conditions["terminating"] != true;
    let target = &sent["targetRef"];
    let is_pod = text(target, "kind") == "Pod";
    let pod = match is_pod {
        true => objects.get(Kind::Pod, namespace, text(target, "name")),
        false => None,
    };
    if is_pod && pod.is_none() {
        // Whether it has a router is not known yet; without one it would be spoken
        // to in plaintext.
        return Ok(None);
    }
    if !is_pod && of_foreign_pod(objects, namespace, address) {
        return Err(format!("endpoint {ip} is a pod of another namespace"));
    }
    let injected = pod
        .filter(|pod| is_injected(pod))
        .map(|pod| identity(pod, settings).map(|identity| Router { identity, pod: pod.clone() }));
    Ok(Some(Endpoint {
        name: if is_pod { text(target, "name").to_owned() } else { ip.to_string() },
        ip,
        version: pod.map_or_else(VersionName::unsaid, |pod| version(pod)),
        zone: zone(objects, sent).into(),
        healthy: ready && !pod.is_some_and(|pod| waits_for_router(pod)),
        router: injected.transpose()?,
    }))
}

/// Whether an address belongs to a pod of another namespace: nobody may claim it by
/// an EndpointSlice.
fn of_foreign_pod(objects: &Objects, namespace: &str, address: &str) -> bool {
    let mut pods = objects.all(Kind::Pod);
    pods.any(|(own, _, pod)| {
        own != namespace
            && text(&pod["status"], "podIP") == address
            && pod["spec"]["hostNetwork"] != true
    })
}

/// Whether a pod has a router.
pub(super) fn is_injected(pod: &Value) -> bool {
    [annotation(pod, inject::INJECTED), label(pod, inject::INJECTED)].contains(&Some("true"))
}

/// Whether a pod's router says that it cannot take connections yet, or any more.
fn waits_for_router(pod: &Value) -> bool {
    let containers = ["initContainerStatuses", "containerStatuses"];
    let mut statuses = containers.iter().flat_map(|field| list(&pod["status"], field));
    is_injected(pod)
        && statuses.any(|status| {
            text(status, "name") == inject::ROUTER
                && status["ready"] == false
                && status["started"] == false
        })
}

fn identity(pod: &Value, settings: &Settings) -> Result<Arc<SpiffeId>, String> {
    let account = match text(&pod["spec"], "serviceAccountName") {
        "" => "default",
        account => account,
    };
    let namespace = text(&pod["metadata"], "namespace");
    let id = SpiffeId::new(&settings.trust_domain, namespace, account);
    id.map(Arc::new).map_err(|error| {
        format!("pod {} cannot have an identity: {error}", text(&pod["metadata"], "name"))
    })
}

fn zone(objects: &Objects, endpoint: &Value) -> String {
    match text(endpoint, "zone") {
        "" => {
            let node = objects.get(Kind::Node, "", text(endpoint, "nodeName"));
            let zone = node.and_then(|node| label(node, "topology.kubernetes.io/zone"));
            zone.unwrap_or_default().to_owned()
        }
        zone => zone.to_owned(),
    }
}

/// The version of a pod, by its labels.
fn version(pod: &Value) -> VersionName {
    let names = ["weir.dev/version", "version", "app.kubernetes.io/version"];
    let said = names.iter().find_map(|name| label(pod, name).filter(|value| !value.is_empty()));
    said.and_then(dns_label).unwrap_or_else(VersionName::unsaid)
}

/// A label's value made a DNS label: `V1.2_x` is `v1-2-x`.
fn dns_label(text: &str) -> Option<VersionName> {
    let mapped: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(63)
        .collect();
    mapped.trim_matches('-').parse().ok()
}
