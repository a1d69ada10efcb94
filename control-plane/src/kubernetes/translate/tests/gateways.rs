//! Gateways, and routes of their listeners.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weir_mesh::model::{ListenerProtocol, Parent, TcpParent};

fn class(name: &str, controller: &str) -> Value {
    json!({
        "kind": "GatewayClass", "metadata": { "name": name, "generation": 1 },
        "spec": { "controllerName": controller },
    })
}

fn gateway(namespace: &str, name: &str, listeners: Value) -> Value {
    json!({
        "kind": "Gateway",
        "metadata": { "namespace": namespace, "name": name, "generation": 4 },
        "spec": { "gatewayClassName": "weir", "listeners": listeners },
    })
}

fn http(name: &str, port: u16, from: &str) -> Value {
    json!({
        "name": name, "port": port, "protocol": "HTTP",
        "allowedRoutes": { "namespaces": { "from": from } },
    })
}

fn https(secret: Value) -> Value {
    json!({
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
        "tls": { "mode": "Terminate", "certificateRefs": [secret] },
    })
}

fn secret(namespace: &str, certificate: &str, key: &str) -> Value {
    json!({
        "kind": "Secret", "metadata": { "namespace": namespace, "name": "tls" },
        "type": "kubernetes.io/tls",
        "data": { "tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key) },
    })
}

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).expect("one");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A class, a Service for the gateway, a backend, and these.
fn with(more: &[Value]) -> Translated {
    let mut front = service("weir-gateway", json!([{ "port": 80 }]));
    front["metadata"]["namespace"] = "weir-system".into();
    front["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "192.0.2.1" }]);
    let mut all = vec![class("weir", "weir.dev/gateway"), front, namespace("shop")];
    all.push(service("products", json!([http_port(80)])));
    all.extend_from_slice(more);
    translated(&all)
}

fn to(gateway: &str) -> Value {
    json!([{ "name": gateway, "namespace": "front" }])
}

fn listener<'a>(out: &'a Translated, gateway: &str, name: &str) -> &'a Value {
    let listeners = status(out, Kind::Gateway, gateway)["listeners"].as_array().expect("some");
    listeners.iter().find(|l| l["name"] == name).expect("the listener")
}

#[test]
fn classes_of_ours_alone_are_told() {
    let out = with(&[class("other", "example.com/other")]);
    let classes: Vec<_> =
        out.statuses.iter().filter(|s| s.kind == Kind::GatewayClass).map(|s| &*s.name).collect();
    assert_eq!(classes, ["weir"]);
    let status = status(&out, Kind::GatewayClass, "weir");
    assert_eq!(told(status), ["Accepted=True/Accepted"]);
    let names: Vec<_> =
        status["supportedFeatures"].as_array().into_iter().flatten().map(|f| &f["name"]).collect();
    assert!(names.windows(2).all(|two| two[0].as_str() < two[1].as_str()), "in order");
}

#[test]
fn a_route_is_attached_to_the_listeners_that_take_it() {
    let listeners = json!([http("same", 80, "Same"), http("all", 8080, "All")]);
    let web = http_route("web", to("front"), backends(&[("products", 80)]));
    let out = with(&[gateway("front", "front", listeners), web]);
    let route = &out.desired.routes["web.shop"].value;
    assert_eq!(route.parents, [Parent::Listener("front/front/all".into())]);
    let opened: Vec<_> = out.desired.listeners.iter().map(|l| (&*l.id, l.port)).collect();
    assert_eq!(opened, [("front/front/same", 80), ("front/front/all", 8080)]);
    let wanted = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];
    assert_eq!(told_by_parent(&out, Kind::HTTPRoute, "web"), wanted);
    let parent = &status(&out, Kind::HTTPRoute, "web")["parents"][0];
    assert_eq!(parent["controllerName"], "weir.dev/gateway");
    let gateway = status(&out, Kind::Gateway, "front");
    assert_eq!(told(gateway), ["Accepted=True/Accepted", "Programmed=True/Programmed"]);
    assert_eq!(gateway["addresses"], json!([{ "type": "IPAddress", "value": "192.0.2.1" }]));
    assert_eq!(listener(&out, "front", "same")["attachedRoutes"], 0);
    let all = listener(&out, "front", "all");
    assert_eq!(all["attachedRoutes"], 1);
    assert_eq!(
        told(all),
        [
            "Accepted=True/Accepted",
            "Programmed=True/Programmed",
            "ResolvedRefs=True/ResolvedRefs",
            "Conflicted=False/NoConflicts",
        ]
    );
    assert_eq!(all["conditions"][0]["observedGeneration"], 4);
}

#[test]
fn why_a_route_is_not_attached() {
    let mut named = http("named", 81, "All");
    named["hostname"] = "*.example.com".into();
    let mut grpc = http("grpc", 82, "All");
    grpc["allowedRoutes"]["kinds"] = json!([{ "kind": "GRPCRoute" }]);
    let listeners = json!([http("same", 80, "Same"), named, grpc]);
    let front = gateway("front", "front", listeners);
    for (parent, hostname, reason) in [
        (json!({ "sectionName": "none" }), "a.test", "NoMatchingParent"),
        (json!({ "port": 99 }), "a.test", "NoMatchingParent"),
        (json!({ "sectionName": "same", "port": 81 }), "a.test", "NoMatchingParent"),
        (json!({ "sectionName": "same" }), "a.test", "NotAllowedByListeners"),
        (json!({ "sectionName": "grpc" }), "a.test", "NotAllowedByListeners"),
        (json!({}), "a.test", "NoMatchingListenerHostname"),
        (json!({}), "example.com", "NoMatchingListenerHostname"),
        (json!({}), "*.example.com", "Accepted"),
        (json!({}), "*.b.example.com", "Accepted"),
        (json!({}), "*.com", "Accepted"),
        (json!({}), "a.example.com", "Accepted"),
    ] {
        let mut parent = parent;
        parent["name"] = "front".into();
        parent["namespace"] = "front".into();
        let mut web = http_route("web", json!([parent]), backends(&[("products", 80)]));
        web["spec"]["hostnames"] = json!([hostname]);
        let out = with(&[front.clone(), web]);
        let told = told_by_parent(&out, Kind::HTTPRoute, "web");
        assert!(told[0].ends_with(&format!("/{reason}")), "{hostname} {parent}: {told:?}");
        assert_eq!(out.desired.routes.len(), usize::from(reason == "Accepted"));
    }
    // A Gateway that is not there, or not ours, is another's to answer for.
    let out = with(&[http_route("web", to("nobody"), backends(&[("products", 80)]))]);
    assert!(out.statuses.iter().all(|s| s.kind != Kind::HTTPRoute));
}

#[test]
fn a_selector_takes_namespaces_by_label() {
    let mut one = http("http", 80, "Selector");
    let expression =
        json!({ "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"] });
    one["allowedRoutes"]["namespaces"]["selector"] = json!({ "matchExpressions": [expression] });
    let front = gateway("front", "front", json!([one]));
    let web = |of: &str| route("HTTPRoute", of, "web", to("front"), backends(&[("products", 80)]));
    let out = with(&[front, web("shop"), web("unknown")]);
    assert_eq!(out.desired.routes.keys().map(|n| &**n).collect::<Vec<_>>(), ["web.shop"]);
}

#[test]
fn a_certificate_comes_of_a_secret() {
    let (chain, key) = certificate();
    let front = gateway("front", "front", json!([https(json!({ "name": "tls" }))]));
    let out = with(&[front, secret("front", &chain, &key)]);
    let opened = &out.desired.listeners[0];
    assert_eq!((opened.protocol, opened.certificates.len()), (ListenerProtocol::Https, 1));
    assert!(!format!("{out:?}").contains("PRIVATE KEY"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_and_routes_still_count() {
    let (chain, key) = certificate();
    let (_, other_key) = certificate();
    let own = json!({ "name": "tls" });
    let far = json!({ "name": "tls", "namespace": "vault" });
    let grant = json!({
        "kind": "ReferenceGrant", "metadata": { "namespace": "vault", "name": "front" },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "front" }],
            "to": [{ "group": "", "kind": "Secret" }],
        },
    });
    let good = secret("vault", &chain, &key);
    for (reference, more, reason) in [
        (own.clone(), vec![], "InvalidCertificateRef"),
        (own.clone(), vec![secret("front", &chain, &other_key)], "InvalidCertificateRef"),
        (own.clone(), vec![secret("front", "Hello world", &key)], "InvalidCertificateRef"),
        (own.clone(), vec![secret("front", &chain, "")], "InvalidCertificateRef"),
        (json!({ "group": "wrong.group", "name": "tls" }), vec![], "InvalidCertificateRef"),
        (json!({ "kind": "ConfigMap", "name": "tls" }), vec![], "InvalidCertificateRef"),
        (far.clone(), vec![good.clone()], "RefNotPermitted"),
        (far, vec![good, grant], "ResolvedRefs"),
    ] {
        let mut one = https(reference.clone());
        one["allowedRoutes"] = json!({ "namespaces": { "from": "All" } });
        let mut all = vec![gateway("front", "front", json!([one]))];
        all.push(http_route("web", to("front"), backends(&[("products", 80)])));
        all.extend(more);
        let out = with(&all);
        let https = listener(&out, "front", "https");
        let told = told(https);
        assert!(told[2].ends_with(&format!("/{reason}")), "{reference}: {told:?}");
        assert_eq!(https["attachedRoutes"], 1);
        let good = reason == "ResolvedRefs";
        assert_eq!(told[1].starts_with("Programmed=True"), good);
        assert_eq!(
            (out.desired.listeners.len(), out.desired.routes.len()),
            (usize::from(good), usize::from(good))
        );
    }
}

#[test]
fn a_listener_that_should_ask_for_client_certificates_is_refused() {
    let (chain, key) = certificate();
    let listeners = json!([https(json!({ "name": "tls" })), http("http", 80, "Same")]);
    let mut front = gateway("front", "front", listeners);
    let validation = json!({ "validation": { "caCertificateRefs": [{ "name": "ca" }] } });
    front["spec"]["tls"] = json!({ "frontend": { "default": validation } });
    let out = with(&[front, secret("front", &chain, &key)]);
    let ids: Vec<_> = out.desired.listeners.iter().map(|l| &*l.id).collect();
    assert_eq!(ids, ["front/front/http"]);
    assert_eq!(told(listener(&out, "front", "https"))[0], "Accepted=False/UnsupportedValue");
}

#[test]
fn kinds_that_a_listener_cannot_take() {
    let mut none = http("none", 80, "Same");
    none["allowedRoutes"]["kinds"] = json!([{ "kind": "TCPRoute" }]);
    let mut some = http("some", 81, "Same");
    some["allowedRoutes"]["kinds"] = json!([{ "kind": "TCPRoute" }, { "kind": "HTTPRoute" }]);
    let out = with(&[gateway("front", "front", json!([none, some]))]);
    let kinds = |name: &str| listener(&out, "front", name)["supportedKinds"].clone();
    assert_eq!(kinds("none"), json!([]));
    assert_eq!(
        kinds("some"),
        json!([{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute" }])
    );
    for name in ["none", "some"] {
        assert_eq!(told(listener(&out, "front", name))[2], "ResolvedRefs=False/InvalidRouteKinds");
    }
}

#[test]
fn listeners_that_cannot_be_beside_each_other() {
    let tls = |name: &str, mode: &str, host: &str| {
        json!({
            "name": name, "port": 8443, "protocol": "TLS", "hostname": host, "tls": { "mode": mode },
        })
    };
    let tcp = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "TCP" });
    for (listeners, first, conflict) in [
        (json!([http("a", 80, "Same"), tcp("b", 80)]), "Accepted=False/ProtocolConflict", true),
        (
            json!([http("a", 80, "Same"), http("b", 80, "All")]),
            "Accepted=False/HostnameConflict",
            true,
        ),
        (json!([tcp("a", 80), tcp("b", 80)]), "Accepted=False/HostnameConflict", true),
        (
            json!([tls("a", "Terminate", "a.test"), tls("b", "Passthrough", "b.test")]),
            "Accepted=False/ProtocolConflict",
            true,
        ),
        (
            json!([tls("a", "Passthrough", "a.test"), tls("b", "Passthrough", "b.test")]),
            "Accepted=True/Accepted",
            false,
        ),
        (
            json!([https(json!({ "name": "tls" })), { "name": "b", "port": 443, "protocol": "TLS", "tls": { "mode": "Passthrough" } }]),
            "Accepted=False/ProtocolConflict",
            true,
        ),
        (json!([http("a", 15020, "Same")]), "Accepted=False/PortUnavailable", false),
        (json!([tls("a", "Terminate", "a.test")]), "Accepted=False/UnsupportedValue", false),
        (
            json!([{ "name": "a", "port": 1, "protocol": "UDP" }]),
            "Accepted=False/UnsupportedProtocol",
            false,
        ),
    ] {
        let out = with(&[gateway("front", "front", listeners.clone())]);
        for one in status(&out, Kind::Gateway, "front")["listeners"].as_array().expect("some") {
            let told = told(one);
            assert_eq!(told[0], first, "{listeners}");
            assert_eq!(told[3].starts_with("Conflicted=True"), conflict);
        }
        let good = first.starts_with("Accepted=True");
        assert_eq!(out.desired.listeners.is_empty(), !good);
        let told = told(status(&out, Kind::Gateway, "front"));
        assert_eq!(told[0] == "Accepted=False/ListenersNotValid", !good, "{told:?}");
    }
}

#[test]
fn the_older_gateway_keeps_its_port() {
    let listener = json!([{ "name": "tcp", "port": 80, "protocol": "TCP" }]);
    let mut young = gateway("front", "a-young", listener);
    young["metadata"]["creationTimestamp"] = "2026-11-02T00:00:00Z".into();
    let mut old = gateway("front", "old", json!([http("http", 80, "All")]));
    old["metadata"]["creationTimestamp"] = "2026-11-01T00:00:00Z".into();
    let mut other = gateway("shop", "other", json!([http("http", 80, "All")]));
    other["metadata"]["creationTimestamp"] = "2026-11-03T00:00:00Z".into();
    let out = with(&[young, old, other]);
    let ids: Vec<_> = out.desired.listeners.iter().map(|l| &*l.id).collect();
    assert_eq!(ids, ["front/old/http"], "the same host by HTTP is one");
    assert_eq!(told(listener_of(&out, "other"))[1], "Programmed=True/Programmed");
    assert_eq!(told(listener_of(&out, "a-young"))[0], "Accepted=False/PortUnavailable");
}

#[test]
fn gateways_that_take_the_same_host_have_the_routes_of_both() {
    let mut one = gateway("front", "one", json!([http("a", 80, "All")]));
    one["metadata"]["creationTimestamp"] = "2026-11-01T00:00:00Z".into();
    let two = gateway("front", "two", json!([http("b", 80, "All"), http("c", 81, "All")]));
    let web = http_route("web", to("two"), backends(&[("products", 80)]));
    let out = with(&[one, two, web]);
    let parents = &out.desired.routes["web.shop"].value.parents;
    let listener = |id: &str| Parent::Listener(id.into());
    assert_eq!(*parents, [listener("front/one/a"), listener("front/two/c")]);
    assert_eq!(listener_of(&out, "one")["attachedRoutes"], 0);
    assert_eq!(listener_of(&out, "two")["attachedRoutes"], 1);
}

fn listener_of<'a>(out: &'a Translated, gateway: &str) -> &'a Value {
    &status(out, Kind::Gateway, gateway)["listeners"][0]
}

#[test]
fn what_a_gateway_asks_for_and_cannot_get() {
    let with_spec = |field: &str, value: Value| {
        let mut front = gateway("front", "front", json!([http("http", 80, "All")]));
        front["spec"][field] = value;
        told(status(&with(&[front]), Kind::Gateway, "front"))
    };
    let told = with_spec("infrastructure", json!({ "parametersRef": { "name": "x" } }));
    assert_eq!(told[0], "Accepted=False/InvalidParameters");
    let told = with_spec("addresses", json!([{ "type": "IPAddress", "value": "198.51.100.9" }]));
    assert_eq!(told[1], "Programmed=False/AddressNotUsable");
    assert_eq!(
        with_spec("addresses", json!([{ "type": "IPAddress" }]))[1],
        "Programmed=True/Programmed"
    );
}

#[test]
fn tls_routes_go_by_server_name() {
    let tls = json!({
        "name": "tls", "port": 443, "protocol": "TLS", "hostname": "*.example.com",
        "allowedRoutes": { "namespaces": { "from": "All" } }, "tls": { "mode": "Passthrough" },
    });
    let front = gateway("front", "front", json!([tls]));
    let mut web = route("TLSRoute", "shop", "web", to("front"), backends(&[("products", 80)]));
    web["spec"]["hostnames"] = json!(["a.example.com"]);
    let mut lost = web.clone();
    lost["metadata"]["name"] = "lost".into();
    lost["spec"]["hostnames"] = json!(["a.example.org"]);
    let out = with(&[front, web, lost]);
    let id = Some("front/front/tls".into());
    let parent = TcpParent::Gateway { section: id, port: None };
    assert_eq!(out.desired.tcp_routes["web.shop.tls"].value.parents, [parent]);
    assert_eq!(out.desired.tcp_routes.len(), 1);
    let told = told_by_parent(&out, Kind::TLSRoute, "lost");
    assert_eq!(told[0], "Accepted=False/NoMatchingListenerHostname");
}
