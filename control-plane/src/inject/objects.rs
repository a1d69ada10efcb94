//! Pods within workloads, as `weir inject` finds them in files.

use serde_json::Value;
use weir_mesh::model::{Invalid, Violation};

use super::{INJECT, InjectConfig, InjectError, NamespaceFacts, Outcome, Switch, inject_as};

/// What became of one pod or template.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// Of the object, such as `Deployment`.
    pub kind: String,
    /// Its namespace; empty when it is not said.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What happened, or what is wrong with it.
    pub outcome: Result<Outcome, InjectError>,
}

/// An object with what became of all pods in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    /// The object; as it was, when it holds no pod.
    pub object: Value,
    /// Each pod or template in it, in order.
    pub injections: Vec<Injection>,
}

/// Injects a pod, the template of a workload, or all of a list. Whoever calls it for
/// an object asks for it: only what says `disabled` is left out. `namespace` tells the
/// facts of a namespace by its name, which is empty when the object does not say it.
#[must_use]
pub fn inject_object(
    config: &InjectConfig,
    namespace: &dyn Fn(&str) -> NamespaceFacts,
    object: &Value,
) -> Objects {
    let kind = object["kind"].as_str().unwrap_or_default();
    if let Some(items) = object["items"].as_array().filter(|_| kind.ends_with("List")) {
        let of_list = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
        return inject_list(config, namespace, object, of_list, items);
    }
    let Some(place) = template(kind) else {
        return Objects { object: object.clone(), injections: Vec::new() };
    };
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let mut facts = namespace(&text("namespace"));
    facts.labels.entry(INJECT.into()).or_insert_with(|| Switch::Enabled.as_str().into());
    let name = if text("name").is_empty() { text("generateName") } else { text("name") };
    let workload = (!place.is_empty()).then_some(name.as_str());
    let mut new = object.clone();
    let outcome = match new.pointer_mut(place) {
        Some(pod) => inject_as(config, &facts, pod, workload)
            .inspect(|outcome| {
                if let Outcome::Injected(injected) = outcome {
                    *pod = injected.pod.clone();
                }
            })
            .map_err(|invalid| below(invalid, &place.replace('/', ".")[place.len().min(1)..])),
        None => Err(Invalid::one(&place.replace('/', ".")[1..], "is missing")),
    };
    let namespace = text("namespace");
    let injection = Injection { kind: kind.to_owned(), namespace, name, outcome };
    Objects { object: new, injections: vec![injection] }
}

fn inject_list(
    config: &InjectConfig,
    namespace: &dyn Fn(&str) -> NamespaceFacts,
    list: &Value,
    kind: Option<&str>,
    items: &[Value],
) -> Objects {
    let mut injections = Vec::new();
    let new = items.iter().map(|item| {
        let mut item = item.clone();
        // Items of a PodList say no kind.
        let said = item["kind"].is_string();
        if let (false, Some(kind), Some(map)) = (said, kind, item.as_object_mut()) {
            map.insert("kind".into(), kind.into());
        }
        let mut done = inject_object(config, namespace, &item);
        injections.append(&mut done.injections);
        if let (false, Some(map)) = (said, done.object.as_object_mut()) {
            map.remove("kind");
        }
        done.object
    });
    let new: Vec<Value> = new.collect();
    let mut list = list.clone();
    list["items"] = new.into();
    Objects { object: list, injections }
}

/// Where an object of this kind has a pod.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

fn below(invalid: Invalid, path: &str) -> Invalid {
    let dot = if path.is_empty() { "" } else { "." };
    let moved = |violation: Violation| Violation {
        field: format!("{path}{dot}{}", violation.field),
        ..violation
    };
    Invalid(invalid.0.into_iter().map(moved).collect())
}
