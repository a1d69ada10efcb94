//! Protobuf -> model.
//!
//! `at` is the path of the message within what the user sent (`routes[0]`);
//! empty when it is the whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weir_proto::weir::mesh::v1 as pb;

use super::audience;
use super::decode_route::route;
use crate::canonical::Slashes;
use crate::identity::SpiffeId;
use crate::model::{
    AddressError, Addresses, Instance, Invalid, Options, Protocol, Service, Snapshot, Split,
    Sticky, Transport, VersionName, Violations, Weight,
};

pub(super) fn join(at: &str, field: &str) -> String {
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
        pb::Protocol::Tcp => Some(Protocol::Tcp),
        pb::Protocol::Unspecified => {
            let known = "PROTOCOL_HTTP1, PROTOCOL_HTTP2, PROTOCOL_GRPC or PROTOCOL_TCP";
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
    let virtual_addresses =
        socket_addresses(&message.virtual_addresses, &join(at, "virtualAddresses"), &mut bad);
    let audiences = audience::audiences(&message.audiences, split.as_ref(), at, &mut bad);
    let mirror = audience::mirror(message.mirror.as_ref(), split.as_ref(), at, &mut bad);
    let managed_by = managed_by(&message.managed_by, &join(at, "managedBy"), &mut bad);
    let service = name.zip(protocol).zip(split).map(|((name, protocol), split)| Service {
        name,
        protocol,
        split,
        addresses,
        virtual_addresses,
        audiences,
        mirror,
        managed_by,
        descriptor_set: message.descriptor_set.clone(),
    });
    bad.finish(service)
}

/// Characters of a manager's name.
const MAX_MANAGER: usize = 128;

/// Who alone changes a service's weights; empty: nobody.
pub(crate) fn managed_by(name: &str, at: &str, bad: &mut Violations) -> Option<Arc<str>> {
    if name.len() > MAX_MANAGER || !name.bytes().all(|b| b.is_ascii_graphic()) {
        bad.add(at, format_args!("must have at most {MAX_MANAGER} visible ASCII characters"));
    }
    (!name.is_empty()).then(|| name.into())
}

fn socket_addresses(texts: &[String], at: &str, bad: &mut Violations) -> Vec<SocketAddr> {
    let mut addresses = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let parsed = text.parse::<SocketAddr>().map_err(|_| format!("{text:?} is not `ip:port`"));
        addresses.extend(bad.take(&format!("{at}[{i}]"), parsed));
    }
    addresses
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

pub(super) fn is_token(text: &str) -> bool {
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
    let identity = match message.identity.as_str() {
        "" => None,
        text => bad.take(&join(at, "identity"), text.parse::<SpiffeId>()).map(Arc::new),
    };
    let instance =
        service.zip(version).zip(address).map(|((service, version), address)| Instance {
            id: message.id.as_str().into(),
            service,
            version,
            address,
            transport: if message.plain { Transport::Plain } else { Transport::Mesh },
            zone: message.zone.as_str().into(),
            healthy: message.healthy,
            identity,
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
    let mut bad = Violations::new();
    let egress = super::tcp::egress(message.egress.as_ref(), &join(at, "egress"), &mut bad);
    bad.finish(Some(Options {
        trace_sampling: message.trace_sampling,
        show_version: message.show_version,
        cors_origins: message.cors_origins.iter().map(|o| o.as_str().into()).collect(),
        egress,
        tcp: super::tcp::options(message.tcp.as_ref()),
        escaped_slashes: match message.keep_escaped_slashes {
            true => Slashes::Keep,
            false => Slashes::Reject,
        },
        deny_by_default: message.deny_by_default,
        hide_policies: message.hide_policies,
    }))
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
    let tcp_routes = super::tcp::tcp_routes(message, &services, &mut keep);
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
    let mut listeners = Vec::with_capacity(message.listeners.len());
    for (i, message) in message.listeners.iter().enumerate() {
        match super::listener::listener(message, &format!("listeners[{i}]")) {
            Ok(listener) => listeners.push(listener),
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
            for (place, service, _) in rule.targets() {
                if !services.contains_key(service) {
                    bad.add(
                        format!("routes[{i}].rules[{j}].{place}.service"),
                        format_args!("no service {:?}", service.as_str()),
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
        tcp_routes,
        instances,
        options,
        listeners,
        trust_bundle: message.trust_bundle.iter().map(|der| der.clone().into()).collect(),
    }))
}
