//! The Helm chart without a cluster: what is generated, what is rendered, and what
//! it says about values that are wrong.

mod generated;
mod refused;
mod rendered;
mod safety;

use std::process::Command;

use serde_json::Value;
use weir_tests::{Output, chart};

/// Options that turn everything on.
const ALL: &[&str] = &[
    "services.enabled=true",
    "services.routes.enabled=true",
    "controlPlane.replicas=3",
    "cni.enabled=true",
    "injector.redirect=cni",
    "injector.certManager.enabled=true",
    "injector.defaultInject=true",
    "gateway.autoscaling.enabled=true",
    "gateway.service.type=LoadBalancer",
    "egress=Deny",
    "tracing.sampling=0.5",
    "tracing.jaeger.install=true",
    "networkPolicy.enabled=true",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.podMonitor.enabled=true",
    "monitoring.dashboard.enabled=true",
];

/// Whether there is Helm to test with.
fn helm_is_there() -> bool {
    weir_tests::installed("helm")
}

fn helm(verb: &[&str], set: &[&str]) -> Output {
    let mut command = Command::new("helm");
    command.current_dir(chart::root()).args(verb);
    for set in set {
        command.args(["--set", set]);
    }
    // No cluster is asked, whatever the environment says.
    Output::of(command.env("KUBECONFIG", "/dev/null"))
}

/// What the chart comes to on a cluster that has the Gateway API.
#[track_caller]
fn render(set: &[&str]) -> Vec<Value> {
    let verb = [
        "template",
        "weir",
        "helm/weir",
        "--namespace",
        "weir-system",
        "--api-versions",
        "gateway.networking.k8s.io/v1/GatewayClass",
    ];
    let text = helm(&verb, set).ok();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// The objects of a kind.
fn of<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// One object.
#[track_caller]
fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<_> =
        of(objects, kind).into_iter().filter(|object| object["metadata"]["name"] == name).collect();
    let [one] = found[..] else { panic!("{} of {kind} {name}", found.len()) };
    one
}

/// Every pod template, with the name of what it is in.
fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let pod = |object: &'_ Value| match object["kind"].as_str() {
        Some("Pod") => true,
        _ => object["spec"]["template"]["spec"].is_object(),
    };
    objects
        .iter()
        .filter(|object| pod(object))
        .map(|object| match object["kind"].as_str() {
            Some("Pod") => (name(object), &object["spec"]),
            _ => (name(object), &object["spec"]["template"]["spec"]),
        })
        .collect()
}

/// All containers of a pod.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|l| pod[l].as_array()).flatten()
}

/// A list of texts.
fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
