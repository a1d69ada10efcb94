//! `weir inject` as a user meets it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const OBJECTS: &str = r#"# The shop.
apiVersion: v1
kind: Namespace
metadata: {name: quiet, labels: {weir.dev/inject: disabled}}
---
apiVersion: v1
kind: Service # stays as it is
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata: {annotations: {"weir.dev/skip-outbound-ports": "25", odd: "yes"}}
    spec:
      containers:
        - name: web
          args: ["0644", "on", "1e3"]
          livenessProbe: {tcpSocket: {port: 8080}}
      volumes: [{name: key, secret: {secretName: key, defaultMode: 0640}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: quiet}
spec: {template: {spec: {containers: [{name: a}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec: {hostNetwork: true, containers: [{name: a}]}
"#;

fn inject(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("inject").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn injected(arguments: &[&str], input: &str) -> (String, String) {
    let output = inject(arguments, input);
    assert!(output.status.success(), "{output:?}");
    (text(&output.stdout), text(&output.stderr))
}

fn documents(yaml: &str) -> Vec<Value> {
    yaml.split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

#[test]
fn workloads_get_a_router_and_all_else_stays() {
    let (yaml, told) = injected(&[], OBJECTS);
    let parts: Vec<_> = yaml.split("---\n").collect();
    assert_eq!(parts.len(), 5, "{yaml}");
    let before: Vec<_> = OBJECTS.split("---\n").collect();
    for same in [0, 1, 3, 4] {
        assert_eq!(parts[same], before[same]);
    }
    let deployment = &documents(&yaml)[2];
    assert_eq!(deployment["spec"]["replicas"], 2);
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"]["weir.dev/injected"], "true");
    assert_eq!(template["metadata"]["annotations"]["odd"], "yes");
    let spec = &template["spec"];
    assert_eq!(spec["initContainers"][1]["name"], "weir-router");
    assert_eq!(spec["containers"][0]["args"], serde_json::json!(["0644", "on", "1e3"]));
    // As Kubernetes reads 0640.
    assert_eq!(spec["volumes"][0]["secret"]["defaultMode"], 0o640);
    let lines: Vec<Vec<&str>> = told.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KIND", "NAMESPACE", "NAME", "ROUTER"]);
    assert_eq!(lines[1], ["Deployment", "-", "web", "yes"]);
    assert_eq!(lines[2][..4], ["Job", "quiet", "once", "no:"]);
    assert_eq!(lines[3][..5], ["Pod", "-", "host", "no:", "hostNetwork:"]);

    // What has a router gets no second one.
    let (again, told) = injected(&["-f", "-"], &yaml);
    assert_eq!(again, yaml);
    assert!(told.contains("no: it has a router"), "{told}");
}

#[test]
fn defaults_come_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("config.yaml"), "routerImage: example.com/router:7\nredirect: none\n").unwrap();
    fs::write(path("web.yaml"), OBJECTS).unwrap();
    let files = ["-f", &path("web.yaml"), "--config", &path("config.yaml")];
    let (yaml, _) = injected(&files, "");
    let containers = &documents(&yaml)[2]["spec"]["template"]["spec"]["initContainers"];
    assert_eq!(containers.as_array().unwrap().len(), 1);
    assert_eq!(containers[0]["image"], "example.com/router:7");

    let (_, told) = injected(&["--namespace", "quiet"], OBJECTS);
    assert!(!told.contains("yes"), "{told}");

    fs::write(path("config.yaml"), "routerimage: x\n").unwrap();
    let output = inject(&files, "");
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("routerimage"), "{error}");
}

#[test]
fn mistakes_are_told_together_and_nothing_is_printed() {
    let port = "port: 8080}}\n          ports: [{containerPort: 15006}]";
    let wrong = OBJECTS.replace("\"25\"", "http").replace("port: 8080}}", port);
    let output = inject(&[], &wrong);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = text(&output.stderr);
    for part in [
        "standard input: Deployment web: ",
        "spec.template.metadata.annotations[weir.dev/skip-outbound-ports]: \"http\" is no port",
        "spec.template.spec.containers[0].ports[0].containerPort: ",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let output = inject(&[], "a: [\n");
    assert!(text(&output.stderr).contains("standard input:"), "{output:?}");
    let (yaml, told) = injected(&[], "kind: Service\n");
    assert_eq!(yaml, "kind: Service\n");
    assert!(told.contains("nothing is injected"), "{told}");
}
