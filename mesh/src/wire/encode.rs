//! Model -> protobuf.

use http::{HeaderName, HeaderValue};
use weir_proto::weir::mesh::v1 as pb;

use crate::canonical::Slashes;
use crate::model::{
    HeaderModifier, Instance, Options, Parent, PathMatch, Protocol, Route, RouteFilter, RouteKind,
    RouteMatch, RouteRule, Service, Snapshot, Sticky, Transport, VersionName, Weight,
};

impl From<&Service> for pb::Service {
    fn from(service: &Service) -> Self {
        let protocol = match service.protocol {
            Protocol::Http1 => pb::Protocol::Http1,
            Protocol::Http2 => pb::Protocol::Http2,
            Protocol::Grpc => pb::Protocol::Grpc,
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
        }
    }
}

impl From<&Options> for pb::Options {
    fn from(options: &Options) -> Self {
        Self {
            trace_sampling: options.trace_sampling,
            show_version: options.show_version,
            cors_origins: options.cors_origins.iter().map(ToString::to_string).collect(),
            keep_escaped_slashes: options.escaped_slashes == Slashes::Keep,
            deny_by_default: options.deny_by_default,
            hide_policies: options.hide_policies,
        }
    }
}

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        let kind = match route.kind {
            RouteKind::Http => pb::route::Kind::HttpRoute,
            RouteKind::Grpc => pb::route::Kind::GrpcRoute,
        };
        let parent = |parent: &Parent| match parent {
            Parent::Gateway => pb::ParentRef { kind: "Gateway".into(), name: "gateway".into() },
            Parent::Service(name) => {
                pb::ParentRef { kind: "Service".into(), name: name.to_string() }
            }
        };
        Self {
            name: route.name.to_string(),
            kind: kind.into(),
            parent_refs: route.parents.iter().map(parent).collect(),
            hostnames: route.hostnames.iter().map(ToString::to_string).collect(),
            rules: route.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<&RouteRule> for pb::RouteRule {
    fn from(rule: &RouteRule) -> Self {
        let filter = |filter: &RouteFilter| pb::RouteFilter {
            filter: Some(match filter {
                RouteFilter::RequestHeaderModifier(m) => {
                    pb::route_filter::Filter::RequestHeaderModifier(m.into())
                }
                RouteFilter::ResponseHeaderModifier(m) => {
                    pb::route_filter::Filter::ResponseHeaderModifier(m.into())
                }
            }),
        };
        Self {
            name: rule.name.to_string(),
            matches: rule.matches.iter().map(Into::into).collect(),
            filters: rule.filters.iter().map(filter).collect(),
            backend_refs: rule
                .backends
                .iter()
                .map(|backend| pb::BackendRef {
                    service: backend.service.to_string(),
                    version: backend.version.as_ref().map(ToString::to_string).unwrap_or_default(),
                    weight: i32::try_from(backend.weight.get()).unwrap_or(i32::MAX),
                })
                .collect(),
            request_timeout_ms: rule
                .timeout
                .map_or(0, |t| u32::try_from(t.as_millis()).unwrap_or(u32::MAX)),
        }
    }
}

impl From<&RouteMatch> for pb::RouteMatch {
    fn from(value: &RouteMatch) -> Self {
        let (path_type, path) = match &value.path {
            PathMatch::Exact(path) => (pb::route_match::PathType::Exact, path.to_string()),
            PathMatch::Prefix(path) if path.is_empty() => {
                (pb::route_match::PathType::PathPrefix, "/".to_owned())
            }
            PathMatch::Prefix(path) => (pb::route_match::PathType::PathPrefix, path.to_string()),
        };
        Self {
            path_type: path_type.into(),
            path,
            method: value.method.as_ref().map(ToString::to_string).unwrap_or_default(),
            headers: pairs(&value.headers),
            query_params: value
                .query
                .iter()
                .map(|(name, value)| pb::NameValue {
                    name: name.to_string(),
                    value: value.to_string(),
                })
                .collect(),
        }
    }
}

impl From<&HeaderModifier> for pb::HeaderModifier {
    fn from(modifier: &HeaderModifier) -> Self {
        Self {
            set: pairs(&modifier.set),
            add: pairs(&modifier.add),
            remove: modifier.remove.iter().map(ToString::to_string).collect(),
        }
    }
}

fn pairs(headers: &[(HeaderName, HeaderValue)]) -> Vec<pb::NameValue> {
    headers
        .iter()
        .map(|(name, value)| pb::NameValue {
            name: name.to_string(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        })
        .collect()
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
        }
    }
}
