//! Snapshot -> table.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Instance, Invalid, Service, ServiceName, Snapshot, Transport, VersionName};
use weir_mesh::policy::{Attached, PolicyKind};
use weir_mesh::telemetry::metrics::Registry;
use weir_mesh::transcode::Transcoder;

use super::build_route::Parents;
use super::reflection::Reflection;
use super::{
    Action, Destination, Endpoint, Extensions, Interner, Listeners, Map, Matcher, Numbers,
    ServiceEntry, Splitter, Table, TrafficBuilder, VersionEntry, audience, places,
};
use crate::auth::{self, Guards};
use crate::config::Pod;
use crate::limit::{Attachment, Compiler};
use crate::upstream::Reach;

/// Compiles snapshots. It remembers what must stay the same from one table to
/// the next.
#[derive(Default)]
pub struct Builder {
    /// The pod, on Kubernetes.
    pub(super) pod: Option<Arc<Pod>>,
    known_ports: places::Known,
    endpoints: Interner<(Arc<str>, SocketAddr, Reach, Arc<SpiffeId>)>,
    versions: Interner<(ServiceName, VersionName)>,
    pub(super) splits: Interner<String>,
    traffic: TrafficBuilder,
    transcoders: HashMap<ServiceName, (Bytes, Arc<Transcoder>)>,
    reflection: Option<(Vec<Bytes>, Arc<Reflection>)>,
    pub(super) limits: Compiler,
    pub(super) extensions: Extensions,
    pub(super) auth: auth::Memory,
}

/// The rules of what comes from outside.
#[derive(Default)]
pub(super) struct Gateways {
    /// By the listener of the command line.
    pub(super) default: Matcher,
    /// By listeners of Gateways, by id.
    pub(super) listeners: HashMap<Arc<str>, Matcher>,
}

impl Builder {
    /// One whose parts count what they do there; for a router in `pod`, if it is in one.
    #[must_use]
    pub fn new(registry: &Registry, pod: Option<Arc<Pod>>) -> Self {
        Self { limits: Compiler::new(registry.clone()), pod, ..Self::default() }
    }

    /// The table of a snapshot.
    ///
    /// # Errors
    /// What makes the snapshot unusable, by field; no table is made then.
    pub fn build(&mut self, snapshot: &Snapshot) -> Result<Table, Invalid> {
        self.endpoints.begin();
        self.versions.begin();
        self.splits.begin();
        self.limits.begin();
        self.extensions.begin();
        self.traffic.begin();
        let attached = Attached::new(&snapshot.policies);
        let pod = self.pod.clone();
        let is_own = |ip| places::is_own(pod.as_deref(), ip);
        let guards = Guards::new(snapshot, &attached, &is_own, &mut self.auth);
        let mut instances: HashMap<(&str, &str), Vec<&Instance>> = HashMap::new();
        for instance in &snapshot.instances {
            let key = (instance.service.as_str(), instance.version.as_str());
            instances.entry(key).or_default().push(instance);
        }
        let mut entries = HashMap::new();
        for service in snapshot.services.values() {
            let entry = self.service(service, &snapshot.trust_domain, &instances, &attached)?;
            entries.insert(service.name.clone(), Arc::new(entry));
        }
        let mut gateway = Gateways::default();
        let mut mesh = Parents::default();
        for route in &snapshot.routes {
            self.route(route, &entries, &attached, &mut gateway, &mut mesh)?;
        }
        gateway.default.seal();
        gateway.listeners.values_mut().for_each(Matcher::seal);
        mesh.seal();
        let mut services = Map::default();
        let everywhere = self.everywhere(&attached);
        let mut inbound_limits = Map::default();
        for (name, service) in &entries {
            let mut limits = Vec::new();
            for policy in attached.of_service(name, PolicyKind::RateLimit) {
                self.limits.attach(policy, false, &mut limits);
            }
            if !limits.is_empty() {
                inbound_limits.insert(name.clone(), limits.into());
            }
            let destination = Destination {
                service: service.clone(),
                routes: mesh.take(name),
                default: Arc::new(self.default_action(service, everywhere.clone())),
            };
            services.insert(name.clone(), destination);
        }
        let tcp = super::tcp::build(snapshot, &entries, pod.is_some(), &mut self.splits)?;
        let one = self.splits.number(&"one".to_owned());
        let places = pod.as_deref().map(|pod| {
            places::build(
                pod,
                &mut self.known_ports,
                snapshot,
                &services,
                &inbound_limits,
                everywhere,
                one,
            )
        });
        self.endpoints.sweep();
        self.versions.sweep();
        self.splits.sweep();
        self.limits.sweep();
        self.extensions.sweep();
        self.traffic.sweep(|name| entries.contains_key(name));
        Ok(Table {
            numbers: Numbers::new(snapshot.sequence, snapshot.revision),
            services,
            listeners: Listeners::build(&snapshot.listeners, |id| {
                gateway.listeners.remove(id).unwrap_or_default()
            })?,
            gateway: gateway.default,
            inbound_limits,
            reflection: self.reflection(snapshot)?,
            tcp,
            places,
            options: snapshot.options.clone(),
            guards,
        })
    }

    fn service(
        &mut self,
        service: &Service,
        trust_domain: &str,
        instances: &HashMap<(&str, &str), Vec<&Instance>>,
        attached: &Attached<'_>,
    ) -> Result<ServiceEntry, Invalid> {
        let at = |error: String| Invalid::one(format!("services[{}]", service.name), error);
        let identity = SpiffeId::new(
            trust_domain,
            service.name.namespace().unwrap_or(SpiffeId::DEFAULT_NAMESPACE),
            service.name.label(),
        )
        .map_err(|error| at(error.to_string()))?;
        let identity = Arc::new(identity);
        let mut versions = Vec::new();
        for (name, weight) in service.split.versions() {
            let of_version = instances.get(&(service.name.as_str(), name.as_str()));
            let endpoint = |instance: &&Instance| self.endpoint(instance, service, &identity);
            let endpoints: Vec<_> = of_version.into_iter().flatten().map(endpoint).collect();
            versions.push(VersionEntry {
                name: name.clone(),
                weight: weight.get(),
                endpoints,
                id: self.versions.number(&(service.name.clone(), name.clone())),
            });
        }
        let weights: Vec<u32> = versions.iter().map(|v| v.weight).collect();
        let split = self.splits.number(&format!("service/{}", service.name));
        let mirror =
            audience::mirror(service, || self.splits.number(&format!("mirror/{}", service.name)));
        Ok(ServiceEntry {
            name: service.name.clone(),
            protocol: service.protocol,
            identity,
            traffic: self.traffic.service(&service.name, &mut versions, attached),
            versions,
            splitter: Splitter::new(split, weights),
            sticky: service.split.sticky.clone(),
            audiences: audience::audiences(service),
            mirror,
            transcoder: self.transcoder(service).map_err(at)?,
        })
    }

    fn endpoint(
        &mut self,
        instance: &Instance,
        service: &Service,
        identity: &Arc<SpiffeId>,
    ) -> Endpoint {
        // What a router sends to its own pod does not come by its inbound listener.
        let transport = match places::is_own(self.pod.as_deref(), instance.address.ip()) {
            true => Transport::Plain,
            false => instance.transport,
        };
        let reach = Reach::new(transport, service.protocol);
        let (id, address) = (instance.id.clone(), instance.address);
        let identity = instance.identity.as_ref().unwrap_or(identity).clone();
        Endpoint {
            index: self.endpoints.number(&(id.clone(), address, reach, identity.clone())),
            id,
            address,
            reach,
            identity,
            healthy: instance.healthy,
            zone: instance.zone.clone(),
            host: None,
        }
    }

    fn transcoder(&mut self, service: &Service) -> Result<Option<Arc<Transcoder>>, String> {
        if service.descriptor_set.is_empty() {
            self.transcoders.remove(&service.name);
            return Ok(None);
        }
        if let Some((set, transcoder)) = self.transcoders.get(&service.name)
            && *set == service.descriptor_set
        {
            return Ok(Some(transcoder.clone()));
        }
        let transcoder = Transcoder::new(&service.descriptor_set)
            .map_err(|error| format!("descriptorSet: {error}"))?;
        let transcoder = Arc::new(transcoder);
        let kept = (service.descriptor_set.clone(), transcoder.clone());
        self.transcoders.insert(service.name.clone(), kept);
        Ok(Some(transcoder))
    }

    fn reflection(&mut self, snapshot: &Snapshot) -> Result<Option<Arc<Reflection>>, Invalid> {
        let sets = snapshot.services.values().map(|service| service.descriptor_set.clone());
        let sets: Vec<Bytes> = sets.filter(|set| !set.is_empty()).collect();
        if sets.is_empty() {
            self.reflection = None;
        } else if self.reflection.as_ref().is_none_or(|(of, _)| *of != sets) {
            let reflection = Reflection::new(&sets)
                .map_err(|error| Invalid::one("services", format!("descriptorSet: {error}")))?;
            self.reflection = Some((sets, Arc::new(reflection)));
        }
        Ok(self.reflection.as_ref().map(|(_, reflection)| reflection.clone()))
    }

    /// Limits of every request that this router sends.
    pub(super) fn everywhere(&mut self, attached: &Attached<'_>) -> Vec<Attachment> {
        let mut limits = Vec::new();
        for policy in attached.of_mesh(PolicyKind::RateLimit) {
            self.limits.attach(policy, false, &mut limits);
        }
        for policy in attached.of_gateway(PolicyKind::RateLimit) {
            self.limits.attach(policy, true, &mut limits);
        }
        limits
    }

    fn default_action(&mut self, service: &Arc<ServiceEntry>, limits: Vec<Attachment>) -> Action {
        let splitter = Splitter::new(self.splits.number(&"one".to_owned()), vec![1]);
        Action::of_service(service.clone(), splitter, limits)
    }
}

#[cfg(test)]
mod tests {
    use weir_mesh::wire;
    use weir_proto::weir::mesh::v1 as pb;

    use super::*;

    fn snapshot(protocol: pb::Protocol, plain: bool) -> Snapshot {
        let version = pb::VersionWeight { version: "v1".into(), weight: 1, addresses: vec![] };
        let instance = pb::Instance {
            id: "web-1".into(),
            service: "web".into(),
            version: "v1".into(),
            address: "127.0.0.1:9".into(),
            plain,
            ..Default::default()
        };
        let service = pb::Service {
            name: "web".into(),
            protocol: protocol.into(),
            versions: vec![version],
            ..Default::default()
        };
        let message = pb::Snapshot {
            trust_domain: "weir.local".into(),
            services: vec![service],
            instances: vec![instance],
            ..Default::default()
        };
        wire::snapshot(&message).unwrap()
    }

    #[test]
    fn what_is_spoken_to_otherwise_is_another_endpoint() {
        let mut builder = Builder::default();
        let mut build = |protocol, plain| {
            let table = builder.build(&snapshot(protocol, plain)).unwrap();
            let endpoint = &table.services["web"].service.versions[0].endpoints[0];
            (endpoint.index, endpoint.reach)
        };
        let (http1, reach) = build(pb::Protocol::Http1, true);
        assert_eq!(reach, Reach::Http1);
        assert_eq!(build(pb::Protocol::Http1, true), (http1, reach), "it stays");
        let (http2, reach) = build(pb::Protocol::Grpc, true);
        assert_eq!((http1 == http2, reach), (false, Reach::Http2));
        let (mesh, reach) = build(pb::Protocol::Http1, false);
        assert_eq!(([http1, http2].contains(&mesh), reach), (false, Reach::Mesh));
    }
}
