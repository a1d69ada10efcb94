//! Policies: what they are attached to, and what they are told.

use super::*;
use weir_mesh::policy::{PolicyKind, PolicySpec, Target};

fn policy(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "kind": kind,
        "metadata": { "namespace": namespace, "name": name, "generation": 5 },
        "spec": spec,
    })
}

fn deny(target: Value) -> Value {
    json!({ "targetRefs": [target], "action": "Deny", "rules": [{}] })
}

fn with(more: &[Value]) -> Translated {
    let ports = json!([http_port(80), http_port(81), { "name": "tcp-db", "port": 5432 }]);
    let mut all = vec![service("products", ports), service("guard", json!([http_port(80)]))];
    all.push(http_route("web", json!([of_service("products")]), backends(&[("products", 80)])));
    all.extend_from_slice(more);
    translated(&all)
}

fn held<'a>(
    out: &'a Translated,
    kind: PolicyKind,
    name: &str,
) -> Option<&'a weir_mesh::policy::Policy> {
    out.desired.policies.get(&(kind, name.into())).map(|held| &*held.value)
}

fn targets(out: &Translated, kind: PolicyKind, name: &str) -> Vec<String> {
    let targets = held(out, kind, name).map(|policy| policy.targets.as_slice());
    targets.unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn accepted(out: &Translated, kind: Kind, name: &str) -> String {
    told(&status(out, kind, name)["ancestors"][0])[0].clone()
}

#[test]
fn a_policy_of_a_service_holds_for_its_ports() {
    let all = policy("AuthorizationPolicy", "shop", "all", deny(of_service("products")));
    let limit = json!({
        "targetRefs": [{ "kind": "Service", "name": "products", "sectionName": "http-81" }],
    });
    let one = policy("BackendTrafficPolicy", "shop", "one", limit);
    let traffic = json!({ "targetRefs": [of_service("products")] });
    let both = policy("BackendTrafficPolicy", "shop", "young", traffic);
    let out = with(&[all, one, both]);
    let wanted =
        ["Service/products.shop", "Service/products.shop:81", "Service/products.shop:5432"];
    assert_eq!(targets(&out, PolicyKind::Authorization, "all.shop"), wanted);
    assert_eq!(targets(&out, PolicyKind::BackendTraffic, "one.shop"), [wanted[1]]);
    assert_eq!(
        targets(&out, PolicyKind::BackendTraffic, "young.shop"),
        [wanted[0]],
        "what is left"
    );
    assert_eq!(accepted(&out, Kind::AuthorizationPolicy, "all"), "Accepted=True/Accepted");
    let ancestor = &status(&out, Kind::AuthorizationPolicy, "all")["ancestors"][0];
    assert_eq!(ancestor["ancestorRef"]["name"], "products");
    assert_eq!(ancestor["conditions"][0]["observedGeneration"], 5);
    assert!(snapshot::policies::check(&out.desired).is_empty());
}

#[test]
fn what_others_have_written_into_a_status_stays() {
    let mut one = policy("AuthorizationPolicy", "shop", "one", deny(of_service("guard")));
    let condition = |name: &str| json!({ "type": name, "status": "False", "reason": "Old" });
    one["status"]["ancestors"] = json!([
        {
            "ancestorRef": of_service("guard"), "controllerName": "weir.dev/controller",
            "conditions": [condition("Accepted"), condition("example.com/Seen")],
        },
        { "ancestorRef": of_service("gone"), "controllerName": "weir.dev/controller" },
        { "ancestorRef": of_service("guard"), "controllerName": "example.com/other" },
    ]);
    let out = with(&[one]);
    let ancestors = status(&out, Kind::AuthorizationPolicy, "one")["ancestors"].as_array();
    let ancestors = ancestors.expect("some");
    let wanted =
        ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs", "example.com/Seen=False/Old"];
    assert_eq!(told(&ancestors[0]), wanted);
    assert_eq!(
        (ancestors.len(), &ancestors[1]["controllerName"]),
        (2, &"example.com/other".into())
    );
}

#[test]
fn of_two_that_a_target_can_have_one_of_the_older_holds() {
    let spec = json!({ "targetRefs": [of_service("guard")] });
    let mut young = policy("BackendTrafficPolicy", "shop", "a-young", spec.clone());
    young["metadata"]["creationTimestamp"] = "2026-11-02T00:00:00Z".into();
    let mut old = policy("BackendTrafficPolicy", "shop", "old", spec);
    old["metadata"]["creationTimestamp"] = "2026-11-01T00:00:00Z".into();
    let out = with(&[young, old]);
    assert!(held(&out, PolicyKind::BackendTraffic, "old.shop").is_some());
    assert!(held(&out, PolicyKind::BackendTraffic, "a-young.shop").is_none());
    assert_eq!(accepted(&out, Kind::BackendTrafficPolicy, "a-young"), "Accepted=False/Conflicted");
}

#[test]
fn a_target_that_is_not_there_is_told() {
    let route = |name: &str| json!({ "kind": "HTTPRoute", "name": name });
    for (target, told) in [
        (of_service("nobody"), "Accepted=False/TargetNotFound"),
        (route("nobody"), "Accepted=False/TargetNotFound"),
        (
            json!({ "kind": "HTTPRoute", "name": "web", "sectionName": "x" }),
            "Accepted=False/TargetNotFound",
        ),
        (json!({ "kind": "Gateway", "name": "front" }), "Accepted=False/TargetNotFound"),
        (json!({ "kind": "Mesh", "name": "mesh" }), "Accepted=False/Invalid"),
        (json!({ "kind": "Pod", "name": "a" }), "Accepted=False/Invalid"),
        (
            json!({ "kind": "Service", "name": "guard", "namespace": "else" }),
            "Accepted=False/Invalid",
        ),
        (route("web"), "Accepted=True/Accepted"),
    ] {
        let out = with(&[policy("AuthorizationPolicy", "shop", "one", deny(target.clone()))]);
        assert_eq!(accepted(&out, Kind::AuthorizationPolicy, "one"), told, "{target}");
        assert_eq!(out.desired.policies.len(), usize::from(told.contains("True")));
    }
}

#[test]
fn the_whole_mesh_is_for_the_control_planes_namespace() {
    let mesh = deny(json!({ "kind": "Mesh", "name": "mesh" }));
    let out = with(&[policy("AuthorizationPolicy", "weir-system", "all", mesh)]);
    assert_eq!(targets(&out, PolicyKind::Authorization, "all.weir-system"), ["Mesh/mesh"]);
}

#[test]
fn who_may_fails_closed_when_it_cannot_be_read() {
    let bad = json!({
        "targetRefs": [of_service("guard")], "action": "Allow",
        "rules": [{ "to": { "methods": ["get"] } }],
    });
    let mut audit = bad.clone();
    audit["mode"] = "Audit".into();
    let all = [
        policy("AuthorizationPolicy", "shop", "bad", bad),
        policy("AuthorizationPolicy", "shop", "audit", audit),
        policy(
            "RateLimitPolicy",
            "shop",
            "limit",
            json!({ "targetRefs": [of_service("guard")], "x": 1 }),
        ),
    ];
    let out = with(&all);
    for (kind, name) in [
        (Kind::AuthorizationPolicy, "bad"),
        (Kind::AuthorizationPolicy, "audit"),
        (Kind::RateLimitPolicy, "limit"),
    ] {
        assert_eq!(accepted(&out, kind, name), "Accepted=False/Invalid");
    }
    let names: Vec<_> = out.desired.policies.keys().map(|(_, name)| name.to_string()).collect();
    assert_eq!(names, ["bad.shop.authorizationpolicy.invalid"]);
    let stands_in = held(&out, PolicyKind::Authorization, &names[0]).expect("one");
    let guard: Target = Target::Service("guard.shop".parse().expect("a name"));
    assert_eq!(stands_in.targets, [guard]);
}

#[test]
fn names_in_a_spec_are_those_of_its_namespace() {
    let external = |service: &str| {
        json!({
            "targetRefs": [of_service("products")], "action": "External",
            "rules": [{ "from": { "services": ["web", "other/web"] } }],
            "external": { "service": service },
        })
    };
    let named = |service: &str| {
        let out = with(&[policy("AuthorizationPolicy", "shop", "ask", external(service))]);
        let policy = held(&out, PolicyKind::Authorization, "ask.shop").expect("one");
        let document = policy.document();
        assert_eq!(document["rules"][0]["from"]["services"], json!(["shop/web", "other/web"]));
        let told = told(&status(&out, Kind::AuthorizationPolicy, "ask")["ancestors"][0]);
        (document["external"]["service"].clone(), told[1].clone())
    };
    for good in ["guard", "guard.shop", "guard.shop:80"] {
        assert_eq!(named(good), ("guard.shop".into(), "ResolvedRefs=True/ResolvedRefs".to_owned()));
    }
    assert_eq!(
        named("nobody"),
        ("nowhere".into(), "ResolvedRefs=False/BackendNotFound".to_owned())
    );
    let far = named("guard.other");
    assert_eq!(far, ("nowhere".into(), "ResolvedRefs=False/RefNotPermitted".to_owned()));
}

#[test]
fn rules_refer_to_filters_of_their_namespace() {
    let rule = |name: &str| {
        let filter = json!({ "group": "weir.dev", "kind": "HTTPRouteFilter", "name": name });
        json!([{ "filters": [{ "type": "ExtensionRef", "extensionRef": filter }] }])
    };
    let spec = json!({ "directResponse": { "status": 503 } });
    let filter = policy("HTTPRouteFilter", "shop", "closed", spec);
    let broken = policy("HTTPRouteFilter", "shop", "broken", json!({ "x": 1 }));
    let parent = || json!([of_service("products")]);
    let out = with(&[
        filter,
        broken,
        http_route("good", parent(), rule("closed")),
        http_route("bad", parent(), rule("broken")),
    ]);
    let kept = held(&out, PolicyKind::Filter, "closed.shop").expect("the filter");
    assert!(matches!(kept.spec, PolicySpec::Filter(_)));
    assert_eq!(accepted(&out, Kind::HTTPRouteFilter, "broken"), "Accepted=False/Invalid");
    let good = &out.desired.routes["good.shop"].value.rules[0];
    assert!(good.backends.is_empty() && good.filters.len() == 1);
    let bad = &out.desired.routes["bad.shop"].value.rules[0];
    assert!(bad.filters.is_empty() && bad.backends[0].invalid.is_some());
    let told = told_by_parent(&out, Kind::HTTPRoute, "bad");
    assert_eq!(told[1], "ResolvedRefs=False/BackendNotFound");
}

fn gateways(count: usize) -> Vec<Value> {
    let mut all = vec![json!({
        "kind": "GatewayClass", "metadata": { "name": "weir" },
        "spec": { "controllerName": "weir.dev/gateway" },
    })];
    for i in 0..count {
        all.push(json!({
            "kind": "Gateway", "metadata": { "namespace": "shop", "name": format!("front-{i}") },
            "spec": {
                "gatewayClassName": "weir",
                "listeners": [{ "name": "http", "port": 80 + i, "protocol": "HTTP" }],
            },
        }));
    }
    let parent = json!([{ "name": "front-0" }]);
    all.push(http_route("outside", parent, backends(&[("products", 80)])));
    all.push(policy(
        "AuthorizationPolicy",
        "shop",
        "gate",
        deny(json!({ "kind": "Gateway", "name": "front-0" })),
    ));
    all
}

#[test]
fn a_policy_of_one_gateway_is_not_for_another() {
    let of = |count| targets(&with(&gateways(count)), PolicyKind::Authorization, "gate.shop");
    assert_eq!(of(1), ["Gateway/gateway"]);
    assert_eq!(of(2), ["HTTPRoute/outside.shop"]);
}
