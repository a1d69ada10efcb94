//! Whether the control plane and what it needs are well.

use serde_json::Value;

use super::Line;
use super::object::{at, condition, items, some, text};

/// Kinds of `weir.dev` that the chart installs.
const KINDS: [&str; 6] = [
    "TrafficSplit",
    "BackendTrafficPolicy",
    "RateLimitPolicy",
    "AuthorizationPolicy",
    "AuthenticationPolicy",
    "HTTPRouteFilter",
];

/// Our own kinds.
pub(super) fn crds(crds: &[Value]) -> Line {
    let what = "Weir's kinds";
    let ours = crds.iter().filter(|crd| text(crd, &["spec", "group"]) == "weir.dev");
    let known: Vec<&str> = ours.map(|crd| text(crd, &["spec", "names", "kind"])).collect();
    let missing: Vec<String> =
        KINDS.iter().filter(|kind| !known.contains(kind)).map(|kind| (*kind).to_owned()).collect();
    if missing.is_empty() {
        return Line::pass(what, format!("all {} installed", KINDS.len()));
    }
    let mend = "install or upgrade the chart with crds.install=true";
    Line::failure(what, format!("missing: {}", some(&missing)), mend)
}

/// A Deployment; `None` when there is none.
pub(super) fn deployment(what: &str, found: Option<&Value>, optional: bool) -> Line {
    let Some(found) = found else {
        let mend =
            "install the chart: helm install weir helm/weir -n weir-system --create-namespace";
        return match optional {
            true => Line::pass(what, "not installed"),
            false => Line::failure(what, "not there", mend),
        };
    };
    let number = |path: &[&str]| at(found, path).as_u64().unwrap_or_default();
    let (wanted, ready) = (number(&["spec", "replicas"]), number(&["status", "readyReplicas"]));
    let told = format!("{ready} of {wanted} replicas ready");
    let name = text(found, &["metadata", "name"]);
    match ready {
        0 if wanted > 0 => Line::failure(
            what,
            told,
            format!("see `kubectl -n weir-system describe deployment {name}` and its pods' logs"),
        ),
        _ if ready < wanted => {
            Line::warning(what, told, format!("wait, or see the pods of deployment {name}"))
        }
        _ => Line::pass(what, told),
    }
}

/// Who leads: the holder of the Lease, of these pods of the control plane.
pub(super) fn leader(lease: Option<&Value>, pods: &[Value]) -> Line {
    let holder = lease.map(|lease| text(lease, &["spec", "holderIdentity"])).unwrap_or_default();
    let mend = "routers go on with what they have, but nothing changes: see the control plane's \
                logs for why the Lease weir-control-plane is not taken";
    if holder.is_empty() {
        return Line::failure("Leader", "no replica leads", mend);
    }
    if !pods.iter().any(|pod| text(pod, &["metadata", "name"]) == holder) {
        // It has just gone, and the next one takes over in seconds; or nobody does.
        let told = format!("{holder} leads, but there is no such pod");
        return Line::failure("Leader", told, mend);
    }
    Line::pass("Leader", holder)
}

/// The webhook configuration; `None` when there is none.
pub(super) fn injector(found: Option<&Value>, ready: usize) -> Line {
    let what = "Injector";
    let Some(found) = found else {
        let mend = "upgrade the chart: MutatingWebhookConfiguration weir-injector is its own";
        return Line::failure(what, "its webhook is not registered", mend);
    };
    let bundles = items(found, &["webhooks"]);
    let trusted =
        bundles.iter().all(|webhook| !text(webhook, &["clientConfig", "caBundle"]).is_empty());
    if bundles.is_empty() || !trusted {
        let mend = "the leader fills in caBundle within seconds; see its log if it does not";
        return Line::failure(what, "the API server cannot trust it yet", mend);
    }
    if ready == 0 {
        let mend = "pods of the mesh's namespaces wait for it: see the pods of weir-control-plane";
        return Line::failure(what, "no replica serves it", mend);
    }
    Line::pass(what, format!("{ready} replicas serve it"))
}

/// The Gateways of our class.
pub(super) fn gateways(gateways: &[Value], classes: &[Value]) -> Vec<Line> {
    let ours: Vec<&str> = classes
        .iter()
        .filter(|class| text(class, &["spec", "controllerName"]) == "weir.dev/gateway")
        .map(|class| text(class, &["metadata", "name"]))
        .collect();
    let of_us = gateways.iter().filter(|g| ours.contains(&text(g, &["spec", "gatewayClassName"])));
    let line = |gateway: &Value| {
        let what = format!("Gateway {}", super::object::name(gateway));
        let conditions = items(gateway, &["status", "conditions"]);
        match condition(conditions, "Programmed") {
            Some(("True", _)) => Line::pass(what, "programmed"),
            Some((_, why)) => Line::failure(what, why, "mend its spec as the condition says"),
            None => Line::failure(what, "nobody looked at it", "is the control plane running?"),
        }
    };
    of_us.map(line).collect()
}

/// Objects whose status says that they are not used.
pub(super) fn refused(kind: &str, objects: &[Value]) -> Option<Line> {
    let mut bad = Vec::new();
    for object in objects {
        let parents = items(object, &["status", "parents"]).iter();
        let ancestors = items(object, &["status", "ancestors"]).iter();
        let lists = parents.chain(ancestors).map(|one| items(one, &["conditions"]));
        for conditions in lists.chain([items(object, &["status", "conditions"])]) {
            for wanted in ["Accepted", "ResolvedRefs"] {
                if let Some(("False", why)) = condition(conditions, wanted) {
                    bad.push(format!("{} ({why})", super::object::name(object)));
                }
            }
        }
    }
    (!bad.is_empty()).then(|| {
        let mend = "they do not do what they say: mend them as the reason says";
        Line::warning(format!("{kind}s"), some(&bad), mend)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    #[test]
    fn replicas_are_counted() {
        let of = |wanted: u64, ready: u64| {
            let found = json!({
                "metadata": {"name": "weir-control-plane"},
                "spec": {"replicas": wanted},
                "status": {"readyReplicas": ready},
            });
            deployment("Control plane", Some(&found), false).outcome
        };
        assert_eq!(
            [of(2, 0), of(2, 1), of(2, 2)],
            [Outcome::Failure, Outcome::Warning, Outcome::Pass]
        );
        assert_eq!(deployment("Gateway", None, true).outcome, Outcome::Pass);
        assert_eq!(deployment("Control plane", None, false).outcome, Outcome::Failure);
    }

    #[test]
    fn one_leads() {
        let pods = ["a", "b"].map(|name| json!({"metadata": {"name": name}}));
        let lease = |holder: &str| json!({"spec": {"holderIdentity": holder}});
        assert_eq!(leader(Some(&lease("a")), &pods).found, "a");
        assert_eq!(leader(Some(&json!({"spec": {}})), &pods).outcome, Outcome::Failure);
        assert_eq!(leader(Some(&lease("gone")), &pods).outcome, Outcome::Failure);
        assert_eq!(leader(None, &pods).outcome, Outcome::Failure);
    }

    #[test]
    fn an_injector_that_is_not_trusted_is_a_failure() {
        let of = |bundle: &str, ready| {
            let found = json!({"webhooks": [{"clientConfig": {"caBundle": bundle}}]});
            injector(Some(&found), ready).outcome
        };
        assert_eq!(
            [of("", 2), of("Y2E=", 0), of("Y2E=", 2)],
            [Outcome::Failure, Outcome::Failure, Outcome::Pass]
        );
        assert_eq!(injector(None, 2).outcome, Outcome::Failure);
    }

    #[test]
    fn what_is_refused_is_named_with_its_reason() {
        let route = json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "status": {"parents": [{"conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted"},
                {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound"},
            ]}]},
        });
        let line = refused("HTTPRoute", &[route]).unwrap();
        assert_eq!(
            (line.what.as_str(), line.found.as_str()),
            ("HTTPRoutes", "shop/web (BackendNotFound)")
        );
        assert!(refused("HTTPRoute", &[json!({"metadata": {"name": "a"}})]).is_none());
    }
}
