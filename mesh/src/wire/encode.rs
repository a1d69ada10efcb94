//! Model -> protobuf.

use weir_proto::weir::mesh::v1 as pb;

use crate::canonical::Slashes;
use crate::model::{
    Instance, Options, Protocol, Service, Snapshot, Sticky, Transport, VersionName, Weight,
};

impl From<&Service> for pb::Service {
    fn from(service: &Service) -> Self {
        let protocol = match service.protocol {
            Protocol::Http1 => pb::Protocol::Http1,
            Protocol::Http2 => pb::Protocol::Http2,
            Protocol::Grpc => pb::Protocol::Grpc,
            Protocol::Tcp => pb::Protocol::Tcp,
        };
        let weight = |(version, weight): &(VersionName, Weight)| pb::VersionWeight {
            version: version.to_string(),
            weight: i32::try_from(weight.get()).unwrap_or(i32::MAX),
            addresses: service.addresses.of(version).iter().map(ToString::to_string).collect(),
        };
        Self {
            name: service.name.to_string(),
            protocol: protocol.into(),
            versions: service.split.versions().iter().map(weight).collect(),
            sticky: service.split.sticky.as_ref().map(Into::into),
            descriptor_set: service.descriptor_set.clone(),
            virtual_addresses: service.virtual_addresses.iter().map(ToString::to_string).collect(),
            audiences: service.audiences.iter().map(Into::into).collect(),
            mirror: service.mirror.as_ref().map(Into::into),
            managed_by: service.managed_by.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl From<&Sticky> for pb::Sticky {
    fn from(sticky: &Sticky) -> Self {
        let by = match sticky {
            Sticky::Header(name) => pb::sticky::By::Header(name.to_string()),
            Sticky::Cookie(name) => pb::sticky::By::Cookie(name.to_string()),
            Sticky::User => pb::sticky::By::User(true),
        };
        Self { by: Some(by) }
    }
}

impl From<&Instance> for pb::Instance {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.to_string(),
            service: instance.service.to_string(),
            version: instance.version.to_string(),
            address: instance.address.to_string(),
            zone: instance.zone.to_string(),
            healthy: instance.healthy,
            plain: instance.transport == Transport::Plain,
            identity: instance.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<&Options> for pb::Options {
    fn from(options: &Options) -> Self {
        Self {
            trace_sampling: options.trace_sampling,
            show_version: options.show_version,
            cors_origins: options.cors_origins.iter().map(ToString::to_string).collect(),
            egress: options.egress.as_ref().map(Into::into),
            tcp: super::tcp::encode_options(&options.tcp),
            keep_escaped_slashes: options.escaped_slashes == Slashes::Keep,
            deny_by_default: options.deny_by_default,
            hide_policies: options.hide_policies,
        }
    }
}

impl From<&Snapshot> for pb::Snapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            sequence: snapshot.sequence,
            revision: snapshot.revision,
            trust_domain: snapshot.trust_domain.to_string(),
            services: snapshot.services.values().map(Into::into).collect(),
            routes: snapshot.routes.iter().map(Into::into).collect(),
            instances: snapshot.instances.iter().map(Into::into).collect(),
            policies: snapshot.policies.iter().map(Into::into).collect(),
            options: Some((&snapshot.options).into()),
            trust_bundle: snapshot.trust_bundle.iter().map(|der| der.to_vec()).collect(),
            tcp_routes: snapshot.tcp_routes.iter().map(Into::into).collect(),
            listeners: snapshot.listeners.iter().map(Into::into).collect(),
        }
    }
}
