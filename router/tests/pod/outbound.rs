//! What an application of a pod sends.

use weir_proto::weir::mesh::v1 as pb;

use crate::World;
use crate::plane::identity;
use crate::world::{eventually, talk};

pub async fn test(world: &World) {
    by_virtual_address(world);
    by_the_address_of_a_pod(world);
    by_name(world);
    out_of_the_mesh(world).await;
    hello_says_no_instance(world);
    whoever_is_somebody_else_is_refused(world).await;
    routes_of_consumers(world).await;
}

fn by_virtual_address(world: &World) {
    let client = &world.client;
    // Whatever host it names, and it is kept.
    for host in ["web.shop", "example.com:1234", "10.96.0.1"] {
        let answer = client.get("10.96.0.1:80", host, "/a?b=c");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("I am server"), "{answer}");
        assert!(answer.contains("GET /a?b=c ") && answer.contains(&format!("host: {host}\r\n")));
        assert!(answer.contains("URI=spiffe://cluster.local/ns/shop/sa/client"), "{answer}");
        assert!(answer.contains("By=spiffe://cluster.local/ns/shop/sa/server"), "{answer}");
    }
    // Instances of one service may have different identities.
    let answers: Vec<_> = (0..2).map(|_| client.get("10.96.0.2:80", "x", "/")).collect();
    for name in ["I am server", "I am other"] {
        assert!(answers.iter().any(|answer| answer.contains(name)), "{answers:?}");
    }
    // Bytes of a server that speaks first.
    let said = talk(client.connect("10.96.0.4:5432"), "hello").unwrap();
    assert_eq!(said, "220 db\nhello");
    // Without a router.
    assert!(client.get("10.96.0.5:80", "plain", "/").contains("I am plain"));
    assert_eq!(talk(client.connect("10.96.0.6:25"), "a").unwrap(), "220 mail\na");
    // To itself.
    assert!(client.get("10.96.0.7:80", "x", "/").contains("I am client"));
}

fn by_the_address_of_a_pod(world: &World) {
    let (client, server, other) = (&world.client, &world.server, &world.other);
    for _ in 0..5 {
        let answer = client.get(&other.at(8080), &other.at(8080), "/");
        assert!(answer.contains("I am other"), "{answer}");
        assert!(answer.contains("URI=spiffe://cluster.local/ns/shop/sa/client"), "{answer}");
    }
    assert_eq!(talk(client.connect(&server.at(5432)), "x").unwrap(), "220 db\nx");
}

fn by_name(world: &World) {
    // As an application does that asks the router as its proxy.
    let ask = |host: &str| {
        let stream = world.client.connect("127.0.0.1:15001");
        crate::world::get(stream, host, "/")
    };
    for host in ["web", "web.shop", "WEB.shop.svc", "web.shop.svc.cluster.local.", "web:80"] {
        let answer = ask(host);
        assert!(answer.contains("I am server"), "{host}: {answer}");
    }
    assert!(ask("plain.out").contains("I am plain"));
    assert!(ask("client.shop").contains("I am client"));
    assert!(ask("client.shop.svc.cluster.local:81").contains("I am other"));
    assert!(ask("plain").starts_with("HTTP/1.1 404"), "it is in another namespace");
}

async fn out_of_the_mesh(world: &World) {
    let (client, plain) = (&world.client, &world.plain);
    // Nobody knows the port: its bytes pass, whoever speaks first.
    crate::world::tcp_app(plain.listen(2525), "stranger");
    crate::world::http_app(plain.listen(8081), "strange web");
    let said = talk(client.connect(&plain.at(2525)), "x").unwrap();
    assert_eq!(said, "220 stranger\nx");
    let answer = client.get(&plain.at(8081), "web.shop", "/");
    assert!(answer.contains("I am strange web") && !answer.contains("traceparent"), "{answer}");
    let metrics = client.admin("/metrics");
    assert!(metrics.contains(r#"weir_router_egress_total{verdict="allowed"} 2"#), "{metrics}");

    // Unless nothing may leave but what is listed.
    world.publish(|snapshot| snapshot.options.as_mut().unwrap().egress = None).await;
    let refused = talk(client.connect(&plain.at(2525)), "x");
    assert!(refused.as_ref().map_or(true, String::is_empty), "{refused:?}");
    let answer = client.get(&plain.at(8081), "example.com", "/");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    world.publish(|_| {}).await;
    eventually("a line of the access log", || async {
        client.log().lines().any(|line| line.contains(r#""flags":["ED"]"#)).then_some(())
    })
    .await;
}

fn hello_says_no_instance(world: &World) {
    let hello = world.plane.hello("shop/client");
    assert_eq!((hello.service.as_str(), &hello.instance), ("client.shop", &None));
    assert_eq!(hello.admin_address, world.client.at(15020));
}

async fn whoever_is_somebody_else_is_refused(world: &World) {
    let at = world.server.at(8080);
    let change = |snapshot: &mut pb::Snapshot| {
        for instance in snapshot.instances.iter_mut().filter(|i| i.address == at) {
            instance.identity = identity("shop/other");
        }
    };
    world.publish(change).await;
    let answer = world.client.get("10.96.0.1:80", "web", "/");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    world.publish(|_| {}).await;
    assert!(world.client.get("10.96.0.1:80", "web", "/").contains("I am server"));
}

/// A route of a service leads its requests elsewhere, one of the caller's namespace
/// comes in its place, and one of another namespace does nothing.
async fn routes_of_consumers(world: &World) {
    let route = |name: &str, consumers: &str, to: &str| pb::Route {
        name: name.into(),
        kind: pb::route::Kind::HttpRoute.into(),
        parent_refs: vec![pb::ParentRef {
            kind: "Service".into(),
            name: "web.shop".into(),
            consumer_namespace: consumers.into(),
        }],
        rules: vec![pb::RouteRule {
            backend_refs: vec![pb::BackendRef {
                service: to.into(),
                weight: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let producer = route("producer", "", "headless.shop");
    let strange = route("strange", "out", "client.shop");
    let own = route("own", "shop", "plain.out");
    let cases = [
        (vec![&producer, &strange], "I am other"),
        (vec![&producer, &strange, &own], "I am plain"),
    ];
    for (routes, wanted) in cases {
        let routes = routes.into_iter().cloned().collect();
        world.publish(|snapshot| snapshot.routes = routes).await;
        let answer = world.client.get("10.96.0.1:80", "web", "/");
        assert!(answer.contains(wanted), "{wanted}: {answer}");
    }
    world.publish(|_| {}).await;
}
