//! The containers and volumes that a pod gets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_cni::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, ROUTER_UID, joined};

use super::config::{ImagePullPolicy, Redirect};
use super::quantity::Quantity;
use super::settings::{REDIRECT_ARGUMENTS, REDIRECT_MODE, Settings};
use super::{INJECTED, REDIRECT, ROUTER, array, object, workload};

const TOKEN_VOLUME: &str = "weir-token";
const TRUST_VOLUME: &str = "weir-trust";
const STATE_VOLUME: &str = "weir-state";

/// A user without rights, and not the router's, whose connections are redirected.
const NOBODY: u32 = 65_532;

/// Names of the volumes that a pod gets.
pub const VOLUMES: [&str; 3] = [TOKEN_VOLUME, TRUST_VOLUME, STATE_VOLUME];

/// ConfigMap of every meshed namespace with the roots to trust.
const TRUST_BUNDLE: &str = "weir-trust-bundle";

/// Audience of the token that proves who a pod is.
const AUDIENCE: &str = "weir";

/// How the mesh calls a pod.
pub struct Names {
    workload: String,
    version: String,
}

impl Names {
    /// From the pod, or from the workload that is going to make it.
    pub fn of(pod: &Value, workload: Option<&str>) -> Self {
        let name = workload.and_then(workload::label).unwrap_or_else(|| workload::name(pod));
        Self { workload: name, version: workload::version(pod) }
    }
}

/// Adds all that makes a pod part of the mesh. `probes`: see [`super::probes`].
pub fn add(pod: &mut Value, settings: &Settings<'_>, names: &Names, probes: &BTreeSet<String>) {
    if pod["metadata"].is_null() {
        pod["metadata"] = json!({});
    }
    for place in ["annotations", "labels"] {
        if let Some(map) = object(&mut pod["metadata"], place) {
            map.insert(INJECTED.into(), "true".into());
        }
    }
    let mut first = Vec::new();
    match settings.redirect {
        Redirect::Init => first.push(redirect_container(settings, "redirect")),
        // Where the plugin is missing, a pod must not go past the mesh unseen.
        Redirect::Cni => first.push(redirect_container(settings, "verify")),
        Redirect::None => {}
    }
    if let Some(annotations) = object(&mut pod["metadata"], "annotations") {
        annotations.insert(REDIRECT_MODE.into(), settings.redirect.as_str().into());
        if settings.redirect != Redirect::None {
            let arguments = settings.redirection().arguments().join(" ");
            annotations.insert(REDIRECT_ARGUMENTS.into(), arguments.into());
        }
    }
    first.push(router_container(settings, names, probes));
    if let Some(containers) = array(&mut pod["spec"], "initContainers") {
        // Before the application's own, which then find the mesh.
        containers.splice(0..0, first);
    }
    if let Some(volumes) = array(&mut pod["spec"], "volumes") {
        volumes.extend(self::volumes(settings));
    }
}

fn router_container(settings: &Settings<'_>, names: &Names, probes: &BTreeSet<String>) -> Value {
    let probe = |path: &str| json!({"path": path, "port": ADMIN_PORT});
    let mount = |name: &str, path: &str, read_only: bool| json!({"name": name, "mountPath": format!("/var/run/weir/{path}"), "readOnly": read_only});
    let container = json!({
        "name": ROUTER,
        "image": settings.router_image,
        "command": ["/weir-router"],
        "args": [
            "--outbound-listen", format!("127.0.0.1:{OUTBOUND_PORT}"),
            "--inbound-listen", format!("0.0.0.0:{INBOUND_PORT}"),
            "--admin-listen", format!("0.0.0.0:{ADMIN_PORT}"),
        ],
        // What makes it a sidecar: it starts before the application and outlives it.
        "restartPolicy": "Always",
        "env": environment(settings, names, probes),
        "ports": [
            {"name": "weir-inbound", "containerPort": INBOUND_PORT, "protocol": "TCP"},
            {"name": "weir-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        // The application waits for it.
        "startupProbe": {"httpGet": probe("/ready"), "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {"httpGet": probe("/ready"), "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {"httpGet": probe("/live"), "periodSeconds": 10, "timeoutSeconds": 3},
        "securityContext": {
            "runAsUser": ROUTER_UID,
            "runAsGroup": ROUTER_UID,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": resources(settings),
        "volumeMounts": [
            mount(TOKEN_VOLUME, "token", true),
            mount(TRUST_VOLUME, "trust", true),
            mount(STATE_VOLUME, "state", false),
        ],
    });
    with_pull_policy(container, settings.config.image_pull_policy)
}

/// The init container that redirects connections, or proves that they are.
fn redirect_container(settings: &Settings<'_>, verb: &str) -> Value {
    let mut arguments = vec![verb.to_owned()];
    arguments.extend(settings.redirection().arguments());
    let sets_rules = verb == "redirect";
    // Rules of the pod's network are the privilege of its root.
    let user = if sets_rules { 0 } else { NOBODY };
    let capabilities = if sets_rules {
        json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})
    } else {
        json!({"drop": ["ALL"]})
    };
    let container = json!({
        "name": REDIRECT,
        "image": settings.config.cni_image,
        "command": ["/weir-cni"],
        "args": arguments,
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": user,
            "runAsNonRoot": !sets_rules,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": capabilities,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": resources(settings),
    });
    with_pull_policy(container, settings.config.image_pull_policy)
}

fn with_pull_policy(mut container: Value, policy: Option<ImagePullPolicy>) -> Value {
    if let Some(policy) = policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    container
}

fn resources(settings: &Settings<'_>) -> Value {
    let amounts = |amounts: &BTreeMap<&str, Quantity>| -> Value {
        amounts.iter().map(|(name, quantity)| ((*name).to_owned(), json!(quantity))).collect()
    };
    json!({"requests": amounts(&settings.requests), "limits": amounts(&settings.limits)})
}

/// Later ones may name earlier ones: the kubelet puts their values in.
fn environment(settings: &Settings<'_>, names: &Names, probes: &BTreeSet<String>) -> Vec<Value> {
    let config = settings.config;
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let transparent = (settings.redirect != Redirect::None).to_string();
    let mut all = vec![
        field("WEIR_POD_NAME", "metadata.name"),
        field("WEIR_POD_IP", "status.podIP"),
        field("WEIR_NAMESPACE", "metadata.namespace"),
        value("WEIR_PLATFORM", "kubernetes"),
        value("WEIR_ROLE", "sidecar"),
        value("WEIR_SERVICE", &format!("{}.$(WEIR_NAMESPACE)", names.workload)),
        value("WEIR_VERSION", &names.version),
        value("WEIR_INSTANCE_ID", "$(WEIR_NAMESPACE)/$(WEIR_POD_NAME)"),
        value("WEIR_CONTROL_MESH", &config.control),
        value("WEIR_TRUST_BUNDLE", "/var/run/weir/trust/ca.pem"),
        value("WEIR_JOIN_TOKEN_FILE", "/var/run/weir/token/token"),
        value("WEIR_STATE_DIR", "/var/run/weir/state"),
        value("WEIR_TRUST_DOMAIN", &config.trust_domain),
        value("WEIR_TRANSPARENT", &transparent),
        value("WEIR_LOG", settings.log_level.as_str()),
        value("WEIR_ACCESS_LOG", settings.access_log.as_str()),
    ];
    let opaque = joined(&settings.opaque_ports);
    let probes = probes.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let endpoint = settings.trace_endpoint.as_deref().unwrap_or_default();
    let optional = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("WEIR_OPAQUE_PORTS", &opaque),
        ("WEIR_PROBES", &probes),
    ];
    all.extend(optional.iter().filter(|(_, v)| !v.is_empty()).map(|(name, v)| value(name, v)));
    all.extend(settings.environment.iter().map(|(name, v)| value(name, v)));
    all
}

fn volumes(settings: &Settings<'_>) -> [Value; 3] {
    let seconds = settings.config.token_expiration_seconds;
    let token = json!({"audience": AUDIENCE, "expirationSeconds": seconds, "path": "token"});
    [
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}),
        json!({"name": TRUST_VOLUME, "configMap": {"name": TRUST_BUNDLE}}),
        // A certificate's key is in it: it never comes to a disk.
        json!({"name": STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}),
    ]
}
