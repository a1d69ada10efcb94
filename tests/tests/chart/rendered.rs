//! What the chart comes to.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_control_plane::inject::{self, InjectConfig};

use super::{ALL, containers, helm, helm_is_there, of, one, pods, render, texts};

#[test]
fn lint_is_content_with_the_defaults_and_with_everything_turned_on() {
    if !helm_is_there() {
        return;
    }
    helm(&["lint", "--strict", "helm/weir"], &[]).ok();
    helm(&["lint", "--strict", "helm/weir"], ALL).ok();
}

#[test]
fn the_defaults_are_a_control_plane_a_gateway_and_an_injector() {
    if !helm_is_there() {
        return;
    }
    let objects = render(&[]);
    let names = |kind| -> Vec<_> {
        let mut names: Vec<_> =
            of(&objects, kind).iter().filter_map(|o| o["metadata"]["name"].as_str()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names("Deployment"), ["echo-v1", "echo-v2", "weir-control-plane", "weir-gateway"]);
    assert_eq!(names("Service"), ["echo", "weir-control-plane", "weir-gateway", "weir-injector"]);
    assert_eq!(names("GatewayClass"), ["weir"]);
    assert_eq!(names("MutatingWebhookConfiguration"), ["weir-injector"]);
    assert_eq!(names("PodDisruptionBudget"), ["weir-control-plane", "weir-gateway"]);
    assert_eq!(names("CustomResourceDefinition").len(), 7);
    for absent in ["DaemonSet", "NetworkPolicy", "HorizontalPodAutoscaler", "PodMonitor", "Gateway"]
    {
        assert_eq!(names(absent), Vec::<&str>::new());
    }
    // What is for the tests is a hook, or it would be installed.
    for object in objects.iter().filter(|o| o["metadata"]["namespace"] == "weir-test") {
        assert_eq!(object["metadata"]["annotations"]["helm.sh/hook"], "test", "{object}");
    }
}

#[test]
fn without_the_gateway_api_there_is_no_gateway_class() {
    if !helm_is_there() {
        return;
    }
    let text = helm(&["template", "weir", "helm/weir", "--namespace", "weir-system"], &[]).ok();
    assert!(!text.contains("kind: GatewayClass"));
}

#[test]
fn every_option_has_its_object() {
    if !helm_is_there() {
        return;
    }
    let objects = render(ALL);
    let kinds: BTreeSet<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    for kind in [
        "Certificate",
        "Issuer",
        "DaemonSet",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "ServiceMonitor",
        "PodMonitor",
        "Gateway",
        "HTTPRoute",
        "TrafficSplit",
        "GatewayClass",
    ] {
        assert!(kinds.contains(kind), "{kind}");
    }
    let arguments = control_plane(&objects);
    for wanted in [
        "--egress=deny",
        "--trace-sampling=0.5",
        "--webhook-certificate-dir=/var/run/weir/webhook",
        "--gateway-service=weir-system/weir-gateway",
    ] {
        assert!(arguments.contains(&wanted), "{wanted}: {arguments:?}");
    }
    assert!(one(&objects, "Deployment", "weir-gateway")["spec"]["replicas"].is_null());
    one(&objects, "Deployment", "weir-jaeger");
    one(&objects, "ConfigMap", "weir-dashboard");
    let split = one(&objects, "TrafficSplit", "products");
    let split = weir_mesh::traffic_split::read(&split["spec"], "spec").unwrap();
    assert_eq!(split.split.weight("v1").map(|w| w.get()), Some(100));
}

fn control_plane(objects: &[Value]) -> Vec<&str> {
    let deployment = one(objects, "Deployment", "weir-control-plane");
    texts(&deployment["spec"]["template"]["spec"]["containers"][0]["args"])
}

/// An image with an empty part is as the first one says.
#[test]
fn one_tag_and_registry_is_enough_for_all_of_weirs_images() {
    if !helm_is_there() {
        return;
    }
    let set = [
        "image.tag=dev",
        "image.registry=example.com",
        "image.pullPolicy=Never",
        "cni.enabled=true",
    ];
    let objects = render(&set);
    for (name, pod) in pods(&objects) {
        for container in containers(pod) {
            let image = container["image"].as_str().unwrap();
            assert!(
                image.starts_with("example.com/weir/weir") && image.ends_with(":dev"),
                "{name}: {image}"
            );
            assert_eq!(container["imagePullPolicy"], "Never", "{name}");
        }
    }
    let config = one(&objects, "ConfigMap", "weir-injector")["data"]["config.yaml"].as_str();
    let config: Value = serde_saphyr::from_str(config.unwrap()).unwrap();
    assert_eq!(config["routerImage"], "example.com/weir/weir-router:dev");
    assert_eq!(config["cniImage"], "example.com/weir/weir-cni:dev");
    assert_eq!(config["control"], "weir-control-plane.weir-system.svc.cluster.local:15010");
}

/// The injector would not start, and with it the control plane.
#[test]
fn the_injectors_configuration_is_one_that_it_reads() {
    if !helm_is_there() {
        return;
    }
    let set = [
        "router.accessLog=true",
        "router.environment.WEIR_MAX_REQUESTS=10000000",
        "router.resources.limits.memory=256Mi",
        "injector.skipOutboundPorts={3306,9000-9010}",
        "injector.skipOutboundCidrs={10.0.0.0/8}",
        "injector.opaquePorts={5432}",
        "injector.redirect=cni",
    ];
    for set in [&[][..], &set, ALL] {
        let objects = render(set);
        let config = one(&objects, "ConfigMap", "weir-injector");
        let text = config["data"]["config.yaml"].as_str().unwrap();
        let config = InjectConfig::parse(text).unwrap();
        assert_eq!(config.control_namespace, "weir-system");
        if set.first() == Some(&"router.accessLog=true") {
            assert_eq!(config.access_log, inject::AccessLog::Stdout);
            assert_eq!(config.redirect, inject::Redirect::Cni);
            assert_eq!(config.environment["WEIR_MAX_REQUESTS"], "10000000");
            assert_eq!(config.skip_outbound_ports[1].to_string(), "9000-9010");
        }
    }
}

/// Where spans go, in the order of what is asked for.
#[test]
fn spans_go_to_the_collector_else_to_jaeger_else_to_the_control_plane() {
    if !helm_is_there() {
        return;
    }
    for (set, endpoint) in [
        (&[][..], "http://weir-control-plane.weir-system.svc.cluster.local:4317"),
        (&["tracing.jaeger.install=true"], "http://weir-jaeger.weir-system.svc.cluster.local:4317"),
        (
            &["tracing.jaeger.install=true", "tracing.endpoint=http://otel.obs:4317"],
            "http://otel.obs:4317",
        ),
    ] {
        let objects = render(set);
        let config = one(&objects, "ConfigMap", "weir-injector")["data"]["config.yaml"].as_str();
        let config: Value = serde_saphyr::from_str(config.unwrap()).unwrap();
        assert_eq!(config["traceEndpoint"], endpoint);
        let gateway = one(&objects, "Deployment", "weir-gateway");
        let env = &gateway["spec"]["template"]["spec"]["containers"][0]["env"];
        let env = env.as_array().unwrap();
        let set = env.iter().find(|e| e["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT").unwrap();
        assert_eq!(set["value"], endpoint);
    }
}

/// A pod would crash at its start, which only a cluster would tell.
#[test]
fn the_command_lines_are_ones_that_weir_takes() {
    if !helm_is_there() {
        return;
    }
    let objects = render(ALL);
    let mut seen = 0;
    for (name, pod) in pods(&objects) {
        for container in containers(pod) {
            let arguments = texts(&container["args"]);
            let image = container["image"].as_str().unwrap();
            if !image.contains("/weir/weir:") || !known(&arguments) {
                continue;
            }
            let line = ["weir"].into_iter().chain(arguments);
            if let Err(error) = weir_cli::command().try_get_matches_from(line) {
                panic!("{name}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

/// A variable that nobody reads is a setting that nobody obeys.
#[test]
fn the_gateways_environment_is_one_that_a_router_reads() {
    if !helm_is_there() {
        return;
    }
    let command = weir_cli::command();
    let router = command.find_subcommand("router").unwrap();
    let read: BTreeSet<_> =
        router.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let objects = render(&[]);
    let gateway = one(&objects, "Deployment", "weir-gateway");
    let env = &gateway["spec"]["template"]["spec"]["containers"][0]["env"];
    for variable in env.as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        // That one is part of another.
        assert!(name == "POD_NAME" || read.contains(name), "{name}");
    }
    let arguments = texts(&gateway["spec"]["template"]["spec"]["containers"][0]["args"]);
    let line = ["weir", "router", "--control=a:1", "--trust-bundle=b", "--join-token-file=c"];
    let line = line.into_iter().chain(["--service=weir-gateway.weir-system"]).chain(arguments);
    if let Err(error) = weir_cli::command().try_get_matches_from(line) {
        panic!("{error}");
    }
}

/// The control plane knows `--kubernetes` only with the feature of that name.
fn known(arguments: &[&str]) -> bool {
    let command = weir_cli::command();
    let has = |verb: &str, option: &str| {
        let found = command.find_subcommand(verb).into_iter().flat_map(|v| v.get_arguments());
        found.into_iter().any(|argument| argument.get_long() == Some(option))
    };
    arguments.first() != Some(&"control-plane") || has("control-plane", "kubernetes")
}

/// People paste from there.
#[test]
fn the_notes_name_commands_that_there_are() {
    if !helm_is_there() {
        return;
    }
    for set in [&[][..], ALL] {
        let verb =
            ["install", "weir", "helm/weir", "--namespace", "weir-system", "--dry-run=client"];
        let text = helm(&verb, set).ok();
        let notes = text.split("\nNOTES:\n").nth(1).unwrap();
        let mut seen = 0;
        for line in notes.lines().map(str::trim).filter(|line| line.starts_with("weir ")) {
            if let Err(error) = weir_cli::command().try_get_matches_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
            seen += 1;
        }
        assert!(seen >= 3, "{notes}");
        assert!(notes.contains("kubectl label namespace default weir.dev/inject=enabled"));
        assert!(notes.contains("helm test weir --namespace weir-system"));
    }
}
