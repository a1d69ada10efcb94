//! Model -> protobuf: routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use weir_proto::weir::mesh::v1 as pb;

use crate::model::{
    BackendRef, Cors, ForceVersion, HeaderModifier, Mirror, Names, Parent, PathMatch, PathModifier,
    RetryRule, Route, RouteFilter, RouteKind, RouteMatch, RouteRule, SessionKind,
    SessionPersistence, ValueMatch,
};

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn millis(time: Option<Duration>) -> u32 {
    time.map_or(0, |t| u32::try_from(t.as_millis()).unwrap_or(u32::MAX))
}

fn parent_ref(kind: &str, name: &str) -> pb::ParentRef {
    pb::ParentRef { kind: kind.into(), name: name.into(), ..Default::default() }
}

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        let kind = match route.kind {
            RouteKind::Http => pb::route::Kind::HttpRoute,
            RouteKind::Grpc => pb::route::Kind::GrpcRoute,
        };
        let parent = |parent: &Parent| match parent {
            Parent::Gateway => parent_ref("Gateway", "gateway"),
            Parent::Consumer { service, namespace } => pb::ParentRef {
                consumer_namespace: namespace.to_string(),
                ..parent_ref("Service", service.as_str())
            },
            Parent::Listener(id) => parent_ref("Listener", id),
            Parent::Service(name) => parent_ref("Service", name.as_str()),
        };
        let force = |force: &ForceVersion| pb::ForceVersion {
            by: Some(match force {
                ForceVersion::Header(name) => pb::force_version::By::Header(name.to_string()),
                ForceVersion::Cookie(name) => pb::force_version::By::Cookie(name.to_string()),
            }),
        };
        Self {
            name: route.name.to_string(),
            kind: kind.into(),
            parent_refs: route.parents.iter().map(parent).collect(),
            hostnames: route.hostnames.iter().map(ToString::to_string).collect(),
            rules: route.rules.iter().map(Into::into).collect(),
            force_version: route.force_version.as_ref().map(force),
            pin_versions: route.pin_versions,
        }
    }
}

impl From<&RouteRule> for pb::RouteRule {
    fn from(rule: &RouteRule) -> Self {
        Self {
            name: rule.name.to_string(),
            matches: rule.matches.iter().map(Into::into).collect(),
            filters: rule.filters.iter().map(Into::into).collect(),
            backend_refs: rule.backends.iter().map(Into::into).collect(),
            request_timeout_ms: millis(rule.timeout),
            retry: rule.retry.as_ref().map(Into::into),
            session_persistence: rule.session.as_ref().map(Into::into),
            backend_request_timeout_ms: millis(rule.backend_timeout),
        }
    }
}

impl From<&RetryRule> for pb::Retry {
    fn from(retry: &RetryRule) -> Self {
        Self {
            codes: retry.codes.iter().map(|code| (*code).into()).collect(),
            attempts: retry.attempts,
            backoff_ms: millis(retry.backoff),
        }
    }
}

impl From<&SessionPersistence> for pb::SessionPersistence {
    fn from(session: &SessionPersistence) -> Self {
        let kind = match session.kind {
            SessionKind::Cookie => pb::session_persistence::Kind::Cookie,
            SessionKind::PermanentCookie => pb::session_persistence::Kind::PermanentCookie,
            SessionKind::Header => pb::session_persistence::Kind::Header,
        };
        Self {
            session_name: text(session.name.as_ref()),
            kind: kind.into(),
            absolute_timeout_ms: millis(session.absolute_timeout),
            idle_timeout_ms: millis(session.idle_timeout),
        }
    }
}

impl From<&BackendRef> for pb::BackendRef {
    fn from(backend: &BackendRef) -> Self {
        Self {
            service: backend.service.to_string(),
            version: text(backend.version.as_ref()),
            weight: i32::try_from(backend.weight.get()).unwrap_or(i32::MAX),
            filters: backend.filters.iter().map(Into::into).collect(),
            invalid: text(backend.invalid.as_ref()),
        }
    }
}

impl From<&RouteMatch> for pb::RouteMatch {
    fn from(value: &RouteMatch) -> Self {
        use pb::route_match::PathType;
        let mut grpc_method = None;
        let (path_type, path) = match &value.path {
            PathMatch::Exact(path) => (PathType::Exact, path.to_string()),
            PathMatch::Prefix(path) if path.is_empty() => (PathType::PathPrefix, "/".to_owned()),
            PathMatch::Prefix(path) => (PathType::PathPrefix, path.to_string()),
            PathMatch::Regex(pattern) => (PathType::RegularExpression, pattern.as_str().to_owned()),
            PathMatch::GrpcMethod(method) => {
                let method = method.to_string();
                grpc_method = Some(pb::GrpcMethodMatch { method, ..Default::default() });
                (PathType::GrpcMethod, String::new())
            }
            PathMatch::GrpcRegex { service, method } => {
                let text = |pattern: &Option<crate::model::Pattern>| {
                    pattern.as_ref().map(|p| p.as_str().to_owned()).unwrap_or_default()
                };
                let (service, method) = (text(service), text(method));
                grpc_method = Some(pb::GrpcMethodMatch { service, method, regex: true });
                (PathType::GrpcMethod, String::new())
            }
        };
        Self {
            path_type: path_type.into(),
            path,
            method: text(value.method.as_ref()),
            headers: value.headers.iter().map(|(name, v)| wanted(name.as_str(), v)).collect(),
            query_params: value.query.iter().map(|(name, v)| wanted(name, v)).collect(),
            grpc_method,
        }
    }
}

fn wanted(name: &str, value: &ValueMatch) -> pb::NameValue {
    let (value, regex) = match value {
        ValueMatch::Exact(value) => (value.to_string(), false),
        ValueMatch::Regex(pattern) => (pattern.as_str().to_owned(), true),
    };
    pb::NameValue { name: name.to_owned(), value, regex }
}

impl From<&RouteFilter> for pb::RouteFilter {
    fn from(filter: &RouteFilter) -> Self {
        use pb::route_filter::Filter;
        let path = |path: &PathModifier| pb::PathModifier {
            path: Some(match path {
                PathModifier::Full(path) => {
                    pb::path_modifier::Path::ReplaceFullPath(path.to_string())
                }
                PathModifier::Prefix(path) => {
                    pb::path_modifier::Path::ReplacePrefixMatch(path.to_string())
                }
            }),
        };
        let filter = match filter {
            RouteFilter::RequestHeaderModifier(m) => Filter::RequestHeaderModifier(m.into()),
            RouteFilter::ResponseHeaderModifier(m) => Filter::ResponseHeaderModifier(m.into()),
            RouteFilter::RequestRedirect(redirect) => {
                Filter::RequestRedirect(pb::RequestRedirect {
                    scheme: redirect.scheme.map_or("", |scheme| scheme.as_str()).to_owned(),
                    hostname: text(redirect.hostname.as_ref()),
                    path: redirect.path.as_ref().map(path),
                    port: redirect.port.map_or(0, |port| port.get().into()),
                    status_code: redirect.status.into(),
                })
            }
            RouteFilter::UrlRewrite(rewrite) => Filter::UrlRewrite(pb::UrlRewrite {
                hostname: text(rewrite.hostname.as_ref()),
                path: rewrite.path.as_ref().map(path),
            }),
            RouteFilter::RequestMirror(mirror) => Filter::RequestMirror(mirror.into()),
            RouteFilter::Cors(cors) => Filter::Cors(cors.into()),
            RouteFilter::Extension { kind, name } => Filter::ExtensionRef(pb::ExtensionRef {
                kind: kind.to_string(),
                name: name.to_string(),
            }),
        };
        Self { filter: Some(filter) }
    }
}

impl From<&Mirror> for pb::RequestMirror {
    fn from(mirror: &Mirror) -> Self {
        let fraction = |f: crate::model::Fraction| pb::Fraction {
            numerator: f.numerator,
            denominator: f.denominator,
        };
        Self {
            service: mirror.service.to_string(),
            version: text(mirror.version.as_ref()),
            fraction: mirror.fraction.map(fraction),
        }
    }
}

impl From<&Cors> for pb::Cors {
    fn from(cors: &Cors) -> Self {
        fn names<T: ToString>(names: &Names<T>) -> Vec<String> {
            match names {
                Names::Any => vec!["*".to_owned()],
                Names::These(names) => names.iter().map(ToString::to_string).collect(),
            }
        }
        Self {
            allow_origins: cors.allow_origins.iter().map(ToString::to_string).collect(),
            allow_credentials: cors.allow_credentials,
            allow_methods: names(&cors.allow_methods),
            allow_headers: names(&cors.allow_headers),
            expose_headers: names(&cors.expose_headers),
            max_age: cors.max_age,
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
    let pair = |(name, value): &(HeaderName, HeaderValue)| {
        let value: Arc<str> = String::from_utf8_lossy(value.as_bytes()).into();
        wanted(name.as_str(), &ValueMatch::Exact(value))
    };
    headers.iter().map(pair).collect()
}
