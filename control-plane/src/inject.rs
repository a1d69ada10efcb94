//! Puts a router beside an application: a pod in, the same pod with a sidecar out.
//!
//! Pure: JSON as the Kubernetes API has it, no client. The admission webhook
//! ([`Review`]) and `weir inject` ([`inject_object`]) both go by [`inject`].

mod config;
mod objects;
mod probes;
mod quantity;
mod review;
mod settings;
mod sidecar;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};
use weir_cni::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, ROUTER_UID};
use weir_mesh::model::{Invalid, Violations};

pub use config::{
    AccessLog, Amounts, ImagePullPolicy, InjectConfig, LogLevel, Redirect, Resources, Switch,
};
pub use objects::{Injection, Objects, inject_object};
pub use quantity::Quantity;
pub use review::{Review, ReviewError};
pub use weir_cni::{Cidr, PortRange, Redirection};

use settings::Settings;

/// The prefix of our annotations and labels.
const PREFIX: &str = "weir.dev/";

/// Whether to inject: of a pod (annotation, label) or of a namespace (label).
pub const INJECT: &str = "weir.dev/inject";

/// Annotation and label that injected pods have, with the value `true`.
pub const INJECTED: &str = "weir.dev/injected";

/// Container of the router.
pub const ROUTER: &str = "weir-router";

/// Init container that sets up redirection.
pub const REDIRECT: &str = "weir-redirect";

/// Annotation of what stands for a static pod in the API.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Namespaces of Kubernetes itself.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Why a pod that was asked for cannot be injected: paths of fields and annotations,
/// and what each should be.
pub type InjectError = Invalid;

/// What is known of a pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name; empty when it is not known yet.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It stays as it is.
    Unchanged(Reason),
    /// It has a router now.
    Injected(Box<Injected>),
}

/// A pod with its router.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The whole pod.
    pub pod: Value,
    /// The same as a JSON patch (RFC 6902) to the pod that it was.
    pub patch: Value,
    /// What a user should know, a sentence each.
    pub warnings: Vec<String>,
}

/// Why a pod stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nobody asked for it.
    NotAsked,
    /// The pod or its namespace says no.
    Disabled,
    /// It has a router.
    HasRouter,
    /// It belongs to the control plane.
    ControlPlane,
    /// It belongs to Kubernetes.
    SystemNamespace,
    /// It shares the node's network: redirection would be the node's.
    HostNetwork,
    /// Its containers share processes: they could reach into the router.
    SharedProcesses,
    /// It runs on Windows.
    Windows,
    /// A kubelet runs it from a file; what the API has is only its mirror.
    Static,
    /// The namespace's label says neither yes nor no.
    NamespaceLabel(String),
}

impl Reason {
    /// Whether somebody who asked for a router should be told.
    #[must_use]
    pub fn surprises(&self) -> bool {
        match self {
            Self::NotAsked | Self::Disabled | Self::HasRouter | Self::ControlPlane => false,
            Self::SystemNamespace
            | Self::HostNetwork
            | Self::SharedProcesses
            | Self::Windows
            | Self::Static
            | Self::NamespaceLabel(_) => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => "neither the pod nor its namespace has weir.dev/inject: enabled",
            Self::Disabled => "weir.dev/inject: disabled",
            Self::HasRouter => "it has a router",
            Self::ControlPlane => "it is in the control plane's namespace",
            Self::SystemNamespace => "pods of Kubernetes itself get no router",
            Self::HostNetwork => {
                "hostNetwork: its connections are the node's, which cannot be redirected"
            }
            Self::SharedProcesses => {
                "shareProcessNamespace: its containers could read the router's key"
            }
            Self::Windows => "its os is windows; routers run on Linux",
            Self::Static => "a kubelet runs it from a file, which the API cannot change",
            Self::NamespaceLabel(text) => {
                return write!(
                    f,
                    "its namespace's label weir.dev/inject is {text:?}, not enabled or disabled"
                );
            }
        })
    }
}

/// Whether connections into an injected pod at this port come to its router. Others
/// come to the application as they are.
#[must_use]
pub fn receives(pod: &Value, port: u16) -> bool {
    let annotation = |name: &str| pod["metadata"]["annotations"][name].as_str();
    if annotation(settings::REDIRECT_MODE) == Some(Redirect::None.as_str()) {
        return false;
    }
    let arguments = annotation(settings::REDIRECT_ARGUMENTS).unwrap_or_default();
    // Arguments that nobody can follow redirect nothing: such a pod does not start.
    Redirection::parse(arguments.split_whitespace().map(str::to_owned))
        .is_ok_and(|redirection| redirection.receives(port))
}

/// Puts a router beside the application of `pod`, where that is asked for.
///
/// # Errors
/// Every annotation and field that cannot be followed, by path.
pub fn inject(
    config: &InjectConfig,
    namespace: &NamespaceFacts,
    pod: &Value,
) -> Result<Outcome, InjectError> {
    inject_as(config, namespace, pod, None)
}

/// The same, of a pod that a workload of this name is going to make.
fn inject_as(
    config: &InjectConfig,
    namespace: &NamespaceFacts,
    pod: &Value,
    workload: Option<&str>,
) -> Result<Outcome, InjectError> {
    check_shape(pod)?;
    if let Some(reason) = reason_to_leave(config, namespace, pod)? {
        return Ok(Outcome::Unchanged(reason));
    }
    let mut bad = Violations::new();
    let mut warnings = Vec::new();
    let settings = Settings::read(config, pod, &mut bad, &mut warnings);
    check_conflicts(pod, &mut bad);
    let settings = bad.finish(settings)?;
    let mut new = pod.clone();
    let probes = probes::rewrite(&mut new, &settings);
    sidecar::add(&mut new, &settings, &sidecar::Names::of(pod, workload), &probes);
    let patch = patch(pod, &new);
    Ok(Outcome::Injected(Box::new(Injected { pod: new, patch, warnings })))
}

/// The first that holds. Who asked comes first: nobody is told about pods that
/// nobody asked for.
fn reason_to_leave(
    config: &InjectConfig,
    namespace: &NamespaceFacts,
    pod: &Value,
) -> Result<Option<Reason>, InjectError> {
    let spec = &pod["spec"];
    let is = |field: &str| spec[field] == true;
    let own = own_wish(pod)?;
    let wanted = match (own, namespace.labels.get(INJECT).map(|text| (text, text.parse()))) {
        (Some(switch), _) => switch,
        (None, Some((_, Ok(switch)))) => switch,
        (None, Some((text, Err(_)))) => return Ok(Some(Reason::NamespaceLabel(text.clone()))),
        (None, None) => match config.inject {
            Switch::Enabled => Switch::Enabled,
            Switch::Disabled => return Ok(Some(Reason::NotAsked)),
        },
    };
    let reasons = [
        (wanted == Switch::Disabled, Reason::Disabled),
        (namespace.name == config.control_namespace, Reason::ControlPlane),
        (has_router(pod), Reason::HasRouter),
        (SYSTEM_NAMESPACES.contains(&namespace.name.as_str()), Reason::SystemNamespace),
        (is("hostNetwork"), Reason::HostNetwork),
        (is("shareProcessNamespace"), Reason::SharedProcesses),
        (spec["os"]["name"] == "windows", Reason::Windows),
        (pod["metadata"]["annotations"][MIRROR].is_string(), Reason::Static),
    ];
    Ok(reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason))
}

/// What the pod says itself: its annotation, else its label.
fn own_wish(pod: &Value) -> Result<Option<Switch>, InjectError> {
    for place in ["annotations", "labels"] {
        if let Some(text) = pod["metadata"][place][INJECT].as_str() {
            let switch = text.parse();
            return switch
                .map(Some)
                .map_err(|why: String| Invalid::one(format!("metadata.{place}[{INJECT}]"), why));
        }
    }
    Ok(None)
}

fn has_router(pod: &Value) -> bool {
    containers(pod).any(|(_, container)| container["name"] == ROUTER)
}

/// All containers, each with its path.
fn containers(pod: &Value) -> impl Iterator<Item = (String, &Value)> {
    ["initContainers", "containers"].into_iter().flat_map(|list| {
        let all = pod["spec"][list].as_array().into_iter().flatten().enumerate();
        all.map(move |(i, container)| (format!("spec.{list}[{i}]"), container))
    })
}

/// That what is going to be added to is what it should be.
fn check_shape(pod: &Value) -> Result<(), InjectError> {
    let mut bad = Violations::new();
    for (path, pointer, optional) in [
        ("metadata", "/metadata", true),
        ("metadata.annotations", "/metadata/annotations", true),
        ("metadata.labels", "/metadata/labels", true),
        ("spec", "/spec", false),
    ] {
        match pod.pointer(pointer) {
            Some(Value::Object(_)) => {}
            None | Some(Value::Null) if optional => {}
            _ => bad.add(path, "is no mapping"),
        }
    }
    for list in ["containers", "initContainers", "volumes"] {
        let path = format!("spec.{list}");
        match &pod["spec"][list] {
            Value::Array(items) if items.iter().all(Value::is_object) => {}
            Value::Null if list != "containers" => {}
            _ => bad.add(path, "is no list of mappings"),
        }
    }
    bad.finish(Some(()))
}

/// What of the pod would get into the router's way.
fn check_conflicts(pod: &Value, bad: &mut Violations) {
    let pods_user = pod["spec"]["securityContext"]["runAsUser"].as_u64();
    for (path, container) in containers(pod) {
        if container["name"] == REDIRECT {
            bad.add(
                format!("{path}.name"),
                format!("{REDIRECT} is the name of a container of the router"),
            );
        }
        let user = container["securityContext"]["runAsUser"].as_u64().or(pods_user);
        if user == Some(ROUTER_UID.into()) {
            bad.add(
                format!("{path}.securityContext.runAsUser"),
                format!("{ROUTER_UID} is the router's, whose connections are not redirected; take another"),
            );
        }
        for (i, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
            let number = port["containerPort"].as_u64();
            let own = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT];
            if port["protocol"] != "UDP" && own.iter().any(|own| number == Some((*own).into())) {
                bad.add(
                    format!("{path}.ports[{i}].containerPort"),
                    "15001, 15006 and 15020 are the router's; take another",
                );
            }
        }
    }
    for (i, volume) in pod["spec"]["volumes"].as_array().into_iter().flatten().enumerate() {
        if sidecar::VOLUMES.iter().any(|name| volume["name"] == *name) {
            bad.add(format!("spec.volumes[{i}].name"), "is the name of a volume of the router");
        }
    }
}

/// RFC 6902: what was added or changed, one operation for each field of `metadata`
/// and `spec`.
fn patch(old: &Value, new: &Value) -> Value {
    let mut operations = Vec::new();
    for part in ["metadata", "spec"] {
        let Some(after) = new[part].as_object() else { continue };
        let Some(before) = old[part].as_object() else {
            operations.push(json!({"op": "add", "path": format!("/{part}"), "value": after}));
            continue;
        };
        for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(*value)) {
            let op = if before.contains_key(key) { "replace" } else { "add" };
            // None of the names that we change has a / or ~ in it.
            operations.push(json!({"op": op, "path": format!("/{part}/{key}"), "value": value}));
        }
    }
    Value::Array(operations)
}

/// A mapping at this place, made when there is none.
fn object<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = value.as_object_mut()?.entry(key).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// A list at this place, made when there is none.
fn array<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    let entry = value.as_object_mut()?.entry(key).or_insert_with(|| json!([]));
    if entry.is_null() {
        *entry = json!([]);
    }
    entry.as_array_mut()
}
