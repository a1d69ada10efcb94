//! What holds for all objects.

use super::*;
use proptest::prelude::*;

/// Objects of every kind that make sense together.
fn whole() -> Vec<Value> {
    let class = json!({
        "kind": "GatewayClass", "metadata": { "name": "weir" },
        "spec": { "controllerName": "weir.dev/gateway" },
    });
    let listener = |name: &str, protocol: &str, port: u16| {
        json!({
            "name": name, "port": port, "protocol": protocol, "hostname": "*.example.com",
            "allowedRoutes": { "namespaces": { "from": "All" }, "kinds": [] },
            "tls": { "mode": "Passthrough", "certificateRefs": [{ "name": "tls" }] },
        })
    };
    let gateway = json!({
        "kind": "Gateway", "metadata": { "namespace": "shop", "name": "front" },
        "spec": { "gatewayClassName": "weir", "listeners": [
            listener("http", "HTTP", 80), listener("tls", "TLS", 443), listener("tcp", "TCP", 5432),
        ] },
    });
    let parents = || json!([{ "name": "front" }, of_service("products")]);
    let ports = json!([{ "name": "web", "port": 80 }, { "name": "grpc", "port": 90 }, { "name": "tcp", "port": 91 }]);
    let rules = json!([{
        "name": "one",
        "matches": [{ "path": { "type": "PathPrefix", "value": "/a" }, "headers": [{ "name": "x", "value": "y" }] }],
        "filters": [{ "type": "RequestMirror", "requestMirror": {
            "backendRef": { "name": "products", "port": 80 },
        } }, { "type": "ExtensionRef", "extensionRef": {
            "group": "weir.dev", "kind": "HTTPRouteFilter", "name": "slow",
        } }],
        "backendRefs": [
            { "name": "products", "port": 80, "weight": 1 },
            { "name": "products", "port": 90, "namespace": "else", "weight": 0 },
        ],
        "timeouts": { "request": "1s" },
    }]);
    let of = |kind: &str, name: &str, spec: Value| json!({ "kind": kind, "metadata": { "namespace": "shop", "name": name }, "spec": spec });
    let target = json!([of_service("products"), { "kind": "HTTPRoute", "name": "web", "sectionName": "one" }]);
    let tcp = json!([{ "backendRefs": [{ "name": "products", "port": 91 }] }]);
    let grant = of(
        "ReferenceGrant",
        "all",
        json!({
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Service" }],
        }),
    );
    let endpoints = json!([
        endpoint("a", "10.0.0.1", json!({ "ready": true })),
        endpoint("b", "10.0.0.2", json!({ "terminating": true })),
        { "addresses": ["10.0.0.3"] },
    ]);
    let mut tls = route("TLSRoute", "shop", "db", parents(), tcp.clone());
    tls["spec"]["hostnames"] = json!(["a.example.com"]);
    vec![
        class,
        gateway,
        namespace("shop"),
        pod("a", "v1", true),
        pod("b", "v2", false),
        grant,
        service("products", ports.clone()),
        slice("1", "products", ports, endpoints),
        http_route("web", parents(), rules.clone()),
        route(
            "GRPCRoute",
            "shop",
            "web",
            parents(),
            json!([{ "backendRefs": [{ "name": "products", "port": 90 }] }]),
        ),
        route("TCPRoute", "shop", "db", parents(), tcp),
        tls,
        of("TrafficSplit", "products", json!({ "versions": [{ "name": "v1", "weight": 9 }] })),
        of("HTTPRouteFilter", "slow", json!({ "directResponse": { "status": 503 } })),
        of(
            "AuthorizationPolicy",
            "may",
            json!({ "targetRefs": target, "action": "Deny", "rules": [{}] }),
        ),
        of(
            "BackendTrafficPolicy",
            "how",
            json!({
                "targetRefs": [of_service("products")], "failover": [{ "service": "products" }],
            }),
        ),
        json!({ "kind": "Node", "metadata": { "name": "n" } }),
        json!({ "kind": "Secret", "metadata": { "namespace": "shop", "name": "tls" }, "data": {} }),
    ]
}

/// All places in a value.
fn paths(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                paths(value, &format!("{at}/{key}"), out);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                paths(value, &format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let words = [
        "",
        "None",
        "web",
        "products",
        "shop",
        "nobody",
        "*",
        "*.example.com",
        "a b",
        "ä",
        "0",
        "Service",
        "Gateway",
        "HTTPRoute",
        "TCP",
        "HTTPS",
        "Terminate",
        "All",
        "true",
        "10.0.0.1",
        "fd00::1",
        "0.0.0.0",
        "default",
        "A.B.",
        "weir.dev",
        "RegularExpression",
        "(",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0i64), Just(-1), Just(80), Just(90), Just(70_000), any::<i64>()]
            .prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        "\\PC{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z]{1,9}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_there_routers_accept_the_rest(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), odd()), 1..12),
    ) {
        let mut all = whole();
        for (object, place, value) in changes {
            let object: &mut Value = object.get_mut(&mut all);
            let mut places = Vec::new();
            paths(object, "", &mut places);
            places.retain(|place| !place.is_empty() && place != "/kind");
            if !places.is_empty()
                && let Some(at) = object.pointer_mut(place.get(&places).as_str())
            {
                *at = value;
            }
        }
        let out = translated(&all);
        let faults = snapshot::check(&out.desired);
        // A TCPRoute may lead to what speaks HTTP: it is bytes too.
        prop_assert!(faults.iter().all(|fault| fault.to_string().contains("is not tcp")));
    }

    #[test]
    fn no_order_of_objects_matters(seed in any::<u64>(), twice in any::<bool>()) {
        let mut all = whole();
        let expected = translated(&all);
        let len = all.len() as u64;
        for i in (1..all.len()).rev() {
            all.swap(i, (seed.rotate_left(i as u32) % len % (i as u64 + 1)) as usize);
        }
        if twice {
            all.extend(all.clone());
        }
        let out = translated(&all);
        prop_assert_eq!(&out.desired, &expected.desired);
        prop_assert_eq!(&out.instances, &expected.instances);
        prop_assert_eq!(&out.statuses, &expected.statuses);
        prop_assert_eq!(&out.warnings, &expected.warnings);
    }
}

#[test]
fn what_was_told_is_told_again() {
    // Whoever compares a status with what is there must find them the same.
    let mut all = whole();
    let out = translated(&all);
    for update in &out.statuses {
        let of = |object: &&mut Value| {
            object["kind"] == update.kind.as_str() && object["metadata"]["name"] == *update.name
        };
        let object = all.iter_mut().find(of).expect("the object");
        object["status"] = update.status.clone();
    }
    assert_eq!(translated(&all).statuses, out.statuses);
    assert!(
        out.statuses.len() > 9
            && out.desired.routes.len() == 2
            && out.desired.tcp_routes.len() == 2
    );
    assert_eq!(out.desired.policies.len(), 3);
}
