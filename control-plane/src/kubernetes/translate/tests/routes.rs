//! Routes with Services as parents.

use super::*;
use weir_mesh::model::{Parent, RouteRule, TcpParent};

fn two() -> Vec<Value> {
    vec![
        service("products", json!([http_port(80), http_port(8080)])),
        service("users", json!([http_port(80), { "name": "tcp-db", "port": 5432 }])),
    ]
}

fn with(more: &[Value]) -> Translated {
    let mut all = two();
    all.extend_from_slice(more);
    translated(&all)
}

fn rules<'a>(out: &'a Translated, name: &str) -> &'a [RouteRule] {
    &out.desired.routes[name].value.rules
}

/// Why each backend of the first rule cannot be used, or where it leads.
fn led(out: &Translated, name: &str) -> Vec<String> {
    let backends = rules(out, name)[0].backends.iter();
    backends
        .map(|b| b.invalid.as_ref().map_or(b.service.to_string(), ToString::to_string))
        .collect()
}

#[test]
fn a_route_of_all_ports_or_of_one() {
    let all = http_route("all", json!([of_service("products")]), backends(&[("users", 80)]));
    let one = json!([{ "group": "", "kind": "Service", "name": "products", "port": 8080 }]);
    let one = http_route("one", one, backends(&[("products", 8080)]));
    let out = with(&[all, one]);
    let parents = |name: &str| {
        let parents = out.desired.routes[name].value.parents.iter();
        parents.filter_map(|p| p.service().map(ToString::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(parents("all.shop"), ["products.shop", "products.shop:8080"]);
    assert_eq!(parents("one.shop"), ["products.shop:8080"]);
    assert_eq!(led(&out, "all.shop"), ["users.shop"]);
    let wanted = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];
    assert_eq!(told_by_parent(&out, Kind::HTTPRoute, "one"), wanted);
    let entry = &status(&out, Kind::HTTPRoute, "one")["parents"][0];
    assert_eq!(entry["controllerName"], "weir.dev/controller");
    assert_eq!(entry["parentRef"]["port"], 8080);
    assert_eq!(entry["conditions"][0]["observedGeneration"], 3);
}

#[test]
fn a_backend_that_cannot_be_used_answers_500_for_its_share() {
    let rules = json!([{ "backendRefs": [
        { "name": "users", "port": 80, "weight": 3 },
        { "name": "nobody", "port": 80, "weight": 2 },
        { "name": "users", "port": 81 },
        { "name": "users" },
        { "name": "users", "port": 5432 },
        { "group": "apps", "kind": "Deployment", "name": "users", "port": 80 },
        { "name": "users", "namespace": "vault", "port": 80 },
    ] }]);
    let out = with(&[http_route("web", json!([of_service("products")]), rules)]);
    let led = led(&out, "web.shop");
    let wanted = [
        "users.shop",
        "no Service nobody",
        "no TCP port 81",
        "has no port",
        "is declared to be opaque TCP",
        "apps/Deployment users is not supported",
        "no ReferenceGrant in vault",
    ];
    assert_eq!(led.len(), wanted.len());
    for (found, wanted) in led.iter().zip(wanted) {
        assert!(found.contains(wanted), "{found}: {wanted}");
    }
    let weights: Vec<_> = rules_weights(&out);
    assert_eq!(weights, [3, 2, 1, 1, 1, 1, 1]);
    let wanted = ["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"];
    assert_eq!(told_by_parent(&out, Kind::HTTPRoute, "web"), wanted);
}

fn rules_weights(out: &Translated) -> Vec<u32> {
    rules(out, "web.shop")[0].backends.iter().map(|b| b.weight.get()).collect()
}

#[test]
fn the_reason_is_that_of_the_reference() {
    for (backend, reason) in [
        (json!({ "kind": "Foo", "name": "users", "port": 80 }), "InvalidKind"),
        (json!({ "name": "users", "namespace": "vault", "port": 80 }), "RefNotPermitted"),
        (json!({ "name": "users", "port": 5432 }), "UnsupportedProtocol"),
    ] {
        let rules = json!([{ "backendRefs": [backend] }]);
        let out = with(&[http_route("web", json!([of_service("products")]), rules)]);
        let told = told_by_parent(&out, Kind::HTTPRoute, "web");
        assert_eq!(told[1], format!("ResolvedRefs=False/{reason}"));
    }
}

#[test]
fn a_rule_without_anything_to_send_to_answers_500() {
    let nothing = json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }] }]);
    let zero = json!([{ "backendRefs": [{ "name": "users", "port": 80, "weight": 0 }] }]);
    for (rules, why) in [(nothing, "no backendRefs"), (zero, "all weights")] {
        let out = with(&[http_route("web", json!([of_service("products")]), rules)]);
        assert!(led(&out, "web.shop")[0].contains(why), "{:?}", led(&out, "web.shop"));
        assert_eq!(rules_weights(&out), [1]);
        let wanted = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];
        assert_eq!(told_by_parent(&out, Kind::HTTPRoute, "web"), wanted);
    }
}

#[test]
fn a_mirror_that_leads_nowhere_is_left_out() {
    let mirror = |name: &str| {
        let backend = json!({ "group": "", "kind": "Service", "name": name, "port": 80 });
        json!({ "type": "RequestMirror", "requestMirror": { "backendRef": backend } })
    };
    let mirrored = json!([{
        "filters": [mirror("users"), mirror("nobody")],
        "backendRefs": [{ "name": "products", "port": 80 }],
    }]);
    let out = with(&[http_route("web", json!([of_service("products")]), mirrored)]);
    assert_eq!(rules(&out, "web.shop")[0].filters.len(), 1);
    assert_eq!(led(&out, "web.shop"), ["products.shop"]);
    let told = told_by_parent(&out, Kind::HTTPRoute, "web");
    assert_eq!(told[1], "ResolvedRefs=False/BackendNotFound");
}

#[test]
fn a_grant_lets_a_route_name_what_is_elsewhere() {
    let mut vault = service("secrets", json!([http_port(80)]));
    vault["metadata"]["namespace"] = "vault".into();
    let rules =
        json!([{ "backendRefs": [{ "name": "secrets", "namespace": "vault", "port": 80 }] }]);
    let web = http_route("web", json!([of_service("products")]), rules);
    let grant = |kind: &str, name: Value| {
        json!({
            "kind": "ReferenceGrant", "metadata": { "namespace": "vault", "name": "shop" },
            "spec": {
                "from": [{ "group": "gateway.networking.k8s.io", "kind": kind, "namespace": "shop" }],
                "to": [{ "group": "", "kind": "Service", "name": name }],
            },
        })
    };
    let led_with = |grant: Value| led(&with(&[vault.clone(), web.clone(), grant]), "web.shop");
    for good in [Value::Null, "secrets".into()] {
        assert_eq!(led_with(grant("HTTPRoute", good)), ["secrets.vault"]);
    }
    for bad in [grant("GRPCRoute", Value::Null), grant("HTTPRoute", "others".into())] {
        assert!(led_with(bad)[0].contains("no ReferenceGrant"));
    }
}

#[test]
fn a_route_of_another_namespace_is_for_its_own_callers() {
    let parent =
        json!([{ "group": "", "kind": "Service", "name": "products", "namespace": "shop" }]);
    let rules =
        json!([{ "backendRefs": [{ "name": "products", "namespace": "shop", "port": 80 }] }]);
    let out = with(&[route("HTTPRoute", "consumer", "web", parent, rules)]);
    let route = &out.desired.routes["web.consumer"].value;
    assert!(route.parents.iter().all(|parent| {
        matches!(parent, Parent::Consumer { namespace, .. } if &**namespace == "consumer")
    }));
    assert_eq!(led(&out, "web.consumer"), ["products.shop"], "callers could go there themselves");
}

#[test]
fn a_parent_that_is_not_there_or_speaks_something_else() {
    for parent in [
        of_service("nobody"),
        json!({ "group": "", "kind": "Service", "name": "users", "port": 5432 }),
        json!({ "group": "", "kind": "Service", "name": "users", "port": 1 }),
        json!({ "group": "", "kind": "Service", "name": "users", "sectionName": "http" }),
        json!({ "group": "", "kind": "Service", "name": "users", "sectionName": "http-80", "port": 5432 }),
    ] {
        let out = with(&[http_route("web", json!([parent]), backends(&[("users", 80)]))]);
        assert!(out.desired.routes.is_empty());
        let told = told_by_parent(&out, Kind::HTTPRoute, "web");
        assert_eq!(told[0], "Accepted=False/NoMatchingParent");
    }
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_goes_on() {
    let bad = json!([{ "matches": [{ "path": { "type": "RegularExpression", "value": "(" } }] }]);
    let bad = http_route("bad", json!([of_service("products")]), bad);
    let good = http_route("good", json!([of_service("products")]), backends(&[("users", 80)]));
    let out = with(&[bad, good]);
    assert_eq!(out.desired.routes.len(), 1);
    let told = told_by_parent(&out, Kind::HTTPRoute, "bad");
    assert_eq!(told[0], "Accepted=False/UnsupportedValue");
    let parent = &status(&out, Kind::HTTPRoute, "bad")["parents"][0];
    let message = parent["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("spec.rules[0].matches[0].path.value: "), "{message}");
}

#[test]
fn what_others_have_written_stays() {
    let mut web = http_route("web", json!([of_service("products")]), backends(&[("users", 80)]));
    let entry = |controller: &str, name: &str| json!({ "controllerName": controller, "parentRef": { "name": name }, "conditions": [] });
    web["status"] = json!({
        "parents": [entry("example.com/other", "theirs"), entry("weir.dev/controller", "gone")],
    });
    let out = with(&[web.clone()]);
    let parents = &status(&out, Kind::HTTPRoute, "web")["parents"];
    let names: Vec<_> =
        parents.as_array().into_iter().flatten().map(|p| &p["parentRef"]["name"]).collect();
    assert_eq!(names, ["products", "theirs"]);
    // Without parents of ours any more, only what others wrote is left.
    web["spec"]["parentRefs"] = json!([{ "name": "theirs" }]);
    let out = with(&[web]);
    assert_eq!(status(&out, Kind::HTTPRoute, "web")["parents"].as_array().map(Vec::len), Some(1));
}

#[test]
fn grpc_and_tcp_routes() {
    let mut all = two();
    all.push(service("orders", json!([{ "name": "grpc", "port": 7070 }])));
    let parents = json!([of_service("orders")]);
    let rules = json!([{
        "matches": [{ "method": { "type": "Exact", "service": "a.B", "method": "C" } }],
        "backendRefs": [{ "name": "orders", "port": 7070 }],
    }]);
    all.push(route("GRPCRoute", "shop", "web", parents, rules));
    let tcp = json!([{ "backendRefs": [
        { "name": "users", "port": 5432 }, { "name": "nobody", "port": 1 },
    ] }]);
    all.push(route("TCPRoute", "shop", "db", json!([of_service("users")]), tcp));
    let out = translated(&all);
    assert_eq!(out.desired.routes["web.shop.grpc"].value.rules.len(), 1);
    let db = &out.desired.tcp_routes["db.shop"].value;
    let port: TcpParent = TcpParent::Service("users.shop:5432".parse().expect("a name"));
    assert_eq!(db.parents, [port]);
    assert!(db.backends[0].invalid.is_none() && db.backends[1].invalid.is_some());
    let told = told_by_parent(&out, Kind::TCPRoute, "db");
    assert_eq!(told, ["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]);
}
