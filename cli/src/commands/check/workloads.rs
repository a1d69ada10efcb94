//! Whether pods are in the mesh as their namespaces say.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Line;
use super::object::{at, items, name, some, text};

const ROUTER: &str = "weir-router";

/// What an annotation or label says of injection.
fn wish(object: &Value) -> Option<bool> {
    let metadata = &object["metadata"];
    ["annotations", "labels"].into_iter().find_map(|field| {
        match at(metadata, &[field])["weir.dev/inject"].as_str() {
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            _ => None,
        }
    })
}

fn router(pod: &Value) -> Option<&Value> {
    items(pod, &["spec", "initContainers"]).iter().find(|container| container["name"] == ROUTER)
}

fn runs(pod: &Value) -> bool {
    !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Pods of the namespaces that are looked at.
pub(super) fn pods(namespaces: &[Value], pods: &[Value], image: &str) -> Vec<Line> {
    let meshed: BTreeMap<&str, bool> = namespaces
        .iter()
        .map(|one| (text(one, &["metadata", "name"]), wish(one) == Some(true)))
        .collect();
    let (mut with, mut without, mut ill, mut old) = (0, Vec::new(), Vec::new(), Vec::new());
    for pod in pods.iter().filter(|pod| runs(pod)) {
        let namespace = text(pod, &["metadata", "namespace"]);
        let of_namespace = meshed.get(namespace).copied().unwrap_or_default();
        let wanted = wish(pod).unwrap_or(of_namespace) && pod["spec"]["hostNetwork"] != true;
        match router(pod) {
            None if wanted => without.push(name(pod)),
            None => {}
            Some(container) => {
                with += 1;
                let statuses = items(pod, &["status", "initContainerStatuses"]);
                let ready = statuses.iter().any(|s| s["name"] == ROUTER && s["ready"] == true);
                if !ready {
                    ill.push(name(pod));
                }
                if !image.is_empty() && text(container, &["image"]) != image {
                    old.push(name(pod));
                }
            }
        }
    }
    let mut lines = vec![match with {
        0 => Line::warning(
            "Pods in the mesh",
            "none",
            "label a namespace: kubectl label namespace NAME weir.dev/inject=enabled, and restart \
             its workloads",
        ),
        some => Line::pass("Pods in the mesh", some.to_string()),
    }];
    if !without.is_empty() {
        let mend = "they are older than the label: kubectl rollout restart their workloads";
        lines.push(Line::warning("Pods without a router", some(&without), mend));
    }
    if !ill.is_empty() {
        let mend = "see `kubectl logs POD -c weir-router`";
        lines.push(Line::failure("Routers that are not ready", some(&ill), mend));
    }
    if !old.is_empty() {
        let mend = "they run until their pods are restarted: kubectl rollout restart";
        lines.push(Line::warning("Routers of another version", some(&old), mend));
    }
    lines
}

/// Ports whose protocol nobody says: they are carried as bytes.
pub(super) fn ports(namespaces: &[Value], services: &[Value]) -> Option<Line> {
    const KNOWN: [&str; 25] = [
        "http",
        "http1",
        "http2",
        "h2c",
        "https",
        "grpc",
        "grpcs",
        "tcp",
        "tls",
        "redis",
        "mysql",
        "mongo",
        "mongodb",
        "postgres",
        "postgresql",
        "kafka",
        "amqp",
        "mqtt",
        "ldap",
        "smtp",
        "imap",
        "ssh",
        "nats",
        "ws",
        "wss",
    ];
    let meshed: Vec<&str> = namespaces
        .iter()
        .filter(|one| wish(one) == Some(true))
        .map(|one| text(one, &["metadata", "name"]))
        .collect();
    let mut unknown = Vec::new();
    for service in services {
        if !meshed.contains(&text(service, &["metadata", "namespace"])) {
            continue;
        }
        for port in items(service, &["spec", "ports"]) {
            let named = text(port, &["name"]).split('-').next().unwrap_or_default();
            let number = port["port"].as_u64().unwrap_or_default();
            let said = port["appProtocol"].is_string()
                || KNOWN.contains(&named)
                || [80, 8000, 8080].contains(&number)
                || port["protocol"] == "UDP";
            if !said {
                unknown.push(format!("{}:{number}", name(service)));
            }
        }
    }
    (!unknown.is_empty()).then(|| {
        let mend = "they are carried as bytes, without routes, retries and request metrics: set \
                    appProtocol (http, grpc, kubernetes.io/h2c, tcp)";
        Line::warning("Ports without a protocol", some(&unknown), mend)
    })
}

/// Namespaces in the mesh that lack the roots to trust.
pub(super) fn roots(namespaces: &[Value], bundles: &[Value]) -> Line {
    let have: Vec<&str> =
        bundles.iter().map(|bundle| text(bundle, &["metadata", "namespace"])).collect();
    let missing: Vec<String> = namespaces
        .iter()
        .filter(|one| wish(one) == Some(true))
        .map(name)
        .filter(|namespace| !have.contains(&namespace.as_str()))
        .collect();
    if missing.is_empty() {
        return Line::pass("Roots to trust", format!("in {} namespaces", have.len()));
    }
    let mend = "pods there wait for ConfigMap weir-trust-bundle: is the control plane running?";
    Line::failure("Roots to trust", format!("missing in {}", some(&missing)), mend)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    fn namespace(name: &str, inject: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"weir.dev/inject": inject}}})
    }

    fn pod(name: &str, router: Option<(&str, bool)>) -> Value {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": name},
            "spec": {}, "status": {"phase": "Running"},
        });
        if let Some((image, ready)) = router {
            pod["spec"]["initContainers"] = json!([{"name": ROUTER, "image": image}]);
            pod["status"]["initContainerStatuses"] = json!([{"name": ROUTER, "ready": ready}]);
        }
        pod
    }

    #[test]
    fn pods_are_told_by_what_is_wrong_with_them() {
        let all = [
            pod("good", Some(("r:2", true))),
            pod("old", Some(("r:1", true))),
            pod("ill", Some(("r:2", false))),
            pod("bare", None),
        ];
        let lines = pods(&[namespace("shop", "enabled")], &all, "r:2");
        let told: Vec<_> = lines.iter().map(|l| (l.outcome, l.found.as_str())).collect();
        assert_eq!(
            told,
            [
                (Outcome::Pass, "3"),
                (Outcome::Warning, "shop/bare"),
                (Outcome::Failure, "shop/ill"),
                (Outcome::Warning, "shop/old"),
            ]
        );
        let lines = pods(&[namespace("shop", "disabled")], &[pod("bare", None)], "r:2");
        assert_eq!(lines.len(), 1, "nobody wants it in the mesh");
    }

    #[test]
    fn a_port_says_its_protocol_somehow() {
        let service = |port: Value| json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": [port]}});
        let meshed = [namespace("shop", "enabled")];
        for port in [
            json!({"port": 80}),
            json!({"port": 9, "name": "grpc-api"}),
            json!({"port": 9, "appProtocol": "http"}),
            json!({"port": 53, "protocol": "UDP"}),
        ] {
            assert!(ports(&meshed, &[service(port)]).is_none());
        }
        let line = ports(&meshed, &[service(json!({"port": 9, "name": "main"}))]).unwrap();
        assert_eq!((line.outcome, line.found.as_str()), (Outcome::Warning, "shop/web:9"));
        assert!(ports(&[], &[service(json!({"port": 9}))]).is_none());
    }

    #[test]
    fn a_namespace_without_roots_is_a_failure() {
        let meshed = [namespace("shop", "enabled"), namespace("other", "disabled")];
        let bundle = json!({"metadata": {"namespace": "shop", "name": "weir-trust-bundle"}});
        assert_eq!(roots(&meshed, &[bundle]).outcome, Outcome::Pass);
        assert_eq!(roots(&meshed, &[]).found, "missing in shop");
    }
}
