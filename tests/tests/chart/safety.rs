//! What an administrator asks before installing it.

use serde_json::{Value, json};

use super::{ALL, containers, helm_is_there, of, one, pods, render, texts};

/// The restricted Pod Security Standard; but for the CNI plugin's installer, which
/// writes into the node's directories.
#[test]
fn pods_are_restricted() {
    if !helm_is_there() {
        return;
    }
    for (name, pod) in pods(&render(ALL)) {
        let installer = name.contains("weir-cni");
        let mut contexts = vec![&pod["securityContext"]];
        for container in containers(pod) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            contexts.push(context);
        }
        let some = |field: &str, value: Value| contexts.iter().any(|c| c[field] == value);
        assert!(some("seccompProfile", json!({"type": "RuntimeDefault"})), "{name}");
        assert!(installer || some("runAsNonRoot", json!(true)), "{name}");
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(installer || volume["hostPath"].is_null(), "{name}");
        }
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[field].is_null(), "{name}: {field}");
        }
    }
}

/// Nobody who does not ask the API server has a token for it.
#[test]
fn only_those_who_ask_the_api_server_have_a_token() {
    if !helm_is_there() {
        return;
    }
    for (name, pod) in pods(&render(ALL)) {
        let asks = name.contains("weir-control-plane");
        assert!(asks || pod["automountServiceAccountToken"] == false, "{name}");
    }
}

#[test]
fn what_the_control_plane_may_is_named() {
    if !helm_is_there() {
        return;
    }
    let objects = render(ALL);
    for kind in ["ClusterRole", "Role"] {
        for role in of(&objects, kind) {
            for rule in role["rules"].as_array().unwrap() {
                for field in ["apiGroups", "resources", "verbs"] {
                    let words = texts(&rule[field]);
                    assert!(!words.is_empty() && !words.contains(&"*"), "{rule}");
                }
            }
        }
    }
    let role = one(&objects, "ClusterRole", "weir-control-plane");
    for rule in role["rules"].as_array().unwrap() {
        let (resources, verbs) = (texts(&rule["resources"]), texts(&rule["verbs"]));
        if resources.contains(&"secrets") {
            assert_eq!(verbs, ["get", "list", "watch"]);
        }
        let names = verbs.iter().any(|verb| ["list", "update", "patch", "delete"].contains(verb));
        if names && resources.contains(&"configmaps") {
            assert_eq!(rule["resourceNames"], json!(["weir-trust-bundle"]));
        }
        if resources.contains(&"mutatingwebhookconfigurations") {
            assert_eq!(rule["resourceNames"], json!(["weir-injector"]));
        }
        assert!(!(verbs.contains(&"patch") && resources.contains(&"pods")), "{rule}");
    }
}

#[test]
fn the_right_to_read_secrets_can_be_taken_away() {
    if !helm_is_there() {
        return;
    }
    let objects = render(&["controlPlane.readSecrets=false"]);
    let cluster = one(&objects, "ClusterRole", "weir-control-plane").to_string();
    assert!(!cluster.contains("secrets"), "{cluster}");
}

/// What the control plane writes into the chart's objects stays at an upgrade, because
/// the chart does not name it.
#[test]
fn an_upgrade_takes_nothing_away_that_the_control_plane_wrote() {
    if !helm_is_there() {
        return;
    }
    let objects = render(&[]);
    for name in ["weir-ca", "weir-api-token", "weir-webhook"] {
        let secret = one(&objects, "Secret", name);
        assert!(secret["data"].is_null() && secret["stringData"].is_null());
    }
    assert!(one(&objects, "ConfigMap", "weir-trust-bundle")["data"].is_null());
    assert!(one(&objects, "Lease", "weir-control-plane")["spec"].is_null());
    let webhooks = one(&objects, "MutatingWebhookConfiguration", "weir-injector");
    for webhook in webhooks["webhooks"].as_array().unwrap() {
        assert!(webhook["clientConfig"]["caBundle"].is_null());
    }
}

/// Who has no pods in the mesh does not depend on it.
#[test]
fn only_namespaces_of_the_mesh_wait_for_the_injector() {
    if !helm_is_there() {
        return;
    }
    for default in ["false", "true"] {
        let objects = render(&[&format!("injector.defaultInject={default}")]);
        let configuration = one(&objects, "MutatingWebhookConfiguration", "weir-injector");
        let [namespaces, labelled] = &configuration["webhooks"].as_array().unwrap()[..] else {
            panic!("{configuration}")
        };
        assert_eq!(namespaces["failurePolicy"], "Fail");
        assert_eq!(labelled["failurePolicy"], "Ignore");
        for webhook in [namespaces, labelled] {
            let outside = &webhook["namespaceSelector"]["matchExpressions"][0];
            assert_eq!(outside["operator"], "NotIn");
            assert_eq!(texts(&outside["values"]), ["kube-system", "weir-system"]);
            assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
        }
        let asked = namespaces["namespaceSelector"]["matchExpressions"][1]["operator"].as_str();
        assert_eq!(asked, Some(if default == "true" { "NotIn" } else { "In" }));
    }
}

#[test]
fn definitions_stay_unless_they_are_told_to_go() {
    if !helm_is_there() {
        return;
    }
    for (set, policy) in [("crds.keep=true", json!("keep")), ("crds.keep=false", Value::Null)] {
        let objects = render(&[set]);
        for crd in of(&objects, "CustomResourceDefinition") {
            assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], policy);
        }
    }
    assert!(of(&render(&["crds.install=false"]), "CustomResourceDefinition").is_empty());
}
