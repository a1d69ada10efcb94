//! What holds of every pod.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

prop_compose! {
    fn any_container()(
        name in "[a-z]{1,6}",
        port in 1_u16..15_000,
        kind in prop::sample::select(vec!["startupProbe", "readinessProbe", "livenessProbe"]),
        action in prop::sample::select(vec!["tcpSocket", "httpGet", "exec", "grpc"]),
        sidecar in any::<bool>(),
        extra in "[a-zA-Z]{0,8}",
    ) -> Value {
        let mut container = json!({"name": name, "image": extra, "ports": [{"containerPort": port}]});
        container[kind] = json!({action: {"port": port}, "periodSeconds": 3});
        if sidecar {
            container["restartPolicy"] = "Always".into();
        }
        container
    }
}

prop_compose! {
    fn any_pod()(
        containers in vec(any_container(), 1..4),
        init in prop::option::of(vec(any_container(), 0..3)),
        volumes in prop::option::of(vec("[a-z]{1,5}", 0..3)),
        annotations in prop::option::of(btree_map("[a-z]{1,5}/[a-z]{1,5}", "[ -~]{0,8}", 0..3)),
        labels in prop::option::of(btree_map("[a-z]{1,5}", "[a-zA-Z0-9._-]{0,70}", 0..3)),
        redirect in prop::option::of(prop::sample::select(vec!["init", "cni", "none"])),
        node in "[a-z]{0,5}",
    ) -> Value {
        let volumes = volumes.map(|names| names.into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>());
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "annotations": annotations, "labels": labels},
            "spec": {"containers": containers, "initContainers": init, "volumes": volumes, "nodeName": node},
        });
        if let Some(redirect) = redirect {
            object(&mut pod["metadata"], "annotations").unwrap().insert("weir.dev/redirect".into(), redirect.into());
        }
        pod
    }
}

/// The pod that a user wrote, from the one that was made of it.
fn without_ours(pod: &Value, original: &Value) -> Value {
    let mut pod = pod.clone();
    for place in ["annotations", "labels"] {
        let before = &original["metadata"][place];
        if let Some(map) = pod["metadata"][place].as_object_mut() {
            map.retain(|key, _| !key.starts_with(PREFIX) || before[key].is_string());
        }
    }
    for (list, ours) in
        [("initContainers", &[ROUTER, REDIRECT][..]), ("volumes", &sidecar::VOLUMES)]
    {
        if let Some(items) = pod["spec"][list].as_array_mut() {
            items.retain(|item| !ours.iter().any(|name| item["name"] == *name));
        }
    }
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
                let path = container[kind]["httpGet"]["path"].as_str().unwrap_or_default();
                if let Some(port) = path.strip_prefix("/probe/tcp/") {
                    let port: u16 = port.parse().unwrap();
                    let probe = container.get_mut(kind).unwrap().as_object_mut().unwrap();
                    probe.remove("httpGet");
                    probe.insert("tcpSocket".into(), json!({"port": port}));
                } else if container[kind].is_null() {
                    // Made by looking.
                    container.as_object_mut().unwrap().remove(kind);
                }
            }
        }
    }
    pod
}

/// What Kubernetes makes no difference between.
fn without_empty(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for (part, keys) in
        [("metadata", ["annotations", "labels"]), ("spec", ["initContainers", "volumes"])]
    {
        let map = pod[part].as_object_mut().unwrap();
        for key in keys {
            if map.get(key).is_some_and(|v| v.is_null() || *v == json!({}) || *v == json!([])) {
                map.remove(key);
            }
        }
    }
    pod
}

proptest! {
    #[test]
    fn injected_once_is_injected(pod in any_pod()) {
        let once = injected(&InjectConfig::default(), &pod);
        prop_assert_eq!(&apply(&once.patch, &pod), &once.pod);
        let again = inject(&InjectConfig::default(), &shop(), &once.pod);
        prop_assert_eq!(again, Ok(Outcome::Unchanged(Reason::HasRouter)));
    }

    #[test]
    fn nothing_of_the_user_is_lost(pod in any_pod()) {
        let mut injected = injected_pod(&pod);
        injected = without_ours(&injected, &pod);
        prop_assert_eq!(without_empty(&injected), without_empty(&pod));
    }
}
