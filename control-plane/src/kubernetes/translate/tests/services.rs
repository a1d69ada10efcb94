//! Services, endpoints and splits.

use super::*;
use weir_mesh::model::{Protocol, Transport};

fn split(out: &Translated, name: &str) -> Vec<(String, u32)> {
    let service = &out.desired.services[name].value;
    let versions = service.split.versions().iter();
    versions.map(|(version, weight)| (version.to_string(), weight.get())).collect()
}

fn pods() -> [Value; 3] {
    [pod("a", "v1", true), pod("b", "v1", true), pod("c", "V2.0", false)]
}

fn three() -> Value {
    json!([
        endpoint("a", "10.0.0.1", json!({ "ready": true })),
        endpoint("b", "10.0.0.2", json!({})),
        endpoint("c", "10.0.0.3", json!({ "ready": true, "terminating": false })),
    ])
}

#[test]
fn a_service_has_its_ports_addresses_and_instances() {
    let ports = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" },
        { "name": "web", "port": 80, "targetPort": "web", "appProtocol": "kubernetes.io/h2c" },
        { "name": "grpc-admin", "port": 9090, "targetPort": 1 },
        { "name": "redis", "port": 6379 },
    ]);
    let of_slice = json!([
        { "name": "web", "port": 8080, "protocol": "TCP" },
        { "name": "grpc-admin", "port": 9191 },
        { "name": "other", "port": 1 },
    ]);
    let mut all = pods().to_vec();
    all.push(service("products", ports));
    all.push(slice("products-1", "products", of_slice, three()));
    let out = translated(&all);
    assert!(out.warnings.is_empty(), "{:?}", out.warnings);
    let named: Vec<_> = out
        .desired
        .services
        .values()
        .map(|held| {
            let service = &held.value;
            let addresses: Vec<_> =
                service.virtual_addresses.iter().map(ToString::to_string).collect();
            (service.name.to_string(), service.protocol, addresses.join(" "))
        })
        .collect();
    let wanted = [
        ("products.shop", Protocol::Http2, "10.96.0.7:80 [fd00::7]:80"),
        ("products.shop:6379", Protocol::Tcp, "10.96.0.7:6379 [fd00::7]:6379"),
        ("products.shop:9090", Protocol::Grpc, "10.96.0.7:9090 [fd00::7]:9090"),
    ];
    assert_eq!(named, wanted.map(|(name, p, at)| (name.to_owned(), p, at.to_owned())));
    let web: Vec<_> =
        out.instances.iter().filter(|i| i.service.as_str() == "products.shop").collect();
    let ids: Vec<_> = web.iter().map(|i| (&*i.id, i.address.to_string(), i.transport)).collect();
    assert_eq!(
        ids,
        [
            ("products.shop/a", "10.0.0.1:8080".to_owned(), Transport::Mesh),
            ("products.shop/b", "10.0.0.2:8080".to_owned(), Transport::Mesh),
            ("products.shop/c", "10.0.0.3:8080".to_owned(), Transport::Plain),
        ]
    );
    let identity = web[0].identity.as_ref().map(|id| id.as_str().to_owned());
    assert_eq!(identity.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/products"));
    assert!(web[2].identity.is_none() && &*web[0].zone == "a");
    assert_eq!(out.instances.len(), 6);
    let unique: BTreeSet<_> = out.instances.iter().map(|i| i.id.clone()).collect();
    assert_eq!(unique.len(), 6);
    assert_eq!(split(&out, "products.shop"), [("v1".to_owned(), 2), ("v2-0".to_owned(), 1)]);
    assert_eq!(split(&out, "products.shop:6379"), [("default".to_owned(), 1)]);
}

#[test]
fn who_is_not_ready_or_goes_away_gets_nothing_new_and_is_still_there() {
    let endpoints = json!([
        endpoint("a", "10.0.0.1", json!({ "ready": false })),
        endpoint("b", "10.0.0.2", json!({ "ready": true, "serving": true, "terminating": true })),
        endpoint("unseen", "10.0.0.9", json!({ "ready": true })),
    ]);
    let mut all = pods().to_vec();
    all.push(service("products", json!([{ "port": 80 }])));
    all.push(slice("one", "products", json!([{ "port": 80 }]), endpoints));
    let out = translated(&all);
    let healthy: Vec<_> = out.instances.iter().map(|i| (&*i.id, i.healthy)).collect();
    assert_eq!(healthy, [("products.shop/a", false), ("products.shop/b", false)]);
    assert_eq!(split(&out, "products.shop"), [("v1".to_owned(), 1)], "none ready: one each");
}

#[test]
fn a_pod_of_several_slices_is_one_instance_and_the_better_one() {
    let port = json!([{ "port": 80 }]);
    let old = json!([endpoint("a", "10.0.0.1", json!({ "ready": false }))]);
    let new = json!([endpoint("a", "10.0.0.1", json!({ "ready": true }))]);
    let six = json!([endpoint("a", "fd00::1", json!({ "ready": true }))]);
    let mut all = vec![pod("a", "v1", true), service("products", port.clone())];
    all.push(slice("1", "products", port.clone(), six));
    all.push(slice("2", "products", port.clone(), old));
    all.push(slice("3", "products", port, new));
    let out = translated(&all);
    let all: Vec<_> = out.instances.iter().map(|i| (i.address.to_string(), i.healthy)).collect();
    assert_eq!(all, [("10.0.0.1:80".to_owned(), true)]);
}

#[test]
fn a_router_that_has_not_started_takes_nothing() {
    let mut waiting = pod("a", "v1", true);
    waiting["status"] = json!({
        "initContainerStatuses": [{ "name": "weir-router", "ready": false, "started": false }],
    });
    let port = json!([{ "port": 80 }]);
    let ready = json!([endpoint("a", "10.0.0.1", json!({ "ready": true }))]);
    let all = [waiting, service("products", port.clone()), slice("1", "products", port, ready)];
    let out = translated(&all);
    assert!(!out.instances[0].healthy && out.instances[0].transport == Transport::Mesh);
}

#[test]
fn a_port_that_the_router_does_not_take_is_spoken_to_in_plaintext() {
    let mut skips = pod("a", "v1", true);
    skips["metadata"]["annotations"]["weir.dev/redirect-arguments"] =
        "--outbound-port=15001 --inbound-port=15006 --admin-port=15020 --router-uid=15000 \
         --skip-inbound-ports=9000"
            .into();
    let mut none = pod("b", "v1", true);
    none["metadata"]["annotations"]["weir.dev/redirect"] = "none".into();
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "grpc", "port": 9000 }]);
    let endpoints =
        json!([endpoint("a", "10.0.0.1", json!({})), endpoint("b", "10.0.0.2", json!({}))]);
    let all =
        [skips, none, service("products", ports.clone()), slice("1", "products", ports, endpoints)];
    let out = translated(&all);
    let how: Vec<_> =
        out.instances.iter().map(|i| (&*i.id, i.transport, i.identity.is_some())).collect();
    assert_eq!(
        how,
        [
            ("products.shop/a", Transport::Mesh, true),
            ("products.shop/b", Transport::Plain, false),
            ("products.shop:9000/a", Transport::Plain, false),
            ("products.shop:9000/b", Transport::Plain, false),
        ]
    );
}

#[test]
fn endpoints_that_are_no_pods_are_plain_and_headless_services_have_no_address() {
    let mut headless = service("products", json!([{ "port": 80 }]));
    headless["spec"]["clusterIP"] = "None".into();
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let endpoints = json!([{ "addresses": ["192.0.2.7"] }, { "addresses": ["web.example.com"] }]);
    let port = json!([{ "port": 8080 }]);
    let out = translated(&[headless, slice("1", "products", port, endpoints)]);
    assert!(out.desired.services["products.shop"].value.virtual_addresses.is_empty());
    let all: Vec<_> = out.instances.iter().map(|i| (&*i.id, i.version.as_str())).collect();
    assert_eq!(all, [("products.shop/192.0.2.7", "default")]);
    assert_eq!(out.warnings.len(), 1);
    assert!(out.warnings[0].why.contains("\"web.example.com\" is no IP address"));
}

#[test]
fn ports_that_a_router_does_not_take_are_plain() {
    let annotated = |name: &str, annotation: &str, value: &str| {
        let mut pod = pod(name, "v1", true);
        pod["metadata"]["annotations"][annotation] = value.into();
        pod
    };
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "redis", "port": 6379 }]);
    let endpoints = json!([
        endpoint("a", "10.0.0.1", json!({ "ready": true })),
        endpoint("b", "10.0.0.2", json!({ "ready": true })),
    ]);
    let out = translated(&[
        annotated("a", "weir.dev/redirect-arguments", "--skip-inbound-ports=6379"),
        annotated("b", "weir.dev/redirect", "none"),
        service("products", ports.clone()),
        slice("1", "products", ports, endpoints),
    ]);
    let how: Vec<_> = out.instances.iter().map(|i| (i.address.to_string(), i.transport)).collect();
    for (address, transport) in [
        ("10.0.0.1:80", Transport::Mesh),
        ("10.0.0.1:6379", Transport::Plain),
        ("10.0.0.2:80", Transport::Plain),
        ("10.0.0.2:6379", Transport::Plain),
    ] {
        assert!(how.contains(&(address.to_owned(), transport)), "{address}: {how:?}");
    }
    let plain = out.instances.iter().filter(|i| i.transport == Transport::Plain);
    assert!(plain.into_iter().all(|i| i.identity.is_none()));
}

#[test]
fn what_is_no_service_of_the_mesh_is_left_out() {
    let mut external = service("outside", json!([{ "port": 80 }]));
    external["spec"]["type"] = "ExternalName".into();
    let mut opaque = service("db", json!([{ "port": 80 }]));
    opaque["metadata"]["annotations"] = json!({ "weir.dev/opaque-ports": "80, 81" });
    let mut typo = service("typo", json!([{ "port": 80 }]));
    typo["metadata"]["annotations"] = json!({ "weir.dev/opaque-ports": "http" });
    let odd = service("Not.A.Label", json!([{ "port": 80 }]));
    let out = translated(&[external, opaque, typo, odd, service("none", json!([]))]);
    let names: Vec<_> = out.desired.services.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["db.shop", "typo.shop"], "a slip takes nobody's policies away");
    assert_eq!(out.desired.services["db.shop"].value.protocol, Protocol::Tcp);
    let told: Vec<_> = out.warnings.iter().map(|w| &*w.name).collect();
    assert_eq!(told, ["Not.A.Label", "typo"]);
}

#[test]
fn routes_say_what_ports_speak_that_do_not_say_it() {
    let ports = json!([{ "name": "a", "port": 5000 }, { "name": "b", "port": 5001 }]);
    let parents = json!([of_service("products")]);
    let web = http_route("web", parents, backends(&[("products", 5000)]));
    let out = translated(&[service("products", ports.clone()), web]);
    assert_eq!(out.desired.services["products.shop:5001"].value.protocol, Protocol::Http1);
    let other =
        json!([{ "group": "", "kind": "Service", "name": "products", "namespace": "shop" }]);
    let foreign = route("HTTPRoute", "else", "web", other, backends(&[]));
    let out = translated(&[service("products", ports), foreign]);
    assert_eq!(
        out.desired.services["products.shop"].value.protocol,
        Protocol::Tcp,
        "not by others"
    );
}

fn traffic_split(spec: Value) -> Value {
    json!({
        "kind": "TrafficSplit",
        "metadata": { "namespace": "shop", "name": "products", "generation": 2 },
        "spec": spec,
    })
}

#[test]
fn a_traffic_split_is_followed_and_told_what_there_is() {
    let port = json!([{ "port": 80 }]);
    let mut all = pods().to_vec();
    all.push(service("products", port.clone()));
    all.push(slice("1", "products", port, three()));
    all.push(traffic_split(json!({
        "versions": [{ "name": "v3", "weight": 10 }, { "name": "v1", "weight": 90 }],
        "sticky": { "header": "x-user" },
    })));
    let out = translated(&all);
    let wanted = [("v3", 10), ("v1", 90), ("v2-0", 0)];
    assert_eq!(split(&out, "products.shop"), wanted.map(|(v, w)| (v.to_owned(), w)));
    assert!(out.desired.services["products.shop"].value.split.sticky.is_some());
    let ancestor = &status(&out, Kind::TrafficSplit, "products")["ancestors"][0];
    assert_eq!(told(ancestor)[0], "Accepted=True/Accepted");
    let condition = &ancestor["conditions"][0];
    assert_eq!(condition["observedGeneration"], 2);
    assert_eq!(condition["message"], "versions of its pods: v1, v2-0");
    assert_eq!(ancestor["ancestorRef"]["kind"], "Service");
}

#[test]
fn a_traffic_split_that_cannot_be_followed_changes_nothing() {
    let bad = traffic_split(json!({ "versions": [{ "name": "v1", "weight": 0 }] }));
    let out = translated(&[service("products", json!([{ "port": 80 }])), bad.clone()]);
    assert_eq!(split(&out, "products.shop"), [("default".to_owned(), 1)]);
    let said =
        |out: &Translated| told(&status(out, Kind::TrafficSplit, "products")["ancestors"][0]);
    assert_eq!(said(&out)[0], "Accepted=False/Invalid");
    let lost = traffic_split(json!({ "versions": [{ "name": "v1", "weight": 1 }] }));
    let out = translated(&[lost]);
    assert_eq!(said(&out)[0], "Accepted=False/TargetNotFound");
}

#[test]
fn namespaces_of_the_mesh() {
    let mut said = namespace("said");
    said["metadata"]["labels"]["weir.dev/inject"] = "enabled".into();
    let out = translated(&[said, namespace("other"), pod("a", "v1", true)]);
    let meshed: Vec<_> = out.meshed.iter().map(String::as_str).collect();
    assert_eq!(meshed, ["said", "shop", "weir-system"]);
    assert!((out.desired.options.trace_sampling - 0.5).abs() < 1e-9);
    assert!(out.desired.options.egress.as_ref().is_some_and(|e| e.allow_by_default));
}
