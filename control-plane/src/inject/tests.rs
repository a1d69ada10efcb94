//! The front door: a pod in, a pod out.

mod answers;
mod laws;

use serde_json::{Value, json};

use super::*;

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "products-v1-5d4f8c7b9-",
            "labels": {"app": "products", "version": "v1", "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [
                {"kind": "ReplicaSet", "name": "products-v1-5d4f8c7b9", "controller": true},
            ],
        },
        "spec": {
            "serviceAccountName": "products",
            "initContainers": [{"name": "migrate", "image": "products:1"}],
            "containers": [{"name": "app", "image": "products:1"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

fn annotated(annotations: Value) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"] = annotations;
    pod
}

fn shop() -> NamespaceFacts {
    labelled("shop", "enabled")
}

fn labelled(name: &str, inject: &str) -> NamespaceFacts {
    NamespaceFacts {
        name: name.into(),
        labels: [(INJECT.to_owned(), inject.to_owned())].into_iter().collect(),
    }
}

fn injected(config: &InjectConfig, pod: &Value) -> Injected {
    match inject(config, &shop(), pod) {
        Ok(Outcome::Injected(injected)) => *injected,
        other => panic!("{other:?}"),
    }
}

fn injected_pod(pod: &Value) -> Value {
    injected(&InjectConfig::default(), pod).pod
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let found = containers(pod).find(|(_, container)| container["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {pod:#}")).1
}

fn variable(pod: &Value, name: &str) -> Option<String> {
    let all = container(pod, ROUTER)["env"].as_array().unwrap();
    let found = all.iter().find(|variable| variable["name"] == name)?;
    let path = || format!("<{}>", found["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap());
    Some(found["value"].as_str().map_or_else(path, str::to_owned))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn apply(patch: &Value, pod: &Value) -> Value {
    let mut new = pod.clone();
    for operation in patch.as_array().unwrap() {
        let (parent, key) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let map = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        let op = if map.contains_key(key) { "replace" } else { "add" };
        assert_eq!(operation["op"], op);
        map.insert(key.to_owned(), operation["value"].clone());
    }
    new
}

#[test]
fn the_router_starts_before_the_application_with_least_rights() {
    let pod = injected_pod(&pod());
    assert_eq!(names(&pod["spec"]["initContainers"]), [REDIRECT, ROUTER, "migrate"]);
    assert_eq!(names(&pod["spec"]["volumes"]), ["data", "weir-token", "weir-trust", "weir-state"]);
    assert_eq!(pod["metadata"]["annotations"][INJECTED], "true");
    assert_eq!(pod["metadata"]["labels"][INJECTED], "true");
    let router = container(&pod, ROUTER);
    assert_eq!(router["restartPolicy"], "Always");
    let probe = |kind: &str| (&router[kind]["httpGet"]["path"], &router[kind]["httpGet"]["port"]);
    assert_eq!(probe("startupProbe"), (&json!("/ready"), &json!(15020)));
    assert_eq!(probe("readinessProbe"), (&json!("/ready"), &json!(15020)));
    assert_eq!(probe("livenessProbe"), (&json!("/live"), &json!(15020)));
    assert_eq!(
        router["securityContext"],
        json!({
            "runAsUser": 15000, "runAsGroup": 15000, "runAsNonRoot": true,
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
    let resources =
        json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}});
    assert_eq!(router["resources"], resources);
    let redirect = container(&pod, REDIRECT);
    let capabilities = json!({"drop": ["ALL"], "add": ["NET_ADMIN"]});
    assert_eq!(redirect["securityContext"]["capabilities"], capabilities);
    assert_eq!(
        redirect["args"],
        json!([
            "redirect",
            "--outbound-port=15001",
            "--inbound-port=15006",
            "--admin-port=15020",
            "--router-uid=15000"
        ])
    );
}

#[test]
fn the_router_knows_who_it_is() {
    let pod = injected_pod(&pod());
    for (name, value) in [
        ("WEIR_PLATFORM", "kubernetes"),
        ("WEIR_ROLE", "sidecar"),
        ("WEIR_SERVICE", "products-v1.$(WEIR_NAMESPACE)"),
        ("WEIR_VERSION", "v1"),
        ("WEIR_INSTANCE_ID", "$(WEIR_NAMESPACE)/$(WEIR_POD_NAME)"),
        ("WEIR_POD_NAME", "<metadata.name>"),
        ("WEIR_POD_IP", "<status.podIP>"),
        ("WEIR_NAMESPACE", "<metadata.namespace>"),
        ("WEIR_CONTROL_MESH", "weir-control-plane.weir-system.svc.cluster.local:15010"),
        ("WEIR_TRUST_DOMAIN", "cluster.local"),
        ("WEIR_TRANSPARENT", "true"),
    ] {
        assert_eq!(variable(&pod, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(variable(&pod, "WEIR_PROBES"), None);
    // The kubelet puts in what stands before.
    let order = names(&container(&pod, ROUTER)["env"]);
    let at = |name: &str| order.iter().position(|n| *n == name).unwrap();
    assert!(at("WEIR_NAMESPACE") < at("WEIR_SERVICE"));
    assert!(at("WEIR_POD_NAME") < at("WEIR_INSTANCE_ID"));
    let token = &pod["spec"]["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(*token, json!({"audience": "weir", "expirationSeconds": 3600, "path": "token"}));
}

#[test]
fn the_pod_decides_before_its_namespace() {
    let config = InjectConfig::default();
    let labels = |text: &str| {
        let mut pod = pod();
        pod["metadata"]["labels"][INJECT] = text.into();
        pod
    };
    let decide = |facts: &NamespaceFacts, pod: &Value| match inject(&config, facts, pod) {
        Ok(Outcome::Unchanged(reason)) => reason.to_string(),
        Ok(Outcome::Injected(_)) => "injected".to_owned(),
        Err(invalid) => panic!("{invalid}"),
    };
    let (on, off) = (labelled("shop", "enabled"), labelled("shop", "disabled"));
    let plain = NamespaceFacts { name: "shop".into(), ..Default::default() };
    assert_eq!(decide(&on, &pod()), "injected");
    assert_eq!(decide(&off, &pod()), "weir.dev/inject: disabled");
    assert!(decide(&plain, &pod()).contains("neither"));
    assert_eq!(decide(&off, &labels("enabled")), "injected");
    assert_eq!(decide(&on, &labels("disabled")), "weir.dev/inject: disabled");
    let mut both = labels("disabled");
    both["metadata"]["annotations"] = json!({INJECT: "enabled"});
    assert_eq!(decide(&off, &both), "injected");
    let by_default = InjectConfig { inject: Switch::Enabled, ..InjectConfig::default() };
    assert!(matches!(inject(&by_default, &plain, &pod()), Ok(Outcome::Injected(_))));
    assert!(decide(&labelled("shop", "true"), &pod()).contains("\"true\", not enabled"));
    let error = inject(&config, &on, &labels("yes")).unwrap_err().to_string();
    assert_eq!(error, "metadata.labels[weir.dev/inject]: \"yes\" is none of enabled, disabled");
}

#[test]
fn some_pods_cannot_have_a_router() {
    let config = InjectConfig::default();
    let reason = |facts: &NamespaceFacts, field: &str, value: Value| {
        let mut pod = pod();
        if !field.is_empty() {
            pod["spec"][field] = value;
        }
        match inject(&config, facts, &pod) {
            Ok(Outcome::Unchanged(reason)) => (reason.surprises(), reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason(&shop(), "hostNetwork", true.into()), (true, Reason::HostNetwork));
    assert_eq!(
        reason(&shop(), "shareProcessNamespace", true.into()),
        (true, Reason::SharedProcesses)
    );
    assert_eq!(reason(&shop(), "os", json!({"name": "windows"})), (true, Reason::Windows));
    let system = labelled("kube-system", "enabled");
    assert_eq!(reason(&system, "", Value::Null), (true, Reason::SystemNamespace));
    let own = labelled("weir-system", "enabled");
    assert_eq!(reason(&own, "", Value::Null), (false, Reason::ControlPlane));
    // Nobody asked, nobody is told.
    let off = labelled("shop", "disabled");
    assert_eq!(reason(&off, "hostNetwork", true.into()), (false, Reason::Disabled));
    let mirror = annotated(json!({"kubernetes.io/config.mirror": "hash"}));
    assert_eq!(inject(&config, &shop(), &mirror), Ok(Outcome::Unchanged(Reason::Static)));
    // A copied annotation is no router.
    let pod = annotated(json!({INJECTED: "true"}));
    assert!(matches!(inject(&config, &shop(), &pod), Ok(Outcome::Injected(_))));
}

#[test]
fn annotations_change_what_a_pod_gets() {
    let pod = injected_pod(&annotated(json!({
        "weir.dev/router-image": "example.com/router:2",
        "weir.dev/skip-outbound-ports": "3306, 9000-9010",
        "weir.dev/skip-inbound-ports": "22",
        "weir.dev/skip-outbound-cidrs": "10.0.0.0/8,2001:db8::/32",
        "weir.dev/opaque-ports": "6379-6380,25",
        "weir.dev/cpu-request": "50m",
        "weir.dev/memory-limit": "1Gi",
        "weir.dev/log-level": "debug",
        "weir.dev/access-log": "-",
        "weir.dev/trace-endpoint": "http://jaeger:4317",
        "weir.dev/config.max-requests": "100",
    })));
    let router = container(&pod, ROUTER);
    assert_eq!(router["image"], "example.com/router:2");
    let resources =
        json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "1Gi"}});
    assert_eq!(router["resources"], resources);
    for (name, value) in [
        ("WEIR_OPAQUE_PORTS", "25,6379,6380"),
        ("WEIR_LOG", "debug"),
        ("WEIR_ACCESS_LOG", "-"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317"),
        ("WEIR_MAX_REQUESTS", "100"),
    ] {
        assert_eq!(variable(&pod, name).as_deref(), Some(value), "{name}");
    }
    let arguments = container(&pod, REDIRECT)["args"].to_string();
    for argument in [
        "--skip-outbound-ports=3306,9000-9010",
        "--skip-inbound-ports=22",
        "--skip-outbound-cidrs=10.0.0.0/8,2001:db8::/32",
    ] {
        assert!(arguments.contains(argument), "{argument}: {arguments}");
    }
}

#[test]
fn all_wrong_annotations_are_told_at_once() {
    let mut wrong = annotated(json!({
        "weir.dev/redirect": "iptables",
        "weir.dev/skip-outbound-ports": "http",
        "weir.dev/skip-inbound-ports": 80,
        "weir.dev/skip-outbound-cidrs": "10.1.2.3/8",
        "weir.dev/opaque-ports": "1-65535",
        "weir.dev/memory-request": "64 MB",
        "weir.dev/cpu-request": "2",
        "weir.dev/cpu-limit": "1",
        "weir.dev/router-image": "",
        "weir.dev/trace-endpoint": "jaeger:4317",
        "weir.dev/config.role": "gateway",
        "weir.dev/config.Max_Requests": "1",
    }));
    wrong["spec"]["containers"][0]["ports"] = json!([{"containerPort": 15020}]);
    wrong["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 15000});
    wrong["spec"]["volumes"][0]["name"] = "weir-state".into();
    let invalid = inject(&InjectConfig::default(), &shop(), &wrong).unwrap_err();
    let fields: Vec<_> = invalid.0.iter().map(|violation| violation.field.as_str()).collect();
    for name in [
        "redirect",
        "skip-outbound-ports",
        "skip-inbound-ports",
        "skip-outbound-cidrs",
        "opaque-ports",
        "memory-request",
        "cpu-request",
        "router-image",
        "trace-endpoint",
        "config.role",
        "config.Max_Requests",
    ] {
        let field = format!("metadata.annotations[weir.dev/{name}]");
        assert!(fields.contains(&field.as_str()), "{field}: {fields:?}");
    }
    for field in [
        "spec.containers[0].ports[0].containerPort",
        "spec.containers[0].securityContext.runAsUser",
        "spec.volumes[0].name",
    ] {
        assert!(fields.contains(&field), "{field}: {fields:?}");
    }
    assert_eq!(fields.len(), 14, "{invalid}");
}

#[test]
fn what_is_no_pod_is_told() {
    let check =
        |pod: Value| inject(&InjectConfig::default(), &shop(), &pod).unwrap_err().to_string();
    assert!(check(json!({})).contains("spec: is no mapping"));
    assert!(check(json!({"spec": {"containers": [1]}})).contains("spec.containers: is no list"));
    let odd = json!({"metadata": {"annotations": []}, "spec": {"containers": [], "volumes": {}}});
    let all = check(odd);
    assert!(all.contains("metadata.annotations: ") && all.contains("spec.volumes: "), "{all}");
}

#[test]
fn a_default_gives_way_to_what_was_asked_for() {
    let pod = injected_pod(&annotated(json!({"weir.dev/memory-limit": "16Mi"})));
    let resources = &container(&pod, ROUTER)["resources"];
    assert_eq!(
        (&resources["requests"]["memory"], &resources["limits"]["memory"]),
        (&json!("16Mi"), &json!("16Mi"))
    );
}

#[test]
fn names_that_mean_nothing_are_warned_of() {
    // The version is a label.
    let pod = annotated(json!({"weir.dev/skip-outbound-port": "1", "weir.dev/version": "v2"}));
    let warnings = injected(&InjectConfig::default(), &pod).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("weir.dev/skip-outbound-port means nothing"), "{warnings:?}");
}

#[test]
fn redirection_is_set_up_as_asked() {
    let cni = injected_pod(&annotated(
        json!({"weir.dev/redirect": "cni", "weir.dev/skip-outbound-ports": "25"}),
    ));
    assert_eq!(names(&cni["spec"]["initContainers"]), [REDIRECT, ROUTER, "migrate"]);
    // The restricted Pod Security Standard takes it.
    let proof = container(&cni, REDIRECT);
    assert_eq!(proof["args"][0], "verify");
    let context = &proof["securityContext"];
    assert_eq!(
        (&context["runAsNonRoot"], &context["capabilities"]),
        (&json!(true), &json!({"drop": ["ALL"]}))
    );
    let annotations = &cni["metadata"]["annotations"];
    assert_eq!(annotations["weir.dev/redirect"], "cni");
    assert_eq!(
        annotations["weir.dev/redirect-arguments"],
        "--outbound-port=15001 --inbound-port=15006 --admin-port=15020 --router-uid=15000 --skip-outbound-ports=25"
    );
    let config = InjectConfig { redirect: Redirect::None, ..InjectConfig::default() };
    let none = injected(&config, &pod()).pod;
    assert_eq!(names(&none["spec"]["initContainers"]), [ROUTER, "migrate"]);
    assert_eq!(variable(&none, "WEIR_TRANSPARENT").as_deref(), Some("false"));
    assert_eq!(none["metadata"]["annotations"]["weir.dev/redirect"], "none");
    assert!(!receives(&none, 80));
}

#[test]
fn a_pod_says_which_ports_its_router_takes() {
    let config: InjectConfig =
        serde_json::from_value(json!({"skipInboundPorts": [22, "9000-9010"]})).unwrap();
    for mode in ["init", "cni"] {
        let pod = injected(&config, &annotated(json!({"weir.dev/redirect": mode}))).pod;
        let taken = [21, 22, 80, 8999, 9005, 9011, 15_020].map(|port| receives(&pod, port));
        assert_eq!(taken, [true, false, true, true, false, true, false], "{mode}");
    }
    assert!(receives(&annotated(json!({})), 80), "what says nothing takes all");
    assert!(!receives(&annotated(json!({"weir.dev/redirect-arguments": "--what"})), 80));
}

#[test]
fn probes_of_the_application_keep_their_meaning() {
    let mut with_probes = annotated(json!({"weir.dev/skip-inbound-ports": "9999"}));
    with_probes["spec"]["containers"] = json!([
        {
            "name": "app",
            "ports": [{"name": "http", "containerPort": 8080}, {"name": "db", "containerPort": 5432}],
            "startupProbe": {"tcpSocket": {"port": "db"}, "periodSeconds": 7},
            "readinessProbe": {"httpGet": {"port": "http", "path": "healthz?deep=1"}},
            "livenessProbe": {"httpGet": {"port": 8080, "path": "/a,b"}},
            "lifecycle": {"preStop": {"tcpSocket": {"port": 8080}}},
        },
        {"name": "b", "readinessProbe": {"tcpSocket": {"port": 9999}}, "livenessProbe": {"exec": {"command": ["x"]}}},
        {"name": "c", "readinessProbe": {"tcpSocket": {"port": 1, "host": "other"}}, "livenessProbe": {"grpc": {"port": 50051, "service": "x"}}},
        {"name": "d", "readinessProbe": {"httpGet": {"port": 8443, "scheme": "HTTPS"}}, "livenessProbe": {"tcpSocket": {"port": "missing"}}},
    ]);
    let pod = injected_pod(&with_probes);
    let app = container(&pod, "app");
    assert_eq!(
        app["startupProbe"],
        json!({"httpGet": {"path": "/probe/tcp/5432", "port": 15020}, "periodSeconds": 7})
    );
    assert_eq!(
        variable(&pod, "WEIR_PROBES").as_deref(),
        Some("50051/grpc.health.v1.Health/Check,8080/a%2Cb,8080/healthz")
    );
    let mut same = with_probes["spec"]["containers"].clone();
    same[0]["startupProbe"] = app["startupProbe"].clone();
    assert_eq!(pod["spec"]["containers"], same, "all others are as they were");
}

#[test]
fn the_configuration_is_read_strictly() {
    let read: Result<InjectConfig, _> = serde_json::from_value(json!({
        "routerImage": "r:1", "skipOutboundPorts": [3306, "9000-9010"], "skipIPv6": true,
        "resources": {"requests": {"cpu": 1}}, "redirect": "cni", "environment": {"WEIR_ZONE": "a"},
    }));
    let config = read.unwrap();
    let again: InjectConfig =
        serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    for wrong in [
        json!({"routerimage": "r:1"}),
        json!({"redirect": "iptables"}),
        json!({"skipOutboundCidrs": ["10.0.0.0/40"]}),
        json!({"resources": {"requests": {"memory": "64MB"}}}),
    ] {
        assert!(serde_json::from_value::<InjectConfig>(wrong.clone()).is_err(), "{wrong}");
    }
    let schema = schemars::schema_for!(InjectConfig).to_value();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["skipIPv6"].is_object(), "{schema:#}");
}

#[test]
fn the_configuration_is_yaml() {
    let config = InjectConfig::parse(
        "# ours\nrouterImage: r:1\naccessLog: off\nskipOutboundPorts: [25, 9000-9010]\n\
         resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 128Mi}}\ntraceEndpoint: \"\"\n",
    );
    let config = config.unwrap();
    assert_eq!(config.skip_outbound_ports, ["25", "9000-9010"].map(|text| text.parse().unwrap()));
    assert_eq!(variable(&injected(&config, &pod()).pod, "OTEL_EXPORTER_OTLP_ENDPOINT"), None);
    assert_eq!(InjectConfig::parse("# nothing\n"), Ok(InjectConfig::default()));
    let wrong = "routerImage: \"\"\ntraceEndpoint: jaeger\ncontrol: here\ntokenExpirationSeconds: 1\n\
                 environment: {WEIR_ROLE: x}\nresources: {requests: {memory: 1Gi}, limits: {memory: 1Mi}}\n";
    let error = InjectConfig::parse(wrong).unwrap_err();
    for field in [
        "routerImage: ",
        "traceEndpoint: ",
        "control: ",
        "tokenExpirationSeconds: ",
        "environment.WEIR_ROLE: ",
        "resources.requests.memory: ",
    ] {
        assert!(error.contains(field), "{field}{error}");
    }
    let error = InjectConfig::parse("redirect: iptables\n").unwrap_err();
    assert!(error.contains("iptables") && error.contains("cni"), "{error}");
}
