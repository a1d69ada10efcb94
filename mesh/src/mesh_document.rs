//! The desired state's services and options as the mesh file (`kind: Mesh`) that a user
//! could have written.
//!
//! What only the file knows is not there: how versions are started, join tokens, ports of
//! the gateway. A version that has no addresses is written as `discovered: true`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::canonical::Slashes;
use crate::duration;
use crate::model::{Options, Protocol, Service};
use crate::traffic_split::{self, TrafficSplit};

/// `apiVersion` of mesh files.
pub const API_VERSION: &str = "weir.dev/v1alpha1";
/// The kind.
pub const KIND: &str = "Mesh";

/// What a descriptor set within a mesh file begins with (RFC 2397).
pub const DATA_URL: &str = "data:;base64,";

/// Writes services and options. Options that are as they are by default are left out.
#[must_use]
pub fn to_document<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    options: Option<&Options>,
) -> Value {
    let mut document = Map::new();
    document.insert("apiVersion".to_owned(), API_VERSION.into());
    document.insert("kind".to_owned(), KIND.into());
    if let Some(options) = options {
        put_options(options, &mut document);
    }
    document.insert("services".to_owned(), services.into_iter().map(service).collect());
    Value::Object(document)
}

/// Writes one service, as it stands in a mesh file's `services`.
#[must_use]
pub fn service(service: &Service) -> Value {
    let wanted = TrafficSplit {
        split: service.split.clone(),
        audiences: service.audiences.clone(),
        mirror: service.mirror.clone(),
        managed_by: service.managed_by.clone(),
    };
    let mut document = json!({
        "name": service.name.as_str(),
        "protocol": protocol(service.protocol),
    });
    if !service.descriptor_set.is_empty() {
        document["descriptorSet"] = descriptor_set(service).into();
    }
    if let (Value::Object(document), Value::Object(spec)) =
        (&mut document, traffic_split::to_spec(&wanted))
    {
        document.extend(spec);
    }
    let versions = service.split.versions().iter().map(|(name, weight)| {
        let addresses = service.addresses.of(name);
        let mut version = json!({ "name": name.as_str(), "weight": weight.get() });
        match addresses {
            [] => version["discovered"] = true.into(),
            _ => version["addresses"] = addresses.iter().map(ToString::to_string).collect(),
        }
        version
    });
    document["versions"] = versions.collect();
    document
}

/// `builtin` where it is the one that a service of this name ships with.
fn descriptor_set(service: &Service) -> String {
    match weir_proto::descriptors::of(service.name.as_str()) {
        Some(own) if *own == *service.descriptor_set => "builtin".to_owned(),
        _ => format!("{DATA_URL}{}", STANDARD.encode(&service.descriptor_set)),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    }
}

fn put_options(options: &Options, document: &mut Map<String, Value>) {
    let default = Options::default();
    let mut put = |field: &str, value: Map<String, Value>| {
        if !value.is_empty() {
            document.insert(field.to_owned(), Value::Object(value));
        }
    };
    let set = |entries: &[(&str, bool, Value)]| -> Map<String, Value> {
        let differs = entries.iter().filter(|(_, differs, _)| *differs);
        differs.map(|(field, _, value)| ((*field).to_owned(), value.clone())).collect()
    };
    let sampling = options.trace_sampling;
    let sampled = (sampling - default.trace_sampling).abs() > 0.0;
    put("tracing", set(&[("sampling", sampled, json!(sampling))]));
    let origins: Vec<_> = options.cors_origins.iter().map(|origin| &**origin).collect();
    put(
        "gateway",
        set(&[
            ("showVersion", options.show_version, true.into()),
            ("corsOrigins", !origins.is_empty(), json!(origins)),
        ]),
    );
    let (tcp, usual) = (&options.tcp, &default.tcp);
    let (idle, detection) = (tcp.idle_timeout, tcp.detection_timeout);
    put(
        "tcp",
        set(&[
            ("idleTimeout", idle != usual.idle_timeout, duration::print(idle).into()),
            (
                "detectionTimeout",
                detection != usual.detection_timeout,
                duration::print(detection).into(),
            ),
            (
                "maxConnections",
                tcp.max_connections != usual.max_connections,
                tcp.max_connections.into(),
            ),
        ]),
    );
    let keep = options.escaped_slashes == Slashes::Keep;
    put("path", set(&[("escapedSlashes", keep, "Keep".into())]));
    put(
        "authorization",
        set(&[
            ("default", options.deny_by_default, "Deny".into()),
            ("explain", options.hide_policies, false.into()),
        ]),
    );
    if let Some(egress) = &options.egress {
        let hosts = egress
            .hosts
            .iter()
            .map(|host| json!({ "host": host.target.to_string(), "ports": host.ports }));
        let otherwise = if egress.allow_by_default { "Allow" } else { "Deny" };
        let egress = json!({ "default": otherwise, "hosts": hosts.collect::<Vec<_>>() });
        document.insert("egress".to_owned(), egress);
    }
}
