//! What must hold before Weir is installed.

use serde_json::Value;

use super::Line;
use super::object::{at, condition, items, name, some, text};

/// Native sidecars (`restartPolicy: Always` of init containers) are on by default
/// from here.
const OLDEST: (u32, u32) = (1, 29);
/// Of the Gateway API: what Weir was tested with.
const GATEWAY_API: &str = "v1.6";

/// What `GET /version` says.
pub(super) fn version(version: &Value) -> Line {
    let number = |field: &str| -> u32 {
        let digits = text(version, &[field]).chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().unwrap_or_default()
    };
    let found = (number("major"), number("minor"));
    let what = "Kubernetes version";
    let told = text(version, &["gitVersion"]).to_owned();
    if found >= OLDEST {
        Line::pass(what, told)
    } else {
        let mend = "Weir's routers are native sidecars: upgrade the cluster to 1.29 or newer";
        Line::failure(what, told, mend)
    }
}

/// Whether nodes can run it.
pub(super) fn nodes(nodes: &[Value]) -> Vec<Line> {
    let ready = |node: &&Value| {
        let conditions = items(node, &["status", "conditions"]);
        condition(conditions, "Ready").is_some_and(|(status, _)| status == "True")
    };
    let count = nodes.iter().filter(ready).count();
    let told = format!("{count} of {} ready", nodes.len());
    let mut lines = vec![match count {
        0 => Line::failure("Nodes", told, "no pod can run: see `kubectl get nodes`"),
        _ => Line::pass("Nodes", told),
    }];
    let other: Vec<String> = nodes
        .iter()
        .filter(|node| text(node, &["status", "nodeInfo", "operatingSystem"]) != "linux")
        .map(name)
        .collect();
    if !other.is_empty() {
        let mend = "Weir's routers run on Linux only: keep meshed pods off them by nodeSelector";
        lines.push(Line::warning("Operating system", some(&other), mend));
    }
    lines
}

/// Whether the Gateway API's kinds are there; `crds` are all of the cluster's.
pub(super) fn gateway_api(crds: &[Value]) -> Line {
    let what = "Gateway API";
    let ours = |crd: &&Value| text(crd, &["spec", "group"]) == "gateway.networking.k8s.io";
    let Some(route) =
        crds.iter().filter(ours).find(|crd| text(crd, &["spec", "names", "kind"]) == "HTTPRoute")
    else {
        let mend = "install its CRDs (standard channel) to use HTTPRoute, GRPCRoute and Gateway; \
                    shifts by TrafficSplit work without them";
        return Line::warning(what, "its kinds are not installed", mend);
    };
    let version = text(
        at(route, &["metadata", "annotations"]),
        &["gateway.networking.k8s.io/bundle-version"],
    );
    let serves_v1 = items(route, &["spec", "versions"])
        .iter()
        .any(|version| version["name"] == "v1" && version["served"] == true);
    if !serves_v1 {
        let mend = "Weir reads version v1: install Gateway API v1.0 or newer";
        return Line::failure(what, format!("{version} serves no v1 of HTTPRoute"), mend);
    }
    Line::pass(what, format!("{version} (Weir is tested with {GATEWAY_API})"))
}

/// Whether another mesh adds its own sidecars.
pub(super) fn other_meshes(webhooks: &[Value]) -> Option<Line> {
    let of_others: Vec<String> = webhooks
        .iter()
        .map(name)
        .filter(|name| ["istio", "linkerd", "kuma", "consul"].iter().any(|m| name.contains(m)))
        .collect();
    (!of_others.is_empty()).then(|| {
        let mend = "a pod must be in one mesh only: label a namespace for one of them";
        Line::warning("Other meshes", some(&of_others), mend)
    })
}

/// What the user may do: (verb, resource, allowed).
pub(super) fn rights(rights: &[(String, String, bool)]) -> Line {
    let what = "Rights to install";
    let missing: Vec<String> = rights
        .iter()
        .filter(|(.., allowed)| !allowed)
        .map(|(verb, resource, _)| format!("{verb} {resource}"))
        .collect();
    if missing.is_empty() {
        return Line::pass(what, "all that the chart needs");
    }
    let mend = "have someone with these rights (cluster-admin) install the chart";
    Line::failure(what, format!("missing: {}", some(&missing)), mend)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    #[test]
    fn an_old_cluster_cannot_run_native_sidecars() {
        let of = |minor: &str| {
            let sent = json!({"major": "1", "minor": minor, "gitVersion": format!("v1.{minor}")});
            version(&sent).outcome
        };
        assert_eq!(
            [of("28"), of("29+"), of("34")],
            [Outcome::Failure, Outcome::Pass, Outcome::Pass]
        );
    }

    #[test]
    fn nodes_must_be_ready_and_linux() {
        let node = |name: &str, ready: &str, os: &str| {
            json!({
                "metadata": {"name": name},
                "status": {
                    "conditions": [{"type": "Ready", "status": ready}],
                    "nodeInfo": {"operatingSystem": os},
                },
            })
        };
        let lines = nodes(&[node("a", "True", "linux"), node("b", "False", "windows")]);
        let told: Vec<_> = lines.iter().map(|line| (line.outcome, line.found.as_str())).collect();
        assert_eq!(told, [(Outcome::Pass, "1 of 2 ready"), (Outcome::Warning, "b")]);
        assert_eq!(nodes(&[])[0].outcome, Outcome::Failure);
    }

    #[test]
    fn the_gateway_api_is_wanted_not_needed() {
        assert_eq!(gateway_api(&[]).outcome, Outcome::Warning);
        let crd = |version: &str| {
            json!({
                "metadata": {"annotations": {"gateway.networking.k8s.io/bundle-version": "v1.6.1"}},
                "spec": {
                    "group": "gateway.networking.k8s.io",
                    "names": {"kind": "HTTPRoute"},
                    "versions": [{"name": version, "served": true}],
                },
            })
        };
        assert_eq!(gateway_api(&[crd("v1")]).outcome, Outcome::Pass);
        assert_eq!(gateway_api(&[crd("v1beta1")]).outcome, Outcome::Failure);
    }

    #[test]
    fn a_right_that_is_missing_is_named() {
        let right = |resource: &str, allowed| ("create".to_owned(), resource.to_owned(), allowed);
        let line = rights(&[right("namespaces", true), right("clusterroles", false)]);
        assert_eq!(line.outcome, Outcome::Failure);
        assert_eq!(line.found, "missing: create clusterroles");
    }
}
