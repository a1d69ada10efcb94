//! Probes of the application, which come from outside the mesh in plaintext.
//!
//! A router accepts every connection before it knows whether the application does,
//! so a TCP probe would always succeed: the router makes that connection when it is
//! asked for `/probe/tcp/PORT`. HTTP and gRPC probes pass as they are; the router is told
//! which they are, and lets them through where others need an identity.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use weir_cni::ADMIN_PORT;

use super::settings::Settings;

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

/// Rewrites TCP probes, and tells HTTP and gRPC probes as `port/path`.
pub fn rewrite(pod: &mut Value, settings: &Settings<'_>) -> BTreeSet<String> {
    let mut exempt = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let ports = container["ports"].clone();
            for kind in PROBES {
                let Some(probe) = container.get_mut(kind).and_then(Value::as_object_mut) else {
                    continue;
                };
                if let Some(port) =
                    probe.get("tcpSocket").and_then(|at| redirected(at, &ports, settings))
                {
                    probe.remove("tcpSocket");
                    let path = format!("/probe/tcp/{port}");
                    probe.insert("httpGet".into(), json!({"path": path, "port": ADMIN_PORT}));
                } else {
                    exempt.extend(plaintext(probe, &ports, settings));
                }
            }
        }
    }
    exempt
}

/// An HTTP or gRPC probe as `port/path`.
fn plaintext(probe: &Map<String, Value>, ports: &Value, settings: &Settings<'_>) -> Option<String> {
    let get = probe.get("httpGet").filter(|get| get["scheme"] != "HTTPS");
    let (action, path) = match get {
        Some(get) => (get, path(get)),
        // gRPC Health Checking Protocol.
        None => (probe.get("grpc")?, "/grpc.health.v1.Health/Check".to_owned()),
    };
    redirected(action, ports, settings).map(|port| format!("{port}{path}"))
}

/// The port of a probe of this pod that comes to the router.
fn redirected(action: &Value, ports: &Value, settings: &Settings<'_>) -> Option<u16> {
    if action["host"].as_str().is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let port = match &action["port"] {
        Value::String(name) => match name.parse() {
            Ok(port) => port,
            Err(_) => named(name, ports)?,
        },
        number => u16::try_from(number.as_u64()?).ok()?,
    };
    settings.redirects_inbound(port).then_some(port)
}

fn named(name: &str, ports: &Value) -> Option<u16> {
    let port = ports.as_array()?.iter().find(|port| port["name"] == name)?;
    u16::try_from(port["containerPort"].as_u64()?).ok()
}

/// As the kubelet asks for it, without a query. Commas stand between probes: a path
/// with one cannot be told.
fn path(get: &Value) -> String {
    let path = get["path"].as_str().unwrap_or_default();
    let path = path.split_once(['?', '#']).map_or(path, |(path, _)| path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{slash}{}", path.replace(',', "%2C"))
}
