//! Protobuf -> model.
//!
//! `at` is the path of the message within what the user sent (`routes[0]`);
//! empty when it is the whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use weir_proto::weir::mesh::v1 as pb;

use crate::canonical::Slashes;
use crate::model::{
    AddressError, Addresses, BackendRef, HeaderModifier, HostPattern, Instance, Invalid, Options,
    Parent, PathMatch, Protocol, Route, RouteFilter, RouteKind, RouteMatch, RouteRule, Service,
    Snapshot, Split, Sticky, Transport, VersionName, Violations, Weight,
};

fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

/// Reads a service.
///
/// # Errors
/// All fields that are wrong.
pub fn service(message: &pb::Service, at: &str) -> Result<Service, Invalid> {
    let mut bad = Violations::new();
    let name = bad.take(&join(at, "name"), message.name.parse());
    let protocol = match message.protocol() {
        pb::Protocol::Http1 => Some(Protocol::Http1),
        pb::Protocol::Http2 => Some(Protocol::Http2),
        pb::Protocol::Grpc => Some(Protocol::Grpc),
        pb::Protocol::Unspecified => {
            let known = "PROTOCOL_HTTP1, PROTOCOL_HTTP2 or PROTOCOL_GRPC";
            bad.add(join(at, "protocol"), format_args!("is missing; use {known}"));
            None
        }
    };
    let mut versions = Vec::with_capacity(message.versions.len());
    let mut addresses = Addresses::new();
    for (i, entry) in message.versions.iter().enumerate() {
        let at = join(at, &format!("versions[{i}]"));
        let version = bad.take(&join(&at, "version"), entry.version.parse());
        let weight = bad.take(&join(&at, "weight"), Weight::try_from(entry.weight));
        if let Some(version) = &version {
            self::addresses(&entry.addresses, version, &at, &mut addresses, &mut bad);
        }
        versions.extend(version.zip(weight));
    }
    let sticky = match message.sticky.as_ref().map(|s| sticky(s, &join(at, "sticky"))) {
        None => None,
        Some(Ok(sticky)) => Some(sticky),
        Some(Err(invalid)) => {
            bad.extend(invalid);
            None
        }
    };
    // With a version missing, what the split says of the rest would mislead.
    let split = if versions.len() == message.versions.len() {
        bad.take(&join(at, "versions"), Split::new(versions, sticky))
    } else {
        None
    };
    let service = name.zip(protocol).zip(split).map(|((name, protocol), split)| Service {
        name,
        protocol,
        split,
        addresses,
        descriptor_set: message.descriptor_set.clone(),
    });
    bad.finish(service)
}

fn addresses(
    texts: &[String],
    version: &VersionName,
    at: &str,
    addresses: &mut Addresses,
    bad: &mut Violations,
) {
    if texts.len() > Addresses::MAX {
        // Told once, not again for each that is over.
        bad.add(join(at, "addresses"), AddressError::Many(version.clone()));
        return;
    }
    for (i, text) in texts.iter().enumerate() {
        bad.take(&join(at, &format!("addresses[{i}]")), addresses.add(version, text));
    }
}

/// Reads what makes requests sticky.
///
/// # Errors
/// All fields that are wrong.
pub fn sticky(message: &pb::Sticky, at: &str) -> Result<Sticky, Invalid> {
    match &message.by {
        Some(pb::sticky::By::Header(name)) => name
            .parse()
            .map(Sticky::Header)
            .map_err(|_| Invalid::one(join(at, "header"), format!("{name:?} is no header name"))),
        Some(pb::sticky::By::Cookie(name)) if is_token(name) => {
            Ok(Sticky::Cookie(name.as_str().into()))
        }
        Some(pb::sticky::By::Cookie(name)) => Err(Invalid::one(
            join(at, "cookie"),
            format!("{name:?} is no cookie name (RFC 6265 §4.1.1)"),
        )),
        Some(pb::sticky::By::User(true)) => Ok(Sticky::User),
        Some(pb::sticky::By::User(false)) => {
            Err(Invalid::one(join(at, "user"), "is false; leave it out instead"))
        }
        None => Err(Invalid::one(at, "is empty; set header, cookie or user")),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Reads an instance.
///
/// # Errors
/// All fields that are wrong.
pub fn instance(message: &pb::Instance, at: &str) -> Result<Instance, Invalid> {
    let mut bad = Violations::new();
    if message.id.is_empty() || message.id.len() > 253 {
        bad.add(join(at, "id"), "must have 1 to 253 characters");
    }
    let service = bad.take(&join(at, "service"), message.service.parse());
    let version = bad.take(&join(at, "version"), message.version.parse());
    let address = bad.take(
        &join(at, "address"),
        message
            .address
            .parse()
            .map_err(|_| format!("{:?} is not `ip:port`, such as 10.0.0.7:15008", message.address)),
    );
    let instance =
        service.zip(version).zip(address).map(|((service, version), address)| Instance {
            id: message.id.as_str().into(),
            service,
            version,
            address,
            transport: if message.plain { Transport::Plain } else { Transport::Mesh },
            zone: message.zone.as_str().into(),
            healthy: message.healthy,
        });
    bad.finish(instance)
}

/// Reads mesh-wide switches.
///
/// # Errors
/// All fields that are wrong.
pub fn options(message: &pb::Options, at: &str) -> Result<Options, Invalid> {
    if !(0.0..=1.0).contains(&message.trace_sampling) {
        let why = format!("{} is not between 0.0 and 1.0", message.trace_sampling);
        return Err(Invalid::one(join(at, "traceSampling"), why));
    }
    Ok(Options {
        trace_sampling: message.trace_sampling,
        show_version: message.show_version,
        cors_origins: message.cors_origins.iter().map(|o| o.as_str().into()).collect(),
        escaped_slashes: match message.keep_escaped_slashes {
            true => Slashes::Keep,
            false => Slashes::Reject,
        },
        deny_by_default: message.deny_by_default,
        hide_policies: message.hide_policies,
    })
}

/// Reads a route. Whether its backends exist is for the caller to ask.
///
/// # Errors
/// All fields that are wrong.
pub fn route(message: &pb::Route, at: &str) -> Result<Route, Invalid> {
    let mut bad = Violations::new();
    let name = message.name.as_str();
    if name.is_empty() || name.len() > 253 || !name.split('.').all(|l| l.parse::<Label>().is_ok()) {
        bad.add(join(at, "name"), format_args!("{name:?} is not a DNS subdomain name (RFC 1123)"));
    }
    let kind = match message.kind() {
        pb::route::Kind::GrpcRoute => RouteKind::Grpc,
        pb::route::Kind::HttpRoute | pb::route::Kind::Unspecified => RouteKind::Http,
    };
    if message.parent_refs.is_empty() {
        let why = "is empty; name a Gateway or a Service, or the route would do nothing";
        bad.add(join(at, "parentRefs"), why);
    }
    let mut parents = Vec::new();
    for (i, parent) in message.parent_refs.iter().enumerate() {
        let at = join(at, &format!("parentRefs[{i}]"));
        match parent.kind.as_str() {
            "Gateway" => parents.push(Parent::Gateway),
            "Service" => parents
                .extend(bad.take(&join(&at, "name"), parent.name.parse()).map(Parent::Service)),
            other => bad.add(
                join(&at, "kind"),
                format_args!("{other:?} is not supported; use Gateway or Service"),
            ),
        }
    }
    let mut hostnames = Vec::new();
    for (i, host) in message.hostnames.iter().enumerate() {
        let at = join(at, &format!("hostnames[{i}]"));
        hostnames.extend(bad.take(&at, HostPattern::parse(host)));
    }
    if message.rules.is_empty() {
        bad.add(join(at, "rules"), "is empty; a route without rules does nothing");
    }
    let mut rules = Vec::new();
    for (i, message) in message.rules.iter().enumerate() {
        match rule(message, &join(at, &format!("rules[{i}]"))) {
            Ok(rule) => rules.push(rule),
            Err(invalid) => bad.extend(invalid),
        }
    }
    bad.finish(Some(Route { name: name.into(), kind, parents, hostnames, rules }))
}

type Label = crate::model::ServiceName;

fn rule(message: &pb::RouteRule, at: &str) -> Result<RouteRule, Invalid> {
    let mut bad = Violations::new();
    let mut matches = Vec::new();
    for (i, message) in message.matches.iter().enumerate() {
        match route_match(message, &join(at, &format!("matches[{i}]"))) {
            Ok(value) => matches.push(value),
            Err(invalid) => bad.extend(invalid),
        }
    }
    if message.matches.is_empty() {
        matches.push(RouteMatch::any());
    }
    let mut filters = Vec::new();
    for (i, message) in message.filters.iter().enumerate() {
        let at = join(at, &format!("filters[{i}]"));
        let (field, modifier) = match &message.filter {
            Some(pb::route_filter::Filter::RequestHeaderModifier(m)) => {
                ("requestHeaderModifier", m)
            }
            Some(pb::route_filter::Filter::ResponseHeaderModifier(m)) => {
                ("responseHeaderModifier", m)
            }
            None => {
                bad.add(at, "is empty; set requestHeaderModifier or responseHeaderModifier");
                continue;
            }
        };
        match header_modifier(modifier, &join(&at, field)) {
            Ok(m) if field.starts_with("request") => {
                filters.push(RouteFilter::RequestHeaderModifier(m));
            }
            Ok(m) => filters.push(RouteFilter::ResponseHeaderModifier(m)),
            Err(invalid) => bad.extend(invalid),
        }
    }
    let backends = backends(&message.backend_refs, &join(at, "backendRefs"), &mut bad);
    let timeout = match message.request_timeout_ms {
        0 => None,
        ms => Some(Duration::from_millis(ms.into())),
    };
    let name = message.name.as_str().into();
    bad.finish(Some(RouteRule { name, matches, filters, backends, timeout }))
}

fn backends(messages: &[pb::BackendRef], at: &str, bad: &mut Violations) -> Vec<BackendRef> {
    let mut backends = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let service = bad.take(&join(&at, "service"), message.service.parse());
        let version = match message.version.as_str() {
            "" => Some(None),
            name => bad.take(&join(&at, "version"), name.parse()).map(Some),
        };
        let weight = bad.take(&join(&at, "weight"), Weight::try_from(message.weight));
        backends.extend(
            service.zip(version).zip(weight).map(|((service, version), weight)| BackendRef {
                service,
                version,
                weight,
            }),
        );
    }
    if messages.is_empty() {
        bad.add(at, "is empty; name at least one backend");
    } else if messages.iter().all(|m| m.weight == 0) {
        bad.add(at, "all weights are 0; at least one must be above 0");
    }
    backends
}

fn route_match(message: &pb::RouteMatch, at: &str) -> Result<RouteMatch, Invalid> {
    let mut bad = Violations::new();
    let path = match message.path_type() {
        pb::route_match::PathType::Unspecified if message.path.is_empty() => PathMatch::any(),
        _ if !message.path.starts_with('/') => {
            bad.add(join(at, "path"), format_args!("{:?} does not begin with '/'", message.path));
            PathMatch::any()
        }
        pb::route_match::PathType::Exact => PathMatch::Exact(message.path.as_str().into()),
        _ => PathMatch::Prefix(message.path.trim_end_matches('/').into()),
    };
    let method = match message.method.as_str() {
        "" => None,
        name => bad.take(
            &join(at, "method"),
            Method::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no method")),
        ),
    };
    let headers = name_values(&message.headers, &join(at, "headers"), &mut bad);
    let query = message
        .query_params
        .iter()
        .map(|q| (Arc::from(q.name.as_str()), Arc::from(q.value.as_str())))
        .collect();
    bad.finish(Some(RouteMatch { path, method, headers, query }))
}

fn header_modifier(message: &pb::HeaderModifier, at: &str) -> Result<HeaderModifier, Invalid> {
    let mut bad = Violations::new();
    let set = name_values(&message.set, &join(at, "set"), &mut bad);
    let add = name_values(&message.add, &join(at, "add"), &mut bad);
    let mut remove = Vec::new();
    for (i, name) in message.remove.iter().enumerate() {
        remove.extend(bad.take(&join(at, &format!("remove[{i}]")), header_name(name)));
    }
    bad.finish(Some(HeaderModifier { set, add, remove }))
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is no header name"))
}

fn name_values(
    messages: &[pb::NameValue],
    at: &str,
    bad: &mut Violations,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let name = bad.take(&format!("{at}[{i}].name"), header_name(&message.name));
        let value = HeaderValue::from_str(&message.value)
            .map_err(|_| "has a character that no header may hold");
        let value = bad.take(&format!("{at}[{i}].value"), value);
        pairs.extend(name.zip(value));
    }
    pairs
}

/// Reads a snapshot.
///
/// # Errors
/// All fields that are wrong, backends that name no service among them.
pub fn snapshot(message: &pb::Snapshot) -> Result<Snapshot, Invalid> {
    let mut bad = Violations::new();
    let mut keep = |invalid: Invalid| bad.extend(invalid);
    let mut services = BTreeMap::new();
    for (i, message) in message.services.iter().enumerate() {
        match service(message, &format!("services[{i}]")) {
            Ok(service) => drop(services.insert(service.name.clone(), service)),
            Err(invalid) => keep(invalid),
        }
    }
    let mut routes = Vec::with_capacity(message.routes.len());
    for (i, message) in message.routes.iter().enumerate() {
        match route(message, &format!("routes[{i}]")) {
            Ok(route) => routes.push(route),
            Err(invalid) => keep(invalid),
        }
    }
    let mut instances = Vec::with_capacity(message.instances.len());
    for (i, message) in message.instances.iter().enumerate() {
        match instance(message, &format!("instances[{i}]")) {
            Ok(instance) => instances.push(instance),
            Err(invalid) => keep(invalid),
        }
    }
    let mut policies = Vec::with_capacity(message.policies.len());
    for (i, message) in message.policies.iter().enumerate() {
        match super::policy(message, &format!("policies[{i}]")) {
            Ok(policy) => policies.push(policy),
            Err(invalid) => keep(invalid),
        }
    }
    let options = match message.options.as_ref().map(|o| options(o, "options")) {
        None => Options::default(),
        Some(Ok(options)) => options,
        Some(Err(invalid)) => {
            keep(invalid);
            Options::default()
        }
    };
    for (i, route) in routes.iter().enumerate() {
        for (j, rule) in route.rules.iter().enumerate() {
            for (k, backend) in rule.backends.iter().enumerate() {
                if !services.contains_key(&backend.service) {
                    bad.add(
                        format!("routes[{i}].rules[{j}].backendRefs[{k}].service"),
                        format_args!("no service {:?}", backend.service.as_str()),
                    );
                }
            }
        }
    }
    bad.finish(Some(Snapshot {
        sequence: message.sequence,
        revision: message.revision,
        trust_domain: message.trust_domain.as_str().into(),
        services,
        routes,
        policies,
        instances,
        options,
        trust_bundle: message.trust_bundle.iter().map(|der| der.clone().into()).collect(),
    }))
}
