//! What of an object nobody reads is not kept: pods and nodes are many and large, and
//! change all the time in what does not matter here.

use serde_json::{Map, Value};

use super::objects::Kind;

/// Takes out what is not read.
pub fn strip(kind: Kind, object: &mut Value) {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations")
        && let Some(annotations) = annotations.as_object_mut()
    {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    match kind {
        Kind::Node => {
            keep(object, &["apiVersion", "kind", "metadata"]);
            keep(&mut object["metadata"], &["name", "uid", "labels", "resourceVersion"]);
        }
        Kind::Pod => pod(object),
        _ => {}
    }
}

fn pod(pod: &mut Value) {
    keep(pod, &["apiVersion", "kind", "metadata", "spec", "status"]);
    keep(
        &mut pod["metadata"],
        &[
            "name",
            "namespace",
            "uid",
            "labels",
            "annotations",
            "deletionTimestamp",
            "resourceVersion",
        ],
    );
    let spec = &mut pod["spec"];
    keep(spec, &["nodeName", "serviceAccountName", "hostNetwork", "containers", "initContainers"]);
    for containers in ["containers", "initContainers"] {
        let list = spec.get_mut(containers).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            keep(container, &["name", "ports", "restartPolicy"]);
        }
    }
    let status = &mut pod["status"];
    keep(status, &["phase", "podIP", "podIPs", "initContainerStatuses", "containerStatuses"]);
    for containers in ["initContainerStatuses", "containerStatuses"] {
        let list = status.get_mut(containers).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            keep(container, &["name", "ready", "started"]);
        }
    }
}

fn keep(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        let old: Map<String, Value> = std::mem::take(object);
        object.extend(old.into_iter().filter(|(name, _)| fields.contains(&name.as_str())));
    }
}
