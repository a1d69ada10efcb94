//! Fixtures, and what they come to.

mod gateways;
mod laws;
mod policies;
mod routes;
mod services;

use std::sync::Arc;

use serde_json::{Value, json};
use weir_mesh::wire;

use super::*;
use crate::registry::Role;
use crate::snapshot;

fn settings() -> Settings {
    Settings {
        trust_domain: "cluster.local".into(),
        namespace: "weir-system".into(),
        gateway_service: Some(("weir-system".into(), "weir-gateway".into())),
        egress_allowed: true,
        trace_sampling: 0.5,
    }
}

/// Objects from a list of documents with `kind` and `metadata`.
fn objects(documents: &[Value]) -> Objects {
    let mut objects = Objects::default();
    for document in documents {
        let kind = Kind::ALL.iter().find(|kind| document["kind"] == kind.as_str());
        objects.put(*kind.expect("a known kind"), document.clone());
    }
    objects
}

/// What documents come to; routers accept the snapshot of it.
fn translated(documents: &[Value]) -> Translated {
    let out = translate(&objects(documents), &settings());
    accepted_by_routers(&out);
    out
}

fn accepted_by_routers(out: &Translated) {
    let domain: Arc<str> = "cluster.local".into();
    let built = snapshot::build(&out.desired, out.instances.clone(), &[], &domain, 1);
    let built = built.expect("a snapshot");
    for role in [Role::Sidecar, Role::Gateway] {
        let bytes = snapshot::encode(&built, role);
        let message = prost::Message::decode(bytes).expect("what was encoded");
        wire::snapshot(&message).expect("what routers accept");
    }
}

fn namespace(name: &str) -> Value {
    let labels = json!({ "kubernetes.io/metadata.name": name });
    json!({ "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// A Service of namespace `shop` with these ports.
fn service(name: &str, ports: Value) -> Value {
    json!({
        "kind": "Service",
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": ports },
    })
}

fn http_port(port: u16) -> Value {
    json!({ "name": format!("http-{port}"), "port": port })
}

fn pod(name: &str, version: &str, injected: bool) -> Value {
    let annotations = if injected { json!({ "weir.dev/injected": "true" }) } else { json!({}) };
    json!({
        "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": name, "annotations": annotations,
            "labels": { "weir.dev/version": version },
        },
        "spec": { "serviceAccountName": "products" },
    })
}

fn endpoint(pod: &str, ip: &str, conditions: Value) -> Value {
    json!({
        "addresses": [ip], "conditions": conditions, "zone": "a",
        "targetRef": { "kind": "Pod", "namespace": "shop", "name": pod },
    })
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": name,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

/// An HTTPRoute of namespace `shop`.
fn http_route(name: &str, parents: Value, rules: Value) -> Value {
    route("HTTPRoute", "shop", name, parents, rules)
}

fn route(kind: &str, namespace: &str, name: &str, parents: Value, rules: Value) -> Value {
    json!({
        "kind": kind,
        "metadata": { "namespace": namespace, "name": name, "generation": 3 },
        "spec": { "parentRefs": parents, "rules": rules },
    })
}

fn of_service(name: &str) -> Value {
    json!({ "group": "", "kind": "Service", "name": name })
}

fn backends(to: &[(&str, u16)]) -> Value {
    let backend = |(name, port): &(&str, u16)| json!({ "name": name, "port": port });
    json!([{ "backendRefs": to.iter().map(backend).collect::<Vec<_>>() }])
}

/// The status of one object.
fn status<'a>(out: &'a Translated, kind: Kind, name: &str) -> &'a Value {
    let found = out.statuses.iter().find(|update| update.kind == kind && update.name == name);
    &found.unwrap_or_else(|| panic!("no status of {name}: {:?}", out.statuses)).status
}

/// `Accepted=True/Accepted` and the like of a list of conditions, in order.
fn told(of: &Value) -> Vec<String> {
    let conditions = of["conditions"].as_array().expect("conditions");
    let short = |c: &Value| {
        let text = |field: &str| c[field].as_str().unwrap_or_default().to_owned();
        format!("{}={}/{}", text("type"), text("status"), text("reason"))
    };
    conditions.iter().map(short).collect()
}

/// The same of a route's first parent.
fn told_by_parent(out: &Translated, kind: Kind, name: &str) -> Vec<String> {
    told(&status(out, kind, name)["parents"][0])
}
